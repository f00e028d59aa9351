//! What must survive a restart: the assignments, the cooldowns, the intents at EC2, and what EC2 has
//! said of the ENIs.
//!
//! The record changes only by [`Change`]s. The engine returns them before it lets anything happen
//! outside, the daemon appends them to its log, and replaying the log gives the same record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::block::Block;
use crate::call::{CallId, Ec2Call, EniFacts};
use crate::id::{AttachmentKey, BootId, EniId, Pod};
use crate::time::Timestamp;

/// One durable step. Applying one twice is the same as applying it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// An attachment has an address.
    Assigned {
        /// Whose.
        key: AttachmentKey,
        /// What and where.
        assignment: Assignment,
    },
    /// An attachment has gone; its address rests.
    Released {
        /// Whose.
        key: AttachmentKey,
        /// When; the address may serve again a cooldown later.
        at: Timestamp,
    },
    /// An address rests although no attachment of the log released it: a snapshot's line.
    Resting {
        /// Which.
        address: IpAddr,
        /// When it was released.
        since: Timestamp,
    },
    /// An address has rested, or has left this node.
    Rested {
        /// Which.
        address: IpAddr,
    },
    /// A call to EC2 is about to be made.
    Intended {
        /// Its number.
        id: CallId,
        /// The call.
        call: Ec2Call,
    },
    /// A call to EC2 has ended, with or without effect.
    Settled {
        /// Its number.
        id: CallId,
    },
    /// The machine has started anew: what was said of its ENIs before counts no more.
    Booted {
        /// Its start.
        boot: BootId,
    },
    /// An ENI of ours is attached and has these addresses for pods, in EC2's words.
    EniKnown(KnownEni),
    /// An ENI is not, or soon not, what was said of it.
    EniForgotten {
        /// Which.
        eni: EniId,
    },
}

/// An attached ENI of ours, as far as a later run may offer its addresses before EC2 answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownEni {
    /// What EC2 said, without the blocks that are on their way back to it.
    pub facts: EniFacts,
    /// The range of its subnet.
    pub subnet_cidr: Ipv4Net,
    /// What EC2 named there before and then left out: not to be offered, and ours if it comes back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missed: BTreeSet<Block>,
}

/// What an attachment holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The pod's address.
    pub address: IpAddr,
    /// The ENI that carries it.
    pub eni: EniId,
    /// The ENI's place on the instance; it decides the route table.
    pub device_index: u16,
    /// The ENI's network card.
    pub network_card: u16,
    /// The pod.
    pub pod: Pod,
    /// The pod's network namespace at ADD.
    pub netns: String,
    /// When it was given.
    pub since: Timestamp,
}

/// A change that contradicts the record it is applied to; the log is damaged or not of this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Two attachments would share an address.
    #[error("{address} would belong to {second} while {first} has it")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Who has it.
        first: Box<AttachmentKey>,
        /// Who would get it too.
        second: Box<AttachmentKey>,
    },
    /// An attachment would have two addresses.
    #[error("{key} would have {second} while it has {first}")]
    SecondAddress {
        /// The attachment.
        key: Box<AttachmentKey>,
        /// What it has.
        first: IpAddr,
        /// What it would get too.
        second: IpAddr,
    },
    /// A call would have a number that leaves none for later ones.
    #[error("no call has got as far as number {}", .0.0)]
    CallNumber(CallId),
}

/// What no node will ever have counted to.
const MAX_CALL: u64 = u64::MAX / 2;

/// The state that a restart must not lose. Each address belongs to at most one attachment, and
/// never rests while it is assigned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    assignments: BTreeMap<AttachmentKey, Assignment>,
    owners: BTreeMap<IpAddr, AttachmentKey>,
    cooling: BTreeMap<IpAddr, Timestamp>,
    intents: BTreeMap<CallId, Ec2Call>,
    last_call: u64,
    boot: Option<BootId>,
    enis: BTreeMap<EniId, KnownEni>,
}

impl Record {
    /// Takes one step.
    ///
    /// # Errors
    ///
    /// [`Contradiction`] if an address or an attachment would be used twice, or if call numbers
    /// would run out; the record is unchanged then.
    pub fn apply(&mut self, change: &Change) -> Result<(), Contradiction> {
        match change {
            Change::Assigned { key, assignment } => self.assign(key, assignment)?,
            Change::Released { key, at } => {
                if let Some(assignment) = self.assignments.remove(key) {
                    self.owners.remove(&assignment.address);
                    self.cooling.insert(assignment.address, *at);
                }
            }
            Change::Resting { address, since } => {
                if !self.owners.contains_key(address) {
                    self.cooling.insert(*address, *since);
                }
            }
            Change::Rested { address } => {
                self.cooling.remove(address);
            }
            Change::Intended { id, .. } | Change::Settled { id } if id.0 > MAX_CALL => {
                return Err(Contradiction::CallNumber(*id));
            }
            Change::Intended { id, call } => {
                self.last_call = self.last_call.max(id.0);
                self.intents.insert(*id, call.clone());
            }
            Change::Settled { id } => {
                self.last_call = self.last_call.max(id.0);
                self.intents.remove(id);
            }
            Change::Booted { boot } => {
                if self.boot.as_ref() != Some(boot) {
                    self.boot = Some(boot.clone());
                    self.enis.clear();
                }
            }
            Change::EniKnown(known) => {
                self.enis.insert(known.facts.id.clone(), known.clone());
            }
            Change::EniForgotten { eni } => {
                self.enis.remove(eni);
            }
        }
        Ok(())
    }

    fn assign(&mut self, key: &AttachmentKey, new: &Assignment) -> Result<(), Contradiction> {
        if let Some(owner) = self.owners.get(&new.address).filter(|owner| *owner != key) {
            return Err(Contradiction::AddressTaken {
                address: new.address,
                first: Box::new(owner.clone()),
                second: Box::new(key.clone()),
            });
        }
        if let Some(old) = self.assignments.get(key).filter(|old| old.address != new.address) {
            return Err(Contradiction::SecondAddress {
                key: Box::new(key.clone()),
                first: old.address,
                second: new.address,
            });
        }
        self.cooling.remove(&new.address);
        self.owners.insert(new.address, key.clone());
        self.assignments.insert(key.clone(), new.clone());
        Ok(())
    }

    /// The shortest log that leads here, for a snapshot.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        let cooling = self
            .cooling
            .iter()
            .map(|(address, since)| Change::Resting { address: *address, since: *since });
        let assigned = self.assignments.iter().map(|(key, assignment)| Change::Assigned {
            key: key.clone(),
            assignment: assignment.clone(),
        });
        let intents =
            self.intents.iter().map(|(id, call)| Change::Intended { id: *id, call: call.clone() });
        let counter = std::iter::once(Change::Settled { id: CallId(self.last_call) })
            .filter(|_| !self.intents.contains_key(&CallId(self.last_call)));
        let boot = self.boot.iter().map(|boot| Change::Booted { boot: boot.clone() });
        let enis = self.enis.values().cloned().map(Change::EniKnown);
        cooling.chain(assigned).chain(counter).chain(intents).chain(boot).chain(enis)
    }

    /// What each attachment holds, ascending by key.
    #[must_use]
    pub fn assignments(&self) -> &BTreeMap<AttachmentKey, Assignment> {
        &self.assignments
    }

    /// Who holds each address.
    #[must_use]
    pub fn owners(&self) -> &BTreeMap<IpAddr, AttachmentKey> {
        &self.owners
    }

    /// Who holds `address`.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&AttachmentKey> {
        self.owners.get(&address)
    }

    /// The resting addresses and when each was released.
    #[must_use]
    pub fn cooling(&self) -> &BTreeMap<IpAddr, Timestamp> {
        &self.cooling
    }

    /// The calls whose end is not recorded.
    #[must_use]
    pub fn intents(&self) -> &BTreeMap<CallId, Ec2Call> {
        &self.intents
    }

    /// Our ENIs as EC2 described them in the boot named by [`boot`](Self::boot).
    #[must_use]
    pub fn enis(&self) -> &BTreeMap<EniId, KnownEni> {
        &self.enis
    }

    /// The machine's start in which the record last learnt of an ENI.
    #[must_use]
    pub fn boot(&self) -> Option<&BootId> {
        self.boot.as_ref()
    }

    /// Whether any call that changes something has ever been intended.
    pub(crate) fn has_calls(&self) -> bool {
        self.last_call > 0
    }

    /// The number of the next call.
    #[must_use]
    pub fn next_call(&self) -> CallId {
        CallId(self.last_call + 1)
    }
}
