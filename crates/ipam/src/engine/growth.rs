//! Asks the planner, starts what it says, and gives back what has been surplus for long enough.

use std::time::Duration;

use super::Engine;
use super::calls::{InFlight, Phase};
use crate::block::Block;
use crate::call::{Action, Ask, Ec2Call};
use crate::eni::{Eni, Link, Origin, Stage};
use crate::id::{EniId, SubnetId};
use crate::ownership;
use crate::plan::{
    EniSupply, Growth, NewEni, Situation, SubnetSupply, SupplyState, Surplus, Tally, plan,
};
use crate::policy::{Limits, Mode};
use crate::retry::Subject;
use crate::time::Timestamp;

/// After so many failures in a row the host's side of an ENI counts as broken.
const LINK_ATTEMPTS: u32 = 3;

/// How much has been surplus since when: as much as it was at its least in that time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ripening(Option<(Timestamp, usize)>);

impl Ripening {
    fn observe(&mut self, n: usize, now: Timestamp) {
        let (since, least) = self.0.unwrap_or((now, n));
        self.0 = (n > 0).then(|| (since, least.min(n)));
    }

    /// How much may go back now; that much is done with.
    fn take_ripe(&mut self, delay: Duration, now: Timestamp) -> usize {
        self.0.take_if(|(since, _)| *since + delay <= now).map_or(0, |(_, n)| n)
    }

    fn ripe_at(&self, delay: Duration) -> Option<Timestamp> {
        self.0.map(|(since, _)| since + delay)
    }
}

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

    pub(super) fn learnt_limits(&self) -> Limits {
        let enis = self.limits.enis.min(self.learnt.enis);
        Limits { enis, ..self.limits }
    }

    /// Starts the calls that the targets and the waiting pods want.
    pub(super) fn grow(&mut self, now: Timestamp) {
        if !self.enis_look.is_known() || self.record_hold(now).is_some() {
            return;
        }
        let situation = self.situation(now);
        self.plan = plan(&situation, &self.policy, &self.learnt_limits(), now);
        for growth in std::mem::take(&mut self.plan.growth) {
            let call = match growth {
                Growth::Assign { eni, ask } => Ec2Call::Assign { eni, ask },
                Growth::Create { subnet, ask } => self.create_call(subnet, ask, now),
            };
            self.start(call);
        }
        let surplus = std::mem::take(&mut self.plan.surplus);
        self.shrink(&surplus, now);
    }

    fn create_call(&self, subnet: SubnetId, ask: Ask, now: Timestamp) -> Ec2Call {
        let (instance, call) = (&self.node.instance, self.next_call);
        Ec2Call::CreateEni {
            subnet,
            security_groups: self.node.security_groups.clone(),
            ask,
            description: ownership::description(&self.node),
            tags: ownership::tags(&self.node, now),
            // The time tells a node that has lost its record from its earlier self.
            client_token: format!("{instance}-{call}-{}", now.as_millis()),
        }
    }

    fn shrink(&mut self, surplus: &Surplus, now: Timestamp) {
        let n_blocks = surplus.blocks.iter().map(|(_, ask)| usize::from(ask.count())).sum();
        self.surplus_enis.observe(surplus.enis.len(), now);
        self.surplus_blocks.observe(n_blocks, now);
        let delay = self.policy.shrink_delay;
        let n_enis = self.surplus_enis.take_ripe(delay, now);
        for eni in surplus.enis.iter().take(n_enis) {
            self.drain(eni, now);
        }
        let mut left = self.surplus_blocks.take_ripe(delay, now);
        for (eni, ask) in &surplus.blocks {
            let n = ask.count().min(u16::try_from(left).unwrap_or(u16::MAX));
            left -= usize::from(n);
            self.give_back(eni, ask.with_count(n), now);
        }
    }

    fn drain(&mut self, eni: &EniId, now: Timestamp) {
        if let Some(stage) = self.stage_mut(eni)
            && let Stage::Attached { bond, .. } = stage
        {
            *stage = Stage::Draining { bond: bond.clone() };
            self.advance(eni, now);
        }
    }

    fn give_back(&mut self, eni: &EniId, ask: Ask, now: Timestamp) {
        let subject = Subject::Eni(eni.clone(), Action::Unassign);
        if self.retries.hold(&subject, now).is_some()
            || self.action_hold(Action::Unassign, now).is_some()
        {
            return;
        }
        let Some(found) = self.pool.enis.get(eni) else { return };
        let blocks = found.idle_blocks(ask, self.policy.cooldown, now);
        if !blocks.is_empty() {
            self.set_leaving(eni, &blocks, true);
            self.start(Ec2Call::Unassign { eni: eni.clone(), blocks });
        }
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
                .subnets
                .for_new_enis(&self.node)
                .into_iter()
                .map(|subnet| self.subnet_supply(&subnet, now))
                .collect(),
            create_at_most: self.learnt.create_at_most,
            assign_hold: self.action_hold(Action::Assign, now).cloned(),
            create_hold: self.action_hold(Action::CreateEni, now).cloned(),
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
            state: supply_state(eni),
            removable_from: (eni.origin == Origin::Tagged).then(|| eni.since + age),
            busy: call.is_some(),
            pending: call.and_then(|call| {
                let Ec2Call::Assign { ask, .. } = call else { return None };
                Some(*ask)
            }),
            hold: self.retries.hold(&Subject::Eni(eni.id.clone(), Action::Assign), now).cloned(),
            limit: eni.refused.map_or(u16::MAX, |refused| refused.limit),
            at_once: eni.refused.map_or(u16::MAX, |refused| refused.at_once),
            tally: self.tally(eni, now),
        }
    }

    fn tally(&self, eni: &Eni, now: Timestamp) -> Tally {
        let cooldown = self.policy.cooldown;
        let mut tally = Tally::default();
        for (block, state) in eni.blocks.iter().filter(|(_, state)| !state.leaving) {
            let n_cooling = state.n_cooling(cooldown, now);
            let idle = u16::from(state.live.is_empty() && n_cooling == 0);
            if block.is_prefix() {
                tally.prefixes += 1;
                tally.idle_prefixes += idle;
            } else {
                tally.singles += 1;
                tally.idle_singles += idle;
            }
            tally.addresses += Block::size(*block);
            tally.live += state.live.len() as u64;
            tally.cooling += n_cooling as u64;
        }
        tally
    }

    pub(super) fn hope(&self, now: Timestamp) -> Hope {
        let n_waiting = self.requests.n_waiting();
        if !self.enis_look.is_known() {
            return self.hope_for_inventory(n_waiting);
        }
        let n_unserved = usize::try_from(self.plan.n_unserved).unwrap_or(usize::MAX);
        let obstacles = self.plan.blocked.iter().filter(|blocked| blocked.passing);
        Hope {
            n_served: n_waiting.saturating_sub(n_unserved),
            rest_ends: self.pool.rest_ends(now),
            passes_at: obstacles.filter_map(|blocked| blocked.until).min(),
        }
    }

    fn hope_for_inventory(&self, n_waiting: usize) -> Hope {
        let n_served = if self.enis_look.is_under_way() { n_waiting } else { 0 };
        Hope { n_served, rest_ends: Vec::new(), passes_at: self.enis_look.wakes_at() }
    }

    /// The next moment at which something follows from time alone.
    pub(super) fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        let delay = self.policy.shrink_delay;
        let repeats = self.calls.values().filter_map(|InFlight { phase, .. }| match phase {
            Phase::RepeatAt(at) => Some(*at),
            Phase::Intended | Phase::Made | Phase::MadeAgain | Phase::Doubtful(_) => None,
        });
        let holds = self.retries.holds(now).map(|(_, hold)| hold.until);
        [
            self.requests.next_deadline(),
            self.pool.rest_ends(now).first().copied(),
            self.plan.again_at,
            self.surplus_enis.ripe_at(delay),
            self.surplus_blocks.ripe_at(delay),
            self.enis_look.wakes_at(),
            self.subnets_look.wakes_at(),
        ]
        .into_iter()
        .flatten()
        .chain(repeats)
        .chain(holds)
        .filter(|at| *at > now)
        .min()
    }
}

fn supply_state(eni: &Eni) -> SupplyState {
    match &eni.stage {
        Stage::Unattached => SupplyState::Coming,
        Stage::Attached { link: Link::Failed { times, .. }, .. } if *times >= LINK_ATTEMPTS => {
            SupplyState::Broken
        }
        Stage::Attached { .. } => SupplyState::Attached,
        Stage::Draining { .. } => SupplyState::Leaving { holds_place: true },
        Stage::Doomed { place } => SupplyState::Leaving { holds_place: place.is_some() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_surplus_all_the_time_is_ripe() {
        let check = |observed: &[(u64, usize)], at: u64, ripe: usize| {
            let mut ripening = Ripening::default();
            for (second, n) in observed {
                ripening.observe(*n, Timestamp::from_millis(second * 1000));
            }
            let taken =
                ripening.take_ripe(Duration::from_secs(30), Timestamp::from_millis(at * 1000));
            assert_eq!(taken, ripe, "{observed:?} at {at}");
        };
        check(&[], 100, 0);
        check(&[(0, 5)], 29, 0);
        check(&[(0, 5)], 30, 5);
        check(&[(0, 5), (10, 2), (20, 9)], 30, 2);
        check(&[(0, 5), (10, 0), (20, 9)], 30, 0);
        check(&[(0, 5), (10, 0), (20, 9)], 50, 9);
    }
}
