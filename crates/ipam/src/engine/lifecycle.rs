//! What happens to each ENI on its way: attach, mark, make usable on the host, detach, delete.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Engine;
use super::doubt::LAG;
use super::growth::LINK_ATTEMPTS;
use crate::bucket::Urgency;
use crate::call::{Action, Ec2Call, EniFacts};
use crate::eni::{Eni, Link, Origin, Stage};
use crate::event::{Effect, HostEni, LinkState, RefusalCode};
use crate::id::EniId;
use crate::record::Change;
use crate::retry::{Hold, Pace, Subject};
use crate::time::Timestamp;

/// How soon the host's side is tried again; devices appear within seconds of an attach.
const HOST: Pace = Pace::new(500, 30_000);
/// How long a device may take to appear; on a busy host minutes have been seen.
const LATEST_DEVICE: Duration = Duration::from_secs(150);
/// How soon another ENI may be replaced whose device has not come.
const BETWEEN_REPLACEMENTS: Duration = Duration::from_secs(3600);
/// How long EC2 takes as a rule to detach an ENI; a delete before that is refused.
const DETACHING: Duration = Duration::from_secs(5);
/// EC2's highest device index, as other tools take it.
const LAST_DEVICE_INDEX: u16 = 99;

impl Engine {
    /// Starts the next call of each ENI that needs one.
    pub(super) fn advance_enis(&mut self, now: Timestamp) {
        let ids: Vec<_> = self.pool.enis.keys().cloned().collect();
        for id in ids {
            self.advance(&id, now);
        }
    }

    pub(super) fn advance(&mut self, id: &EniId, now: Timestamp) {
        if !self.enis_look.is_known() || self.is_busy(id) || self.record_hold(now).is_some() {
            return;
        }
        let next = self.pool.enis.get(id).filter(|eni| leaves_at(eni).is_none_or(|at| at <= now));
        let Some(call) = next.and_then(|eni| self.next_call(eni)) else { return };
        let subject = Subject::Eni(id.clone(), call.action());
        if self.retries.hold(&subject, now).is_none()
            && self.action_hold(call.action(), now).is_none()
        {
            self.start(call, now);
        }
    }

    /// When the ENIs that are being detached may be deleted.
    pub(super) fn next_deletes(&self) -> impl Iterator<Item = Timestamp> {
        self.pool.enis.values().filter_map(leaves_at)
    }

    fn next_call(&self, eni: &Eni) -> Option<Ec2Call> {
        let id = eni.id.clone();
        match &eni.stage {
            Stage::Unattached => {
                self.free_index().map(|device_index| Ec2Call::AttachEni { eni: id, device_index })
            }
            Stage::Attached { bond, .. } => {
                let unmarked = eni.origin == Origin::Tagged && !bond.delete_on_termination;
                unmarked.then(|| Ec2Call::SetDeleteOnTermination {
                    eni: id,
                    attachment: bond.attachment.clone(),
                })
            }
            Stage::Draining { bond } => {
                Some(Ec2Call::DetachEni { eni: id, attachment: bond.attachment.clone() })
            }
            Stage::Doomed { .. } => Some(Ec2Call::DeleteEni { eni: id }),
        }
    }

    /// The lowest device index that is nobody's, nor about to be.
    fn free_index(&self) -> Option<u16> {
        let ours = self.pool.enis.values().filter_map(Eni::device_index);
        let foreign = self.foreign.values().filter_map(|eni| eni.device_index);
        let claimed = self.calls.values().filter_map(|inflight| {
            let Ec2Call::AttachEni { device_index, .. } = &inflight.call else { return None };
            Some(*device_index)
        });
        let mut taken = self.learnt.taken_indexes.clone();
        taken.extend(ours.chain(foreign).chain(claimed));
        (1..=LAST_DEVICE_INDEX).find(|index| !taken.contains(index))
    }

    /// ENIs that are on our network card, whoever's.
    pub(super) fn n_places_taken(&self) -> u16 {
        let ours = self.pool.enis.values().filter(|eni| eni.device_index().is_some()).count();
        u16::try_from(ours).unwrap_or(u16::MAX).saturating_add(self.n_foreign())
    }

    pub(super) fn n_foreign(&self) -> u16 {
        let here = self.foreign.values().filter(|eni| eni.device_index.is_some());
        u16::try_from(here.count()).unwrap_or(u16::MAX)
    }

    pub(super) fn insert_eni(
        &mut self,
        facts: &EniFacts,
        origin: Origin,
        stage: Stage,
        now: Timestamp,
    ) {
        let eni = Eni {
            id: facts.id.clone(),
            mac: facts.mac.clone(),
            subnet: facts.subnet.clone(),
            primary_address: facts.primary_address,
            origin,
            tags: facts.tags.clone(),
            since: now,
            changed_at: now,
            shrunk_at: now,
            absent_since: None,
            refused: None,
            stage,
            blocks: BTreeMap::new(),
            missed: BTreeSet::new(),
            by_hand: BTreeSet::new(),
        };
        self.pool.enis.insert(facts.id.clone(), eni);
        self.put_blocks(facts, &self.on_record_of(facts), now);
    }

    pub(super) fn stage_mut(&mut self, eni: &EniId) -> Option<&mut Stage> {
        self.pool.enis.get_mut(eni).map(|eni| &mut eni.stage)
    }

    pub(super) fn set_stage(&mut self, eni: &EniId, stage: Stage) {
        if let Some(current) = self.stage_mut(eni) {
            *current = stage;
        }
    }

    /// Gives up an unattached ENI, unless a pod's address is on it.
    pub(super) fn doom(&mut self, eni: &EniId, now: Timestamp) {
        if self.is_spare(eni, now) {
            self.set_stage(eni, Stage::Doomed { place: None });
        }
    }

    pub(super) fn is_spare(&self, eni: &EniId, now: Timestamp) -> bool {
        self.pool.enis.get(eni).is_some_and(|eni| {
            eni.stage == Stage::Unattached
                && eni.origin == Origin::Tagged
                && !eni.in_use(self.policy.cooldown, now)
        })
    }

    /// EC2 has deleted it.
    pub(super) fn eni_gone(&mut self, eni: &EniId) {
        self.retries.forget(eni);
        let Some(gone) = self.pool.enis.remove(eni) else { return };
        for address in gone.blocks.into_values().flat_map(|state| state.freed.into_keys()) {
            self.saves.note(Change::Rested { address });
        }
    }

    pub(super) fn eni_link(&mut self, eni: &EniId, state: LinkState, now: Timestamp) {
        let vanished =
            state == LinkState::Absent && self.pool.enis.get(eni).is_some_and(Eni::offers);
        if vanished {
            // Somebody may have detached it.
            let changed_at = self.pool.enis[eni].changed_at;
            self.enis_look.ask_from(now.max(changed_at + LAG));
        }
        if let Some(found) = self.pool.enis.get_mut(eni) {
            found.absent_since = match state {
                LinkState::Absent => found.absent_since.or(Some(now)),
                LinkState::Ready | LinkState::Failed(_) => None,
            };
            let why_absent = is_overdue(found, now).then(|| no_device(found));
            if let Stage::Attached { link, .. } = &mut found.stage {
                let times = match link {
                    Link::Failed { times, .. } => *times,
                    Link::Awaited | Link::Ready => 0,
                };
                *link = match (state, why_absent) {
                    (LinkState::Ready, _) => Link::Ready,
                    (LinkState::Absent, None) => Link::Awaited,
                    (LinkState::Absent, Some(why)) => Link::Failed { why, times: LINK_ATTEMPTS },
                    (LinkState::Failed(why), _) => {
                        Link::Failed { why, times: times.saturating_add(1) }
                    }
                };
            }
        }
        if self.unready().is_none() {
            self.retries.clear(&Subject::Host);
        } else if self.host_asked {
            let why = "the host's side of an ENI is not ready".to_owned();
            self.retries.fail(Subject::Host, HOST, RefusalCode::LinkFailing, why, now);
            self.host_asked = false;
        }
    }

    /// Gives an ENI back of which no device has come, if nobody has an address of it; what is still
    /// wanted is had from another. One in a while: on a sick host the next fares no better.
    pub(super) fn replace_absent(&mut self, now: Timestamp) {
        let waits = self.replaced_at.is_some_and(|at| now < at + BETWEEN_REPLACEMENTS);
        if waits || !self.enis_look.is_known() || self.record_hold(now).is_some() {
            return;
        }
        let hopeless = self.pool.enis.values().find(|eni| {
            is_overdue(eni, now)
                && self.is_removable(eni)
                && !eni.in_use(self.policy.cooldown, now)
                && !self.is_busy(&eni.id)
        });
        if let Some(eni) = hopeless.map(|eni| eni.id.clone()) {
            self.replaced_at = Some(now);
            self.drain(&eni, now);
        }
    }

    /// An attached ENI that the host cannot use yet.
    fn unready(&self) -> Option<&Eni> {
        self.pool
            .enis
            .values()
            .find(|eni| matches!(eni.stage, Stage::Attached { .. }) && !eni.offers())
    }

    /// Tells the host which ENIs there are: when that has changed, and again while one of them is
    /// not usable.
    pub(super) fn sync_host(&mut self, now: Timestamp) {
        let is_told = self.enis_look.is_known() && self.subnets_look.is_known();
        if !(is_told || self.recollection.is_used()) {
            return;
        }
        let wanted: Vec<_> = self.pool.enis.values().filter_map(|eni| self.host_eni(eni)).collect();
        let retry = self.unready().is_some()
            && !self.host_asked
            && self.retries.hold(&Subject::Host, now).is_none();
        if wanted != self.host || retry {
            self.host.clone_from(&wanted);
            self.host_asked = true;
            self.out.push(Effect::SyncHost(wanted));
        }
    }

    fn host_eni(&self, eni: &Eni) -> Option<HostEni> {
        let Stage::Attached { bond, .. } = &eni.stage else { return None };
        Some(HostEni {
            eni: eni.id.clone(),
            mac: eni.mac.clone(),
            device_index: bond.device_index,
            network_card: 0,
            primary_address: eni.primary_address,
            subnet_cidr: self.subnets.cidr(&eni.subnet)?,
        })
    }

    /// Why no call of `action` may be made at present, if none may.
    pub(super) fn action_hold(&self, action: Action, now: Timestamp) -> Option<Hold> {
        let held = self.retries.hold(&Subject::Action(action), now).cloned();
        held.or_else(|| self.buckets.hold(action, self.urgency(action), now))
    }

    /// How `action` has failed, if that has not been followed by a success.
    pub(super) fn action_failure(&self, action: Action, now: Timestamp) -> Option<Hold> {
        let failed = self.retries.failure(&Subject::Action(action)).cloned();
        failed.or_else(|| self.action_hold(action, now))
    }

    /// The actions whose buckets are empty.
    pub(super) fn throttled(&self, now: Timestamp) -> impl Iterator<Item = Hold> {
        self.buckets.holds(|action| self.urgency(action), now)
    }

    /// Whether pods wait for what a call of `action` brings, or will as soon as they come.
    fn urgency(&self, action: Action) -> Urgency {
        let pods_wait = match action {
            Action::DescribeEnis if !self.enis_look.is_known() => true,
            Action::DescribeSubnets if !self.subnets_look.is_known() => true,
            Action::DescribeEnis
            | Action::DescribeSubnets
            | Action::CreateEni
            | Action::AttachEni
            | Action::Assign
            | Action::AssignIpv6 => self.requests.n_waiting() > 0,
            Action::SetDeleteOnTermination
            | Action::Unassign
            | Action::UnassignIpv6
            | Action::DetachEni
            | Action::DeleteEni => false,
        };
        if pods_wait { Urgency::PodsWait } else { Urgency::Background }
    }
}

/// Whether its device should have come long ago.
fn is_overdue(eni: &Eni, now: Timestamp) -> bool {
    eni.absent_since.is_some_and(|since| since + LATEST_DEVICE <= now)
}

fn no_device(eni: &Eni) -> String {
    format!(
        "EC2 has attached it, but no device with its hardware address {} has appeared on the host \
         for {} s; it serves no pods, and is replaced if it has none. If that repeats, replace \
         the instance",
        eni.mac,
        LATEST_DEVICE.as_secs()
    )
}

/// When an ENI that is being detached may be deleted.
fn leaves_at(eni: &Eni) -> Option<Timestamp> {
    matches!(eni.stage, Stage::Doomed { place: Some(_) }).then(|| eni.changed_at + DETACHING)
}
