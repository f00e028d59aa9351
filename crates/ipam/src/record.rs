//! The state that must survive a restart: assignments, cooldowns, intended calls, and EC2's last answer about
//! the ENIs.
//!
//! The record changes only by [`Change`]s. The engine returns them before anything happens outside. The
//! daemon appends them to its log, and replaying the log gives the same record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use mac::MacAddr;
use serde::{Deserialize, Serialize};

use crate::block::Block;
use crate::call::{CallId, Ec2Call, EniFacts};
use crate::id::{AttachmentKey, BootId, EniId, Pod};
use crate::time::Timestamp;

/// One durable step. Applying one twice is the same as applying it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// An attachment gets its addresses.
    Assigned {
        /// The attachment.
        key: AttachmentKey,
        /// Its addresses, and where they are.
        assignment: Assignment,
    },
    /// An attachment has ended; its addresses rest.
    Released {
        /// The attachment.
        key: AttachmentKey,
        /// When it ended. The addresses may serve again a cooldown later.
        at: Timestamp,
    },
    /// An address rests, though no attachment in this log has released it: in a snapshot, or after a quarantine.
    Resting {
        /// The address.
        address: IpAddr,
        /// When it was released.
        since: Timestamp,
    },
    /// An address has rested, or has left this node.
    Rested {
        /// The address.
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
    /// The machine has booted. EC2's earlier answers about its ENIs do not count any more.
    Booted {
        /// The boot.
        boot: BootId,
    },
    /// EC2 has described an attached ENI of ours with these blocks for pods.
    EniKnown(KnownEni),
    /// EC2's description of an ENI is outdated, or soon will be.
    EniForgotten {
        /// The ENI.
        eni: EniId,
    },
    /// The VPC has these IPv4 ranges and no others.
    VpcRanges {
        /// The ranges.
        ranges: BTreeSet<Ipv4Net>,
    },
    /// These prefixes are delegated, and no others.
    Delegated {
        /// The prefixes.
        prefixes: BTreeSet<Block>,
    },
}

/// An attached ENI of ours, as far as a later run may offer its addresses before EC2 answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownEni {
    /// EC2's description, without the blocks that are on their way back.
    pub facts: EniFacts,
    /// The range of its subnet.
    pub subnet_cidr: IpNet,
    /// Blocks that EC2 described there before and then left out. No pod gets them, and they are ours if they
    /// come back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missed: BTreeSet<Block>,
}

/// The addresses of an attachment, and its pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredAssignment")]
pub struct Assignment {
    /// The pod's addresses in the VPC.
    pub addresses: Addresses,
    /// The pod's address of the other family, which means something on this node alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_local: Option<IpAddr>,
    /// What the plugin has done about IPv6 in the pod's namespace.
    #[serde(skip_serializing_if = "PodIpv6::is_as_it_is")]
    pub ipv6: PodIpv6,
    /// The pod.
    pub pod: Pod,
    /// The pod's network namespace at ADD; empty if only the attachment's link is known.
    pub netns: String,
    /// When the pod got the addresses.
    pub since: Timestamp,
}

impl Assignment {
    /// All addresses that the node routes to it: those in the VPC, IPv4 first, then the node-local one.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.ips().chain(self.node_local)
    }
}

/// IPv6 in a pod's network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodIpv6 {
    /// As the runtime has set it, or unknown.
    #[default]
    AsItIs,
    /// Switched off. Never with an IPv6 address.
    Off,
}

impl PodIpv6 {
    fn is_as_it_is(&self) -> bool {
        *self == PodIpv6::AsItIs
    }
}

/// The addresses of one pod: one, or one of each family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<PodIp>", into = "Vec<PodIp>")]
pub struct Addresses {
    /// The IPv4 address where there are two.
    first: PodIp,
    second: Option<PodIp>,
}

/// These are not the addresses of one pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pod has one address, or one of each family; not {0:?}")]
pub struct InvalidAddresses(Vec<IpAddr>);

impl Addresses {
    /// One address.
    #[must_use]
    pub fn one(ip: PodIp) -> Self {
        Self { first: ip, second: None }
    }

    /// The IPv4 address, or the only one.
    #[must_use]
    pub fn first(&self) -> &PodIp {
        &self.first
    }

    /// All of them, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = &PodIp> {
        std::iter::once(&self.first).chain(&self.second)
    }

    fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.iter().map(|ip| ip.address)
    }
}

impl TryFrom<Vec<PodIp>> for Addresses {
    type Error = InvalidAddresses;

    fn try_from(mut ips: Vec<PodIp>) -> Result<Self, InvalidAddresses> {
        ips.sort_by_key(|ip| ip.address);
        let invalid = || InvalidAddresses(ips.iter().map(|ip| ip.address).collect());
        match ips.as_slice() {
            [ip] => Ok(Self::one(ip.clone())),
            [v4, v6] if v4.address.is_ipv4() && v6.address.is_ipv6() => {
                Ok(Self { first: v4.clone(), second: Some(v6.clone()) })
            }
            _ => Err(invalid()),
        }
    }
}

impl From<Addresses> for Vec<PodIp> {
    fn from(addresses: Addresses) -> Vec<PodIp> {
        std::iter::once(addresses.first).chain(addresses.second).collect()
    }
}

/// An address of a pod, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIp {
    /// The address.
    pub address: IpAddr,
    /// How it is reached.
    pub via: Via,
}

/// What carries an address of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// An ENI of the node.
    Eni {
        /// The ENI.
        eni: EniId,
        /// Its network card.
        card: u16,
        /// Its device index; 0 for the primary ENI, whatever index EC2 shows. Card and index decide the route table.
        index: u16,
    },
    /// A branch ENI of the pod's own, which is a VLAN on a trunk ENI.
    Branch {
        /// The branch ENI.
        eni: EniId,
        /// The VLAN's number on the trunk, 1 to 4094.
        vlan: u16,
        /// The trunk ENI.
        trunk: EniId,
        /// The trunk ENI's hardware address, by which its device is found.
        trunk_mac: MacAddr,
        /// The branch ENI's hardware address.
        mac: MacAddr,
        /// The router of the branch ENI's subnet.
        gateway: IpAddr,
    },
}

impl Via {
    /// The ENI that has the address at EC2.
    #[must_use]
    pub fn eni(&self) -> &EniId {
        match self {
            Via::Eni { eni, .. } | Via::Branch { eni, .. } => eni,
        }
    }
}

/// The stored forms of an [`Assignment`].
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredAssignment {
    Current {
        addresses: Addresses,
        /// Builds that know none leave it out, and read past it.
        #[serde(default)]
        node_local: Option<IpAddr>,
        #[serde(default)]
        ipv6: PodIpv6,
        pod: Pod,
        netns: String,
        since: Timestamp,
    },
    UpToVersion2(OldAssignment),
}

/// The form in records up to version 2: one address on an ENI.
#[derive(Deserialize)]
struct OldAssignment {
    address: IpAddr,
    eni: EniId,
    device_index: u16,
    network_card: u16,
    pod: Pod,
    netns: String,
    since: Timestamp,
}

impl From<StoredAssignment> for Assignment {
    fn from(stored: StoredAssignment) -> Self {
        match stored {
            StoredAssignment::Current { addresses, node_local, ipv6, pod, netns, since } => {
                Self { addresses, node_local, ipv6, pod, netns, since }
            }
            StoredAssignment::UpToVersion2(OldAssignment {
                address,
                eni,
                device_index,
                network_card,
                pod,
                netns,
                since,
            }) => {
                let via = Via::Eni { eni, card: network_card, index: device_index };
                let addresses = Addresses::one(PodIp { address, via });
                Self { addresses, node_local: None, ipv6: PodIpv6::AsItIs, pod, netns, since }
            }
        }
    }
}

/// A change that contradicts the record. The log is damaged or belongs to another node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Two attachments would share an address.
    #[error("{address} would belong to {second} while {first} has it")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The attachment that has it.
        first: Box<AttachmentKey>,
        /// The attachment that would get it too.
        second: Box<AttachmentKey>,
    },
    /// An attachment would have other addresses than it has.
    #[error("{key} would have {second:?} while it has {first:?}")]
    OtherAddresses {
        /// The attachment.
        key: Box<AttachmentKey>,
        /// The addresses that it has.
        first: Vec<IpAddr>,
        /// The addresses that it would get.
        second: Vec<IpAddr>,
    },
    /// A call would have a number that leaves none for later ones.
    #[error("no call has got as far as number {}", .0.0)]
    CallNumber(CallId),
}

/// The highest call number that a record accepts. No node makes so many calls.
const MAX_CALL: u64 = u64::MAX / 2;

/// The state that a restart must not lose. Each address belongs to at most one attachment. No address rests
/// while it is assigned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    assignments: BTreeMap<AttachmentKey, Assignment>,
    owners: BTreeMap<IpAddr, AttachmentKey>,
    cooling: BTreeMap<IpAddr, Timestamp>,
    intents: BTreeMap<CallId, Ec2Call>,
    last_call: u64,
    boot: Option<BootId>,
    enis: BTreeMap<EniId, KnownEni>,
    vpc_ranges: BTreeSet<Ipv4Net>,
    delegated: BTreeSet<Block>,
}

impl Record {
    /// Applies one change.
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
                    for address in assignment.ips() {
                        self.owners.remove(&address);
                        self.cooling.insert(address, *at);
                    }
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
            Change::VpcRanges { ranges } => self.vpc_ranges.clone_from(ranges),
            Change::Delegated { prefixes } => self.delegated.clone_from(prefixes),
        }
        Ok(())
    }

    fn assign(&mut self, key: &AttachmentKey, new: &Assignment) -> Result<(), Contradiction> {
        for address in new.ips() {
            if let Some(owner) = self.owners.get(&address).filter(|owner| *owner != key) {
                return Err(Contradiction::AddressTaken {
                    address,
                    first: Box::new(owner.clone()),
                    second: Box::new(key.clone()),
                });
            }
        }
        let old = self.assignments.get(key);
        if let Some(old) = old.filter(|old| !old.addresses.ips().eq(new.addresses.ips())) {
            return Err(Contradiction::OtherAddresses {
                key: Box::new(key.clone()),
                first: old.ips().collect(),
                second: new.ips().collect(),
            });
        }
        // A build that knows no node-local addresses writes the assignment without.
        if let Some(before) = old.and_then(|old| old.node_local) {
            self.owners.remove(&before);
        }
        for address in new.ips() {
            self.cooling.remove(&address);
            self.owners.insert(address, key.clone());
        }
        self.assignments.insert(key.clone(), new.clone());
        Ok(())
    }

    /// The shortest log that gives this record, for a snapshot.
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
        let ranges = Some(self.vpc_ranges.clone()).filter(|ranges| !ranges.is_empty());
        let ranges = ranges.map(|ranges| Change::VpcRanges { ranges });
        let delegated = Some(self.delegated.clone()).filter(|prefixes| !prefixes.is_empty());
        let delegated = delegated.map(|prefixes| Change::Delegated { prefixes });
        let rest = boot.chain(enis).chain(ranges).chain(delegated);
        cooling.chain(assigned).chain(counter).chain(intents).chain(rest)
    }

    /// The assignment of each attachment, ascending by key.
    #[must_use]
    pub fn assignments(&self) -> &BTreeMap<AttachmentKey, Assignment> {
        &self.assignments
    }

    /// The attachment that has each address.
    #[must_use]
    pub fn owners(&self) -> &BTreeMap<IpAddr, AttachmentKey> {
        &self.owners
    }

    /// The attachment that has `address`.
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

    /// The VPC's IPv4 ranges; empty if none are recorded.
    #[must_use]
    pub fn vpc_ranges(&self) -> &BTreeSet<Ipv4Net> {
        &self.vpc_ranges
    }

    /// The prefixes that containers beside the pods use. They outlive a boot, as EC2's assignments do.
    #[must_use]
    pub fn delegated(&self) -> &BTreeSet<Block> {
        &self.delegated
    }

    /// The boot in which the record last got an ENI's description.
    #[must_use]
    pub fn boot(&self) -> Option<&BootId> {
        self.boot.as_ref()
    }

    /// Whether any mutating call has ever been intended.
    pub(crate) fn has_calls(&self) -> bool {
        self.last_call > 0
    }

    /// The number of the next call.
    #[must_use]
    pub fn next_call(&self) -> CallId {
        CallId(self.last_call + 1)
    }
}

#[cfg(test)]
mod tests;
