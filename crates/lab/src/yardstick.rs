//! What a pool costs if the future is known: the measure for every strategy.
//!
//! The cost of a node is the time for which it holds addresses that no pod has, plus a price for
//! each call that changes something at EC2. The price of a call is given in address-seconds. There
//! is no right price, so the cost is computed for several ones ([`CALL_PRICES_S`]). Together they
//! show how calls can be exchanged for idle addresses.
//!
//! The clairvoyant knows all pods of the node, calls before they come, and meets EC2's shortest
//! latencies. It keeps to blocks, limits of ENIs and cooldown, and to the targets if it is asked to.
//! Nodes are independent of each other, so the cost of a cluster is the sum.

mod cheapest;
mod need;

use std::time::Duration;

use ec2_model::config::Latency;
use serde::Serialize;

use self::cheapest::{Leads, Step, Task, cheapest};
use self::need::{Floor, need};
use crate::load::NodeLoad;
use crate::run::Setup;
use crate::score::share;
use crate::trace::TraceAction;

/// The prices of a call for which costs are computed, in address-seconds.
pub const CALL_PRICES_S: [u64; 5] = [1, 10, 100, 1_000, 10_000];

/// What is asked of the clairvoyant.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// How long a pod may wait for its address, in milliseconds.
    pub wait_ms: u64,
    /// Whether nodes at rest hold what the targets say.
    pub targets: bool,
    /// Whether an address stays with its node while it rests.
    pub rests: bool,
    /// Whether nodes begin with what they held, and not with what the targets say.
    pub begins_as_it_was: bool,
    /// Whether EC2 gives whole blocks only. Where a subnet may run short of prefixes, single
    /// addresses serve too.
    whole_blocks: bool,
    leads: Leads,
}

/// The least cost at one price of a call.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Optimum {
    /// The price of a call, in address-seconds.
    pub call_price_s: u64,
    /// Time for which addresses are held and no pod has them, in address-seconds.
    pub idle_s: f64,
    /// Calls that change something.
    pub calls: u64,
    /// Whether a sequence with this cost exists for each node. Otherwise no sequence is cheaper.
    pub exact: bool,
}

impl Question {
    /// The cheapest way to serve every pod at its arrival, with or without the policy's targets.
    #[must_use]
    pub fn new(setup: &Setup, targets: bool) -> Self {
        let Latency { assign, create, attach, .. } = &setup.vpc.latency;
        let leads = Leads {
            assign: millis(assign.shortest()),
            create: millis(create.shortest() + attach.shortest()).max(millis(assign.shortest())),
        };
        let is_free = setup.vpc.subnets.iter().all(|subnet| subnet.used.is_empty());
        let is_occupied =
            setup.trace.iter().any(|step| matches!(step.action, TraceAction::Occupy { .. }));
        let whole_blocks = is_free && !is_occupied;
        Self { wait_ms: 0, targets, rests: true, begins_as_it_was: false, whole_blocks, leads }
    }

    fn cooldown(&self, load: &NodeLoad) -> u64 {
        if self.rests { millis(load.policy.timing.cooldown) } else { 0 }
    }

    /// The least cost at each price in [`CALL_PRICES_S`].
    #[must_use]
    pub fn answer(&self, loads: &[NodeLoad]) -> Vec<Optimum> {
        let tasks: Vec<_> = loads.iter().map(|load| self.task(load)).collect();
        CALL_PRICES_S.into_iter().map(|price| sum(&tasks, price)).collect()
    }

    fn task(&self, load: &NodeLoad) -> NodeTask {
        let family = load.limits.families(&load.policy).policy();
        let max_enis = u64::from(load.limits.enis_allowed(&load.policy)).max(1);
        let blocks_per_eni = u64::from(load.limits.blocks_per_eni()).max(1);
        let eni_size = blocks_per_eni * family.kind.size();
        let (block_size, per_eni) = match self.whole_blocks {
            true => (family.kind.size(), blocks_per_eni),
            false => (1, eni_size),
        };
        let capacity = max_enis * eni_size;
        let floor = Floor::new(family, eni_size, load.policy.max_pods, capacity);
        let need = need(load, Some(floor).filter(|_| self.targets), capacity, self);
        let at_rest = if load.joined { 0 } else { floor.of(0) };
        let (blocks, enis) = match self.begins_as_it_was {
            true => (load.held.addresses.div_ceil(block_size), load.held.enis),
            false => (at_rest.div_ceil(block_size), 1),
        };
        let enis = enis.max(blocks.div_ceil(per_eni));
        let steps = need.steps.into_iter();
        let steps = steps.map(|(at, n)| Step { at, blocks: n.div_ceil(block_size) }).collect();
        let from = load.from.as_millis();
        // Where others hold addresses, a subnet may lack what the clairvoyant would take. Of several
        // ENIs at the start it is unknown which one has room.
        let is_known = self.whole_blocks && enis == 1;
        let is_certain = is_known && !need.is_cut && self.wait_ms == 0;
        let opens = load.joined.then_some(from);
        let end = load.until.as_millis();
        let (leads, max_enis) = (self.leads, max_enis.max(enis));
        let task = Task { block_size, per_eni, max_enis, enis, blocks, steps, end, opens, leads };
        NodeTask { task, pods_ms: pods_ms(load), is_certain }
    }
}

/// The question for one node.
struct NodeTask {
    task: Task,
    /// The time of all pods with their addresses.
    pods_ms: u64,
    /// Whether the need is what pods and targets really ask for.
    is_certain: bool,
}

fn sum(tasks: &[NodeTask], call_price_s: u64) -> Optimum {
    let (mut idle_ms, mut calls, mut exact) = (0, 0, true);
    for NodeTask { task, pods_ms, is_certain } in tasks {
        let found = cheapest(task, call_price_s * 1000);
        idle_ms += found.held.saturating_sub(*pods_ms);
        calls += found.calls;
        exact &= found.is_exact && *is_certain;
    }
    Optimum { call_price_s, idle_s: share(idle_ms, 1000), calls, exact }
}

impl Optimum {
    /// The cost in address-seconds, calls included.
    #[must_use]
    pub fn cost_s(&self) -> f64 {
        cost_s(self.idle_s, self.calls, self.call_price_s)
    }
}

/// The cost of idle address-seconds and calls, in address-seconds.
pub(crate) fn cost_s(idle_s: f64, calls: u64, call_price_s: u64) -> f64 {
    idle_s + share(calls * call_price_s, 1)
}

fn pods_ms(load: &NodeLoad) -> u64 {
    load.stays.iter().map(|stay| millis(stay.until.since(stay.from))).sum()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
