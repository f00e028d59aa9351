//! Growth and shrinking of the pool: asks the planner and starts the calls of its plan.

mod hysteresis;

use std::time::Duration;

use self::hysteresis::Hysteresis;
use super::calls::{Calls, Pressure};
use super::context::Context;
use super::delegation;
use super::inventory::Inventory;
use super::journal::Journal;
use super::learnt::Learnt;
use super::lifecycle::Lifecycle;
use crate::block::{Block, BlockCount, Family};
use crate::call::{Action, Ec2Call};
use crate::eni::{Eni, Stage};
use crate::id::{EniId, SubnetId};
use crate::ownership;
use crate::plan::{
    EniSupply, Growth, NewEni, Plan, Situation, SubnetSupply, SupplyState, Surplus, Tally, plan,
};
use crate::policy::{Limits, Placement};
use crate::pool::Pool;
use crate::reason::Reason;
use crate::record::Record;
use crate::streak::Streak;
use crate::time::Timestamp;

/// How many times longer growth may wait while the next pod would find an address.
const TURNS_WHILE_NOT_DRY: u32 = 10;
/// A whole ENI costs five calls and ten seconds to come back, so it stays this many times longer than a block.
const ENIS_STAY_LONGER: u32 = 10;

/// The plan, and what decides when it is carried out.
#[derive(Debug, Clone)]
pub(super) struct Supply {
    pub(super) learnt: Learnt,
    plan: Plan,
    /// For how long the pool has wanted to grow.
    small: Streak,
    surplus_enis: Hysteresis,
    surplus_blocks: Hysteresis,
}

/// The parts from which a situation is made.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) pool: &'a Pool,
    pub(super) calls: &'a Calls,
    pub(super) inventory: &'a Inventory,
    pub(super) record: &'a Record,
    pub(super) n_waiting: usize,
    pub(super) pressure: Pressure,
    pub(super) cx: Context<'a>,
}

/// The parts that growth and shrinking change.
pub(super) struct Supplying<'a> {
    pub(super) supply: &'a mut Supply,
    pub(super) pool: &'a mut Pool,
    pub(super) calls: &'a mut Calls,
    pub(super) journal: &'a mut Journal,
    pub(super) inventory: &'a mut Inventory,
    pub(super) n_waiting: usize,
    pub(super) pressure: Pressure,
    pub(super) cx: Context<'a>,
}

impl Supply {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            learnt: Learnt::nothing(now),
            plan: Plan::default(),
            small: Streak::default(),
            surplus_enis: Hysteresis::default(),
            surplus_blocks: Hysteresis::default(),
        }
    }

    /// The plan, without the growth and the surplus that have been started.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
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
        let mut situation = self.situation(sources);
        situation.enis.retain(|supply| supply.id != *eni);
        let plan = self.plan_for(&situation, sources.cx);
        plan.growth.iter().any(|growth| matches!(growth, Growth::Create { .. }))
    }

    fn situation(&self, sources: Sources<'_>) -> Situation {
        let Sources { pool, calls, inventory, n_waiting, pressure, cx, .. } = sources;
        let mut enis: Vec<_> = pool.enis.values().collect();
        enis.sort_by_key(|eni| (eni.device_index().unwrap_or(u16::MAX), &eni.id));
        let (unusable, subnets): (Vec<_>, Vec<_>) = sources
            .subnets_for_new_enis()
            .into_iter()
            .partition(|subnet| inventory.lacks_range(subnet, sources.record));
        let lacks_all = subnets.is_empty() && !unusable.is_empty();
        let unknown_subnets =
            || calls.failure(Action::DescribeSubnets, pressure, cx.now).filter(|_| lacks_all);
        let creating = calls.in_flight().filter_map(|in_flight| {
            let Ec2Call::CreateEni { subnet, blocks, .. } = &in_flight.call else { return None };
            Some(NewEni { subnet: sources.subnet_supply(subnet), blocks: *blocks })
        });
        Situation {
            enis: enis.into_iter().map(|eni| sources.eni_supply(eni)).collect(),
            creating: creating.collect(),
            n_foreign: inventory.n_foreign(),
            n_waiting: u32::try_from(n_waiting).unwrap_or(u32::MAX),
            n_to_delegate: delegation::n_lacking(pool, cx),
            subnets: subnets.iter().map(|subnet| sources.subnet_supply(subnet)).collect(),
            create_at_most: self.learnt.create_at_most,
            assign_hold: calls.hold(cx.assign_action(), pressure, cx.now),
            create_hold: calls.hold(Action::CreateEni, pressure, cx.now).or_else(unknown_subnets),
        }
    }

    /// When the calls for the wanted growth leave.
    fn grows_at(&self, cx: Context<'_>) -> Option<Timestamp> {
        let turns = if self.plan.is_dry { 1 } else { TURNS_WHILE_NOT_DRY };
        self.small.since().map(|since| since + cx.policy.timing.grow_delay * turns)
    }

    /// When something follows from time alone.
    pub(super) fn wakes(&self, cx: Context<'_>) -> impl Iterator<Item = Timestamp> {
        let delay = cx.policy.timing.shrink_delay;
        let wakes = [
            self.plan.again_at,
            self.grows_at(cx),
            self.surplus_enis.ripe_at(delay * ENIS_STAY_LONGER),
            self.surplus_blocks.ripe_at(delay),
        ];
        wakes.into_iter().flatten()
    }
}

impl Supplying<'_> {
    /// Plans, starts what the targets and the waiting pods want, and gives back the surplus.
    pub(super) fn plan(&mut self) {
        let Self { supply, cx, .. } = self;
        let cx = *cx;
        let situation = supply.situation(Sources {
            pool: self.pool,
            calls: self.calls,
            inventory: self.inventory,
            record: self.journal.record(),
            n_waiting: self.n_waiting,
            pressure: self.pressure,
            cx,
        });
        supply.plan = supply.plan_for(&situation, cx);
        let mut growth = std::mem::take(&mut supply.plan.growth);
        supply.small.observe(!growth.is_empty(), cx.now);
        let is_create = |growth: &Growth| matches!(growth, Growth::Create { .. });
        if growth.iter().any(is_create)
            && self.inventory.refresh_for_create(self.calls, self.pressure, cx.now)
        {
            growth.retain(|growth| !is_create(growth));
        }
        if supply.grows_at(cx).is_some_and(|at| at <= cx.now) {
            growth.into_iter().for_each(|growth| self.start_growth(growth));
        }
        let surplus = std::mem::take(&mut self.supply.plan.surplus);
        self.shrink(&surplus);
    }

    fn start_growth(&mut self, growth: Growth) {
        let call = match growth {
            Growth::Assign { eni, blocks } => Some(Ec2Call::Assign { eni, blocks }),
            Growth::Create { subnet, blocks } => self.create_call(subnet, blocks),
        };
        // The call before may have taken the last token.
        let now = self.cx.now;
        if let Some(call) = call
            && self.calls.hold(call.action(), self.pressure, now).is_none()
        {
            let delay = self.cx.policy.timing.shrink_delay;
            self.supply.surplus_enis.miss(delay * ENIS_STAY_LONGER, now);
            self.supply.surplus_blocks.miss(delay, now);
            let plan = &self.supply.plan;
            let (free, wanted) = (plan.n_free, plan.n_wanted);
            let why = Reason::Short { free, wanted, waiting: self.n_waiting as u64 };
            self.calls.start(call, why, self.journal, now);
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
            blocks,
            description: ownership::description(node),
            tags: ownership::tags(node, now),
            // With the time, a node that has lost its record repeats no token.
            client_token: format!("{instance}-{call}-{}", now.as_millis()),
        })
    }

    /// Gives back the blocks and ENIs that have been surplus for long enough.
    fn shrink(&mut self, surplus: &Surplus) {
        let (now, delay) = (self.cx.now, self.cx.policy.timing.shrink_delay);
        let n_blocks = surplus.blocks.iter().map(|(_, blocks)| usize::from(blocks.n)).sum();
        self.supply.surplus_enis.observe(surplus.enis.len(), now);
        self.supply.surplus_blocks.observe(n_blocks, now);
        // An ENI that seems to be surplus may carry blocks that EC2 does not describe yet.
        if !self.inventory.enis_poll.is_certain() {
            return;
        }
        // While no ENI can be detached, a draining one would serve no pod.
        let may_leave = self.calls.hold(Action::DetachEni, self.pressure, now).is_none();
        let enis = &mut self.supply.surplus_enis;
        if may_leave {
            let (n_enis, lasted) = enis.take_ripe(delay * ENIS_STAY_LONGER, now);
            for eni in surplus.enis.iter().take(n_enis) {
                let why = self.surplus_reason(lasted);
                self.lifecycle().drain(eni, why);
            }
        }
        let (mut left, lasted) = self.supply.surplus_blocks.take_ripe(delay, now);
        for (eni, blocks) in &surplus.blocks {
            let n = blocks.n.min(u16::try_from(left).unwrap_or(u16::MAX));
            left -= usize::from(n);
            self.give_back(eni, blocks.with_n(n), lasted);
        }
    }

    fn surplus_reason(&self, lasted: Duration) -> Reason {
        let Plan { n_free: free, n_wanted: wanted, .. } = self.supply.plan;
        Reason::Surplus { free, wanted, lasted }
    }

    fn give_back(&mut self, eni: &EniId, count: BlockCount, lasted: Duration) {
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
            let why = self.surplus_reason(lasted);
            let call = Ec2Call::Unassign { eni: eni.clone(), blocks };
            self.calls.start(call, why, self.journal, now);
        }
    }

    fn lifecycle(&mut self) -> Lifecycle<'_> {
        Lifecycle {
            pool: self.pool,
            calls: self.calls,
            journal: self.journal,
            inventory: self.inventory,
            learnt: &self.supply.learnt,
            pressure: self.pressure,
            cx: self.cx,
        }
    }
}

impl Sources<'_> {
    /// The subnets for new ENIs, the preferred one first. None until EC2 has described the primary ENI.
    fn subnets_for_new_enis(self) -> Vec<SubnetId> {
        let Some(primary) = &self.inventory.primary_template else { return Vec::new() };
        match &self.cx.policy.placement {
            Placement::LikePrimary => {
                self.inventory.subnets.for_new_enis(&primary.subnet, self.cx.node)
            }
            Placement::Custom { subnets, .. } => subnets.clone(),
        }
    }

    fn subnet_supply(self, subnet: &SubnetId) -> SubnetSupply {
        let (subnets, now) = (&self.inventory.subnets, self.cx.now);
        SubnetSupply {
            id: subnet.clone(),
            addresses: subnets.addresses(subnet, now),
            prefixes: match self.cx.family().kind.family() {
                Family::V4 => subnets.prefixes(subnet, now),
                Family::V6 => subnets.ipv6_prefixes(subnet, now),
            },
            free: subnets.free(subnet),
            create_hold: self.calls.create_hold(subnet, now).cloned(),
        }
    }

    fn eni_supply(self, eni: &Eni) -> EniSupply {
        let call = self.calls.call_on(&eni.id);
        let age = self.cx.policy.timing.min_eni_age;
        let may_go = eni.is_removable(self.record)
            && self.calls.hold_on(&eni.id, Action::DetachEni, self.cx.now).is_none();
        EniSupply {
            id: eni.id.clone(),
            subnet: self.subnet_supply(&eni.subnet),
            state: self.state(eni),
            removable_from: may_go.then(|| eni.since + age),
            busy: call.is_some(),
            pending: call.and_then(|call| {
                let Ec2Call::Assign { blocks, .. } = call else { return None };
                Some(*blocks)
            }),
            hold: self.calls.hold_on(&eni.id, self.cx.assign_action(), self.cx.now).cloned(),
            limit: eni.refused.map_or(u16::MAX, |refused| refused.limit),
            at_once: eni.refused.map_or(u16::MAX, |refused| refused.at_once),
            tally: self.tally(eni),
        }
    }

    fn state(self, eni: &Eni) -> SupplyState {
        match &eni.stage {
            Stage::Unattached => SupplyState::Coming,
            Stage::Attached { link, .. } if link.is_broken() => SupplyState::Broken,
            Stage::Attached { .. } if self.inventory.lacks_range(&eni.subnet, self.record) => {
                SupplyState::Broken
            }
            Stage::Attached { .. } if self.inventory.subnet_cidr_of(eni, self.record).is_none() => {
                SupplyState::Coming
            }
            Stage::Attached { .. } if eni.excluded.is_some() => SupplyState::Excluded,
            Stage::Attached { .. } => SupplyState::Attached,
            Stage::Draining { .. } => SupplyState::Leaving { holds_place: true },
            Stage::Deleting { place, .. } => SupplyState::Leaving { holds_place: place.is_some() },
        }
    }

    fn tally(self, eni: &Eni) -> Tally {
        let rests = self.cx.rests();
        let mut tally = Tally::default();
        for (block, state) in eni.blocks.iter().filter(|(_, state)| state.stays()) {
            if state.delegated {
                tally.delegated += 1;
                continue;
            }
            let n_cooling = state.n_cooling(rests);
            let idle = u16::from(n_cooling == 0 && !state.has_pods());
            if block.is_prefix() {
                tally.prefixes += 1;
                tally.idle_prefixes += idle;
            } else {
                tally.singles += 1;
                tally.idle_singles += idle;
            }
            tally.addresses += Block::size(*block);
            tally.live += state.live.len() as u64;
            // Quarantined addresses count as resting, since new pods cannot have them either.
            tally.cooling += (n_cooling + state.withheld().count()) as u64;
        }
        tally
    }
}
