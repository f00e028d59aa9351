//! Asks the planner and starts what it says.

use super::Engine;
use super::calls::{InFlight, Phase};
use crate::block::Block;
use crate::call::{Action, Ask, Ec2Call};
use crate::eni::{Eni, Link, Origin, Stage};
use crate::id::{EniId, SubnetId};
use crate::ownership;
use crate::plan::{EniSupply, Growth, NewEni, Situation, SubnetSupply, SupplyState, Tally, plan};
use crate::policy::{Limits, Mode};
use crate::retry::Subject;
use crate::time::Timestamp;

/// How many times longer growth may wait while the next pod would find an address.
const TURNS_WHILE_NOT_DRY: u32 = 10;
/// After so many failures in a row the host's side of an ENI counts as broken.
pub(super) const LINK_ATTEMPTS: u32 = 3;

/// Which waiting pods may hope for an address.
#[derive(Debug, Clone)]
pub(super) struct Hope {
    /// That many of the first: their addresses are under way.
    n_served: usize,
    /// When further addresses will have rested.
    rest_ends: Vec<Timestamp>,
    /// When an obstacle goes by.
    passes_at: Option<Timestamp>,
}

impl Hope {
    /// Whether the address for the `place`th of those who wait is under way.
    pub(super) fn is_served(&self, place: usize) -> bool {
        place < self.n_served
    }

    pub(super) fn for_place(&self, place: usize, patience: Timestamp) -> bool {
        let rested = place.checked_sub(self.n_served).and_then(|n| self.rest_ends.get(n));
        self.is_served(place)
            || rested.is_some_and(|at| *at <= patience)
            || self.passes_at.is_some_and(|at| at <= patience)
    }
}

impl Engine {
    pub(super) fn mode(&self) -> Mode {
        self.limits.mode(self.policy.mode)
    }

    /// What brings more addresses to an ENI.
    pub(super) fn assign_action(&self) -> Action {
        self.mode().ask(1).assign_action()
    }

    pub(super) fn learnt_limits(&self) -> Limits {
        let enis = self.limits.enis.min(self.learnt.enis);
        Limits { enis, ..self.limits }
    }

    /// Plans, starts what the targets and the waiting pods want, and gives back what they do not.
    pub(super) fn grow(&mut self, now: Timestamp) {
        if !self.enis_look.is_known() || self.record_hold(now).is_some() {
            return;
        }
        let situation = self.situation(now);
        self.plan = plan(&situation, &self.policy, &self.learnt_limits(), now);
        let growth = std::mem::take(&mut self.plan.growth);
        if self.is_time_to_grow(!growth.is_empty(), now) {
            growth.into_iter().for_each(|growth| self.start_growth(growth, now));
        }
        let surplus = std::mem::take(&mut self.plan.surplus);
        self.shrink(&surplus, now);
    }

    /// Whether the pool has been too small for long enough.
    fn is_time_to_grow(&mut self, is_small: bool, now: Timestamp) -> bool {
        self.small_since = is_small.then(|| self.small_since.unwrap_or(now));
        self.grows_at().is_some_and(|at| at <= now)
    }

    /// When what is wanted will be asked for.
    fn grows_at(&self) -> Option<Timestamp> {
        let turns = if self.plan.is_dry { 1 } else { TURNS_WHILE_NOT_DRY };
        self.small_since.map(|since| since + self.policy.grow_delay * turns)
    }

    fn start_growth(&mut self, growth: Growth, now: Timestamp) {
        let call = match growth {
            Growth::Assign { eni, ask } => Some(Ec2Call::Assign { eni, ask }),
            Growth::Create { subnet, ask } => self.create_call(subnet, ask, now),
        };
        // The call before may have taken the last token.
        if let Some(call) = call
            && self.action_hold(call.action(), now).is_none()
        {
            self.surplus_enis.miss(now);
            self.surplus_blocks.miss(now);
            self.start(call, now);
        }
    }

    /// `None` as long as nobody knows which groups it needs: with none given EC2 takes the VPC's default.
    fn create_call(&self, subnet: SubnetId, ask: Ask, now: Timestamp) -> Option<Ec2Call> {
        let home = self.home.as_ref()?;
        let (instance, call) = (&self.node.instance, self.next_call);
        Some(Ec2Call::CreateEni {
            subnet,
            security_groups: home.security_groups.clone(),
            ask,
            description: ownership::description(&self.node),
            tags: ownership::tags(&self.node, now),
            // The time tells a node that has lost its record from its earlier self.
            client_token: format!("{instance}-{call}-{}", now.as_millis()),
        })
    }

    /// Whether another ENI would be made if `eni` were not there.
    pub(super) fn would_create_without(&self, eni: &EniId, now: Timestamp) -> bool {
        let mut situation = self.situation(now);
        situation.enis.retain(|supply| supply.id != *eni);
        let plan = plan(&situation, &self.policy, &self.learnt_limits(), now);
        plan.growth.iter().any(|growth| matches!(growth, Growth::Create { .. }))
    }

    fn situation(&self, now: Timestamp) -> Situation {
        let mut enis: Vec<_> = self.pool.enis.values().collect();
        enis.sort_by_key(|eni| (eni.device_index().unwrap_or(u16::MAX), &eni.id));
        let creating = self.calls.values().filter_map(|inflight| {
            let Ec2Call::CreateEni { subnet, ask, .. } = &inflight.call else { return None };
            Some(NewEni { subnet: self.subnet_supply(subnet, now), ask: *ask })
        });
        Situation {
            enis: enis.into_iter().map(|eni| self.supply(eni, now)).collect(),
            creating: creating.collect(),
            n_foreign: self.n_foreign(),
            n_waiting: u32::try_from(self.requests.n_waiting()).unwrap_or(u32::MAX),
            subnets: self
                .home
                .iter()
                .flat_map(|home| self.subnets.for_new_enis(&home.subnet, &self.node))
                .map(|subnet| self.subnet_supply(&subnet, now))
                .collect(),
            create_at_most: self.learnt.create_at_most,
            assign_hold: self.action_hold(self.assign_action(), now),
            create_hold: self.action_hold(Action::CreateEni, now),
        }
    }

    fn subnet_supply(&self, subnet: &SubnetId, now: Timestamp) -> SubnetSupply {
        SubnetSupply {
            id: subnet.clone(),
            addresses: self.subnets.addresses(subnet, now),
            prefixes: match self.mode() {
                Mode::SecondaryIp | Mode::Prefix => self.subnets.prefixes(subnet, now),
                Mode::Ipv6 => self.subnets.ipv6_prefixes(subnet, now),
            },
        }
    }

    fn supply(&self, eni: &Eni, now: Timestamp) -> EniSupply {
        let call = self.call_on(&eni.id);
        let age = self.policy.min_eni_age;
        EniSupply {
            id: eni.id.clone(),
            subnet: self.subnet_supply(&eni.subnet, now),
            state: self.supply_state(eni),
            removable_from: self.is_removable(eni).then(|| eni.since + age),
            busy: call.is_some(),
            pending: call.and_then(|call| {
                let Ec2Call::Assign { ask, .. } = call else { return None };
                Some(*ask)
            }),
            hold: self
                .retries
                .hold(&Subject::Eni(eni.id.clone(), self.assign_action()), now)
                .cloned(),
            limit: eni.refused.map_or(u16::MAX, |refused| refused.limit),
            at_once: eni.refused.map_or(u16::MAX, |refused| refused.at_once),
            tally: self.tally(eni, now),
        }
    }

    fn supply_state(&self, eni: &Eni) -> SupplyState {
        match &eni.stage {
            Stage::Unattached => SupplyState::Coming,
            Stage::Attached { link: Link::Failed { times, .. }, .. } if *times >= LINK_ATTEMPTS => {
                SupplyState::Broken
            }
            Stage::Attached { .. } if self.subnet_cidr_of(eni).is_none() => SupplyState::Coming,
            Stage::Attached { .. } => SupplyState::Attached,
            Stage::Draining { .. } => SupplyState::Leaving { holds_place: true },
            Stage::Doomed { place } => SupplyState::Leaving { holds_place: place.is_some() },
        }
    }

    /// Not as long as a pod is on record with it, be it with an address that is not counted: one of
    /// the family that was in force when the pod came.
    pub(super) fn is_removable(&self, eni: &Eni) -> bool {
        let mut held = self.record.assignments().values();
        let is_ours = eni.origin == Origin::Tagged && eni.by_hand.is_empty();
        is_ours && !held.any(|held| held.eni == eni.id)
    }

    fn tally(&self, eni: &Eni, now: Timestamp) -> Tally {
        let cooldown = self.policy.cooldown;
        let mut tally = Tally::default();
        for (block, state) in eni.blocks.iter().filter(|(_, state)| !state.leaving) {
            let n_cooling = state.n_cooling(cooldown, now);
            let idle = u16::from(state.is_idle(cooldown, now));
            if block.is_prefix() {
                tally.prefixes += 1;
                tally.idle_prefixes += idle;
            } else {
                tally.singles += 1;
                tally.idle_singles += idle;
            }
            tally.addresses += Block::size(*block);
            tally.live += state.live.len() as u64;
            // Of no use for new pods either.
            tally.cooling += (n_cooling + state.withheld().count()) as u64;
        }
        tally
    }

    pub(super) fn hope(&self, now: Timestamp) -> Hope {
        let n_waiting = self.requests.n_waiting();
        if !self.enis_look.is_known() {
            return self.hope_for_inventory(n_waiting, now);
        }
        let n_unserved = usize::try_from(self.plan.n_unserved).unwrap_or(usize::MAX);
        Hope {
            n_served: n_waiting.saturating_sub(n_unserved),
            rest_ends: self.pool.rest_ends(now),
            passes_at: self.plan.blocked.iter().filter_map(|blocked| blocked.passes_at).min(),
        }
    }

    fn hope_for_inventory(&self, n_waiting: usize, now: Timestamp) -> Hope {
        let linking = self.recollection.is_used() && self.host_asked;
        let n_served = if self.enis_look.is_under_way() || linking { n_waiting } else { 0 };
        let passes_at = match self.action_hold(Action::DescribeEnis, now) {
            Some(hold) => hold.passes_at(),
            None => self.enis_look.wakes_at(),
        };
        Hope { n_served, rest_ends: Vec::new(), passes_at }
    }

    /// The next moment at which something follows from time alone.
    pub(super) fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        let repeats = self.calls.values().filter_map(|InFlight { phase, .. }| match phase {
            Phase::RepeatAt(at) => Some(*at),
            Phase::Intended | Phase::Made | Phase::MadeAgain | Phase::Doubtful(_) => None,
        });
        let holds = self.retries.holds(now).map(|(_, hold)| hold.until);
        [
            self.requests.next_deadline(),
            self.pool.rest_ends(now).first().copied(),
            self.plan.again_at,
            self.grows_at(),
            self.surplus_enis.ripe_at(),
            self.surplus_blocks.ripe_at(),
            self.recollection.due(),
            self.enis_look.wakes_at(),
            self.subnets_look.wakes_at(),
            self.leaks_look.wakes_at(),
        ]
        .into_iter()
        .flatten()
        .chain(repeats)
        .chain(self.next_deletes())
        .chain(holds)
        .chain(self.throttled(now).map(|hold| hold.until))
        .filter(|at| *at > now)
        .min()
    }
}
