//! Growth and shrinking of the pool: asks the planner and starts the calls of its plan.

mod hysteresis;
mod situation;

use std::time::Duration;

use self::hysteresis::Hysteresis;
pub(super) use self::situation::{Demanded, Sources};
use super::calls::{Calls, Pressure};
use super::context::{Context, MayChange};
use super::inventory::Inventory;
use super::journal::Journal;
use super::learnt::Learnt;
use super::lifecycle::Lifecycle;
use crate::block::{BlockCount, Family};
use crate::call::{Action, Ec2Call};
use crate::event::RefusalCode;
use crate::id::{EniId, SubnetId};
use crate::ownership;
use crate::plan::{Blocked, Growth, Plan, Situation, Surplus, plan};
use crate::policy::{FamilyPolicy, Limits, Needs};
use crate::pool::Pool;
use crate::reason::Reason;
use crate::streak::Streak;
use crate::time::Timestamp;

/// How many times longer growth may wait while the next pod would find an address.
const TURNS_WHILE_NOT_DRY: u32 = 10;
/// A whole ENI costs five calls and ten seconds to come back, so it stays this many times longer than a block.
const ENIS_STAY_LONGER: u32 = 10;

/// The plan for each family, and what EC2's refusals have taught.
#[derive(Debug, Clone)]
pub(super) struct Supply {
    pub(super) learnt: Learnt,
    v4: FamilySupply,
    v6: FamilySupply,
}

/// The plan for one family, and what decides when it is carried out. Empty if pods do not have that family.
#[derive(Debug, Clone, Default)]
struct FamilySupply {
    plan: Plan,
    /// For how long the pool has wanted to grow.
    small: Streak,
    surplus_enis: Hysteresis,
    surplus_blocks: Hysteresis,
}

/// The parts that growth and shrinking change.
pub(super) struct Supplying<'a> {
    pub(super) supply: &'a mut Supply,
    pub(super) pool: &'a mut Pool,
    pub(super) calls: &'a mut Calls,
    pub(super) journal: &'a mut Journal,
    pub(super) inventory: &'a mut Inventory,
    pub(super) demanded: Demanded,
    pub(super) pressure: Pressure,
    pub(super) cx: Context<'a>,
}

impl Supply {
    pub(super) fn new(now: Timestamp) -> Self {
        let (v4, v6) = (FamilySupply::default(), FamilySupply::default());
        Self { learnt: Learnt::nothing(now), v4, v6 }
    }

    /// The plan for `family`, without the growth and the surplus that have been started.
    pub(super) fn plan(&self, family: Family) -> &Plan {
        match family {
            Family::V4 => &self.v4.plan,
            Family::V6 => &self.v6.plan,
        }
    }

    /// The obstacles of all families, the most important first.
    pub(super) fn blocked(&self) -> impl Iterator<Item = &Blocked> {
        self.v4.plan.blocked.iter().chain(&self.v6.plan.blocked)
    }

    fn of(&mut self, family: Family) -> &mut FamilySupply {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// The limits of the instance, lowered by the learnt ones.
    pub(super) fn limits(&self, limits: Limits) -> Limits {
        Limits { enis: limits.enis.min(self.learnt.enis), ..limits }
    }

    fn plan_for(&self, situation: &Situation, cx: Context<'_>) -> Plan {
        plan(situation, cx.policy, &self.limits(cx.limits), cx.now)
    }

    /// Whether the plan would create another ENI without `eni`.
    pub(super) fn would_create_without(&self, eni: &EniId, sources: Sources<'_>) -> bool {
        let mut situation = sources.situation(&self.learnt);
        situation.enis.retain(|supply| supply.id != *eni);
        let plan = self.plan_for(&situation, sources.cx);
        plan.growth.iter().any(|growth| matches!(growth, Growth::Create { .. }))
    }

    /// When something follows from time alone.
    pub(super) fn wakes(&self, cx: Context<'_>) -> impl Iterator<Item = Timestamp> {
        [&self.v4, &self.v6].into_iter().flat_map(move |supply| supply.wakes(cx))
    }
}

impl FamilySupply {
    /// When the calls for the wanted growth leave.
    fn grows_at(&self, cx: Context<'_>) -> Option<Timestamp> {
        let turns = if self.plan.is_dry { 1 } else { TURNS_WHILE_NOT_DRY };
        self.small.since().map(|since| since + cx.policy.timing.grow_delay * turns)
    }

    fn wakes(&self, cx: Context<'_>) -> impl Iterator<Item = Timestamp> + use<> {
        let delay = cx.policy.timing.shrink_delay;
        let wakes = [
            self.plan.again_at,
            self.grows_at(cx),
            self.surplus_enis.ripe_at(delay * ENIS_STAY_LONGER),
            self.surplus_blocks.ripe_at(delay),
        ];
        wakes.into_iter().flatten()
    }

    /// Growth is wanted, so what was given back before went too soon.
    fn miss(&mut self, cx: Context<'_>) {
        let delay = cx.policy.timing.shrink_delay;
        self.surplus_enis.miss(delay * ENIS_STAY_LONGER, cx.now);
        self.surplus_blocks.miss(delay, cx.now);
    }

    fn surplus_reason(&self, lasted: Duration) -> Reason {
        let Plan { n_free: free, n_wanted: wanted, .. } = self.plan;
        Reason::Surplus { free, wanted, lasted }
    }
}

impl Supplying<'_> {
    /// Plans each family, starts what the targets and the waiting pods want, and gives back the surplus, as far as the policy
    /// allows. IPv6 comes first: it needs one call on the primary ENI, and IPv4 may need many there, one after the other.
    pub(super) fn plan(&mut self) {
        for family in [Family::V6, Family::V4] {
            match self.cx.families().of(family) {
                Some(policy) => self.plan_family(policy),
                None => *self.supply.of(family) = FamilySupply::default(),
            }
        }
    }

    fn plan_family(&mut self, policy: FamilyPolicy) {
        let (cx, family) = (self.cx, policy.kind.family());
        let sources = Sources {
            pool: self.pool,
            calls: self.calls,
            inventory: self.inventory,
            record: self.journal.record(),
            demanded: Demanded { n_waiting: self.n_that_wait_for(family), ..self.demanded },
            pressure: self.pressure,
            family: policy,
            cx,
        };
        let situation = sources.situation(&self.supply.learnt);
        let plan = self.supply.plan_for(&situation, cx);
        let supply = self.supply.of(family);
        supply.plan = plan;
        let mut growth = std::mem::take(&mut supply.plan.growth);
        supply.small.observe(!growth.is_empty(), cx.now);
        let is_create = |growth: &Growth| matches!(growth, Growth::Create { .. });
        if growth.iter().any(is_create)
            && self.inventory.refresh_for_create(self.calls, self.pressure, cx.now)
        {
            growth.retain(|growth| !is_create(growth));
        }
        let is_off = |blocked: &Blocked| blocked.code == RefusalCode::ProvisioningOff;
        let is_short = supply.plan.blocked.iter().any(is_off);
        let grows = supply.grows_at(cx).is_some_and(|at| at <= cx.now);
        let surplus = std::mem::take(&mut supply.plan.surplus);
        match cx.may_change() {
            Some(may_change) => {
                if grows {
                    growth.into_iter().for_each(|it| self.start_growth(family, it, may_change));
                }
                self.shrink(family, &surplus, may_change);
            }
            None if is_short => self.inventory.look_for_more(self.calls, self.pressure, cx.now),
            None => {}
        }
    }

    /// Pods that need both families and get no IPv6 address would only hold IPv4 addresses in vain.
    fn n_that_wait_for(&self, family: Family) -> usize {
        let in_vain = match (family, self.cx.policy.families.needs()) {
            (Family::V4, Needs::Each) => self.supply.v6.plan.n_unserved,
            (Family::V4, Needs::Any) | (Family::V6, _) => 0,
        };
        self.demanded.n_waiting.saturating_sub(usize::try_from(in_vain).unwrap_or(usize::MAX))
    }

    fn start_growth(&mut self, family: Family, growth: Growth, may_change: MayChange) {
        let now = self.cx.now;
        let call = match growth {
            Growth::Assign { eni, blocks } => {
                self.inventory.refresh_for_assign(self.calls, self.pressure, now);
                Some(Ec2Call::Assign { eni, blocks })
            }
            Growth::Create { subnet, blocks } => self.create_call(subnet, blocks),
        };
        // The call before may have taken the last token.
        if let Some(call) = call
            && self.calls.hold(call.action(), self.pressure, now).is_none()
        {
            let supply = self.supply.of(family);
            supply.miss(self.cx);
            let (free, wanted) = (supply.plan.n_free, supply.plan.n_wanted);
            let Demanded { n_waiting, n_expected, .. } = self.demanded;
            let (waiting, expected) = (n_waiting as u64, n_expected as u64);
            let why = Reason::Short { free, wanted, waiting, expected };
            self.calls.start(call, why, may_change, self.journal, now);
        }
    }

    /// `None` until EC2 has described the primary ENI.
    fn create_call(&self, subnet: SubnetId, blocks: BlockCount) -> Option<Ec2Call> {
        let security_groups = self.inventory.groups_of_new(self.cx)?.clone();
        let (node, now) = (self.cx.node, self.cx.now);
        let (instance, call) = (&node.instance, self.calls.next_id().0);
        Some(Ec2Call::CreateEni {
            subnet,
            security_groups,
            connection_tracking: self.inventory.tracking_of_new(self.cx)?,
            blocks,
            description: ownership::description(node),
            tags: ownership::tags(node, now),
            // With the time, a node that has lost its record repeats no token.
            client_token: format!("{instance}-{call}-{}", now.as_millis()),
        })
    }

    /// Gives back the blocks and ENIs that have been surplus for long enough.
    fn shrink(&mut self, family: Family, surplus: &Surplus, may_change: MayChange) {
        let (now, delay) = (self.cx.now, self.cx.policy.timing.shrink_delay);
        let n_blocks = surplus.blocks.iter().map(|(_, blocks)| usize::from(blocks.n)).sum();
        let supply = self.supply.of(family);
        supply.surplus_enis.observe(surplus.enis.len(), now);
        supply.surplus_blocks.observe(n_blocks, now);
        // An ENI that seems to be surplus may carry blocks that EC2 does not describe yet.
        if !self.inventory.enis_poll.is_certain() {
            return;
        }
        // While no ENI can be detached, a draining one would serve no pod.
        let may_leave = self.calls.hold(Action::DetachEni, self.pressure, now).is_none();
        if may_leave {
            let (n_enis, lasted) = supply.surplus_enis.take_ripe(delay * ENIS_STAY_LONGER, now);
            let why = supply.surplus_reason(lasted);
            for eni in surplus.enis.iter().take(n_enis) {
                self.lifecycle(may_change).drain(eni, why.clone());
            }
        }
        let supply = self.supply.of(family);
        let (mut left, lasted) = supply.surplus_blocks.take_ripe(delay, now);
        let why = supply.surplus_reason(lasted);
        for (eni, blocks) in &surplus.blocks {
            let n = blocks.n.min(u16::try_from(left).unwrap_or(u16::MAX));
            left -= usize::from(n);
            self.give_back(eni, blocks.with_n(n), &why, may_change);
        }
    }

    fn give_back(&mut self, eni: &EniId, count: BlockCount, why: &Reason, may_change: MayChange) {
        let (action, now) = (count.kind.unassign_action(), self.cx.now);
        // A surplus of both kinds on one ENI takes two calls, one after the other.
        if self.calls.is_busy(eni)
            || self.calls.hold_on(eni, action, now).is_some()
            || self.calls.hold(action, self.pressure, now).is_some()
        {
            return;
        }
        let Some(found) = self.pool.enis.get(eni) else { return };
        let blocks = found.idle_blocks(count, self.cx.rests());
        if !blocks.is_empty() {
            self.pool.set_leaving(eni, &blocks, true);
            let call = Ec2Call::Unassign { eni: eni.clone(), blocks };
            self.calls.start(call, why.clone(), may_change, self.journal, now);
        }
    }

    fn lifecycle(&mut self, may_change: MayChange) -> Lifecycle<'_> {
        Lifecycle {
            pool: self.pool,
            calls: self.calls,
            journal: self.journal,
            inventory: self.inventory,
            learnt: &self.supply.learnt,
            pressure: self.pressure,
            may_change,
            cx: self.cx,
        }
    }
}
