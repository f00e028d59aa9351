//! Brings the security groups of our ENIs into line with the primary ENI's.
//!
//! A pod has the security groups of its ENI. After a change of the primary ENI's groups, pods on our other ENIs
//! would keep the old rules for as long as these ENIs live. An ENI whose groups are out of date still serves:
//! its pods have these groups already, and a denied call must not leave pods without an address.

use std::collections::BTreeSet;

use super::calls::{Calls, Pressure};
use super::context::{Context, MayChange};
use super::inventory::Inventory;
use super::journal::Journal;
use crate::call::{Action, Ec2Call, GroupList};
use crate::eni::{Eni, Origin, Stage};
use crate::id::SecurityGroupId;
use crate::pool::Pool;
use crate::reason::Reason;

/// The parts that a change of groups depends on.
pub(super) struct Aligning<'a> {
    pub(super) pool: &'a Pool,
    pub(super) calls: &'a mut Calls,
    pub(super) journal: &'a mut Journal,
    pub(super) inventory: &'a mut Inventory,
    pub(super) pressure: Pressure,
    pub(super) may_change: MayChange,
    pub(super) cx: Context<'a>,
}

impl Aligning<'_> {
    /// Starts the next call, one at a time, since the primary ENIs of many nodes may change together. An ENI
    /// that is busy with a call for pods comes later.
    pub(super) fn start(&mut self) {
        let (now, action) = (self.cx.now, Action::SetSecurityGroups);
        let is_under_way =
            self.calls.in_flight().any(|in_flight| in_flight.call.action() == action);
        if is_under_way || self.calls.hold(action, self.pressure, now).is_some() {
            return;
        }
        let Some((call, why)) = self.next() else { return };
        if self.inventory.primary_is_sure(now) {
            self.calls.start(call, why, self.may_change, self.journal, now);
        }
    }

    fn next(&self) -> Option<(Ec2Call, Reason)> {
        let (now, action) = (self.cx.now, Action::SetSecurityGroups);
        let wanted = self.inventory.groups_to_follow(self.cx)?;
        let eni = differing(self.pool, wanted).find(|eni| {
            is_to_follow(eni)
                && !self.calls.is_busy(&eni.id)
                && self.calls.hold_on(&eni.id, action, now).is_none()
        })?;
        let (eni, has) = (eni.id.clone(), eni.security_groups.clone());
        let call = Ec2Call::SetSecurityGroups { eni, security_groups: wanted.clone() };
        Some((call, Reason::OtherGroups { has }))
    }
}

/// Whether the daemon changes the ENI's groups. Somebody else has chosen those of an untagged ENI, and an ENI on
/// its way back has no pods.
pub(super) fn is_to_follow(eni: &Eni) -> bool {
    match (eni.origin, &eni.stage) {
        (Origin::Tagged, Stage::Unattached | Stage::Attached { .. }) => true,
        (Origin::Tagged, Stage::Draining { .. } | Stage::Deleting { .. })
        | (Origin::Primary | Origin::Untagged, _) => false,
    }
}

/// The ENIs that EC2 describes with other groups than `wanted`, the primary ENI left out. Nothing is known of an
/// ENI that EC2 has not described since the start.
pub(super) fn differing<'a>(
    pool: &'a Pool,
    wanted: &'a BTreeSet<SecurityGroupId>,
) -> impl Iterator<Item = &'a Eni> {
    pool.enis.values().filter(move |eni| {
        eni.origin != Origin::Primary
            && !eni.security_groups.is_empty()
            && eni.security_groups != *wanted
    })
}

/// One phrase for each ENI that differs, for people.
pub(super) fn phrases(pool: &Pool, wanted: &BTreeSet<SecurityGroupId>) -> Vec<String> {
    let phrase = |eni: &Eni| {
        let then = if is_to_follow(eni) {
            "EC2 is asked to change that"
        } else {
            "they stay, since the ENI has no owner's tag; its pods get the others if somebody sets them there"
        };
        let (id, has) = (&eni.id, GroupList(&eni.security_groups));
        let wanted = GroupList(wanted);
        format!("{id}: its security groups are {has}, and the primary ENI's are {wanted}; {then}")
    };
    let serves = |eni: &&Eni| is_to_follow(eni) || eni.origin == Origin::Untagged;
    differing(pool, wanted).filter(serves).map(phrase).collect()
}
