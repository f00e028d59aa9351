//! The next EC2 call of each ENI that comes or goes: attach, mark, detach, delete.

use std::time::Duration;

use super::calls::{Calls, Pressure};
use super::context::{Context, MayChange};
use super::inventory::Inventory;
use super::journal::Journal;
use super::learnt::Learnt;
use crate::call::Ec2Call;
use crate::eni::{Eni, Origin, Stage};
use crate::id::EniId;
use crate::place::Place;
use crate::pool::Pool;
use crate::reason::Reason;
use crate::time::Timestamp;

/// How long EC2 usually takes to detach an ENI. It refuses an earlier delete.
const DETACHING: Duration = Duration::from_secs(5);
/// EC2's highest device index, as other tools assume it.
const LAST_DEVICE_INDEX: u16 = 99;

/// The parts that the life of an ENI depends on.
pub(super) struct Lifecycle<'a> {
    pub(super) pool: &'a mut Pool,
    pub(super) calls: &'a mut Calls,
    pub(super) journal: &'a mut Journal,
    pub(super) inventory: &'a Inventory,
    pub(super) learnt: &'a Learnt,
    pub(super) pressure: Pressure,
    pub(super) may_change: MayChange,
    pub(super) cx: Context<'a>,
}

impl Lifecycle<'_> {
    /// Starts the next call of each ENI that needs one.
    pub(super) fn advance_all(&mut self) {
        let ids: Vec<_> = self.pool.enis.keys().cloned().collect();
        for id in ids {
            self.advance(&id);
        }
    }

    /// Gives an attached ENI back.
    pub(super) fn drain(&mut self, eni: &EniId, why: Reason) {
        if self.pool.leave_attached(eni, |attachment| Stage::Draining { attachment, why }) {
            self.advance(eni);
        }
    }

    fn advance(&mut self, id: &EniId) {
        let now = self.cx.now;
        if !self.inventory.is_known() || self.calls.is_busy(id) || self.journal.hold(now).is_some()
        {
            return;
        }
        let next = self.pool.enis.get(id);
        let next = next.filter(|eni| deletable_at(eni).is_none_or(|at| at <= now));
        let Some((call, why)) = next.and_then(|eni| self.next_call(eni)) else { return };
        if self.calls.hold_on(id, call.action(), now).is_none()
            && self.calls.hold(call.action(), self.pressure, now).is_none()
        {
            self.calls.start(call, why, self.may_change, self.journal, now);
        }
    }

    fn next_call(&self, eni: &Eni) -> Option<(Ec2Call, Reason)> {
        let id = eni.id.clone();
        match &eni.stage {
            Stage::Unattached => {
                let device_index = self.free_index()?;
                Some((Ec2Call::AttachEni { eni: id, device_index }, Reason::NewEni))
            }
            Stage::Attached { attachment, .. } => {
                let unmarked = eni.origin == Origin::Tagged && !attachment.delete_on_termination;
                let attachment = attachment.id.clone();
                let mark = Ec2Call::SetDeleteOnTermination { eni: id, attachment };
                unmarked.then_some((mark, Reason::NewEni))
            }
            Stage::Draining { attachment, why } => {
                let attachment = attachment.id.clone();
                Some((Ec2Call::DetachEni { eni: id, attachment }, why.clone()))
            }
            Stage::Deleting { why, .. } => Some((Ec2Call::DeleteEni { eni: id }, why.clone())),
        }
    }

    /// The lowest device index of our card that is free and that no call under way takes.
    fn free_index(&self) -> Option<u16> {
        let ours = self.pool.enis.values().filter_map(Eni::place);
        let foreign = self.inventory.foreign().values().filter_map(|eni| eni.place);
        let claimed = self.calls.in_flight().filter_map(|in_flight| {
            let Ec2Call::AttachEni { device_index, .. } = &in_flight.call else { return None };
            Some(Place::on_our_card(*device_index))
        });
        let mut taken = self.learnt.taken_places.clone();
        taken.extend(ours.chain(foreign).chain(claimed));
        (1..=LAST_DEVICE_INDEX).find(|index| !taken.contains(&Place::on_our_card(*index)))
    }
}

/// When the ENIs that are being detached may be deleted.
pub(super) fn next_deletes(pool: &Pool) -> impl Iterator<Item = Timestamp> {
    pool.enis.values().filter_map(deletable_at)
}

/// When an ENI that is being detached may be deleted; `None` for all others.
fn deletable_at(eni: &Eni) -> Option<Timestamp> {
    matches!(eni.stage, Stage::Deleting { place: Some(_), .. }).then(|| eni.changed_at + DETACHING)
}
