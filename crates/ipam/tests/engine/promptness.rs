//! A waiting pod and spare capacity never coexist for longer than one round trip to EC2, whatever
//! the targets are.
//!
//! EC2 answers each call after the same time; the log and the host answer at once. A pod *waits* from its
//! Add to its answer. The model knows the state of EC2, the answers to pods, and EC2's refusals with their
//! times. It does not know the planner. After each event it asserts:
//!
//! * No pod waits while an address is free. A free address is on an attached ENI that is not on its way
//!   back. No pod has it, and it does not rest.
//! * No pod waits beside room or a place while no call helps. There is *room* if an ENI is below its limit
//!   and its subnet has free blocks of the kind. There is a *place* if the node may have another ENI and
//!   such a subnet exists. A call helps if it brings addresses or changes an ENI with room.
//! * No pod is refused that could be served. It could be if free addresses, room and places suffice for all
//!   pods that wait, and its patience sufficed for [`ROUND_TRIPS`].
//!
//! Room and a place may stay unused for as long as the grow delay lasts.
//!
//! Four excuses hold, each for a limited time: EC2 has not described the ENIs yet; the node has all the pods
//! that it may have; EC2 has throttled a call that brings addresses ([`Throttled`]); the subnet has refused
//! a single block of the kind ([`Refusals`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::{Action, CallError, CallErrorKind, CallId, CallOutput, Ec2Call, EniFacts};
use ipam::event::{Answer, Event, LinkState, RequestId};
use ipam::id::{EniId, Pod, SubnetId};
use ipam::policy::Limits;
use ipam::time::Timestamp;
use proptest::prelude::*;

use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id, error};
use crate::node::{Node, OnEni as _, Setup};
use crate::settings::{
    FreeBlocks, TAGGED_SUBNET, cases_of_cost, ec2, free_blocks, instance_limits, policies,
};

/// This many calls in a row bring any available address: the first describe; two calls that give an ENI or a
/// block back; for each of two nearly empty subnets twelve requests, each for half as much as the one before;
/// create, attach and mark for one ENI.
const ROUND_TRIPS: u32 = 32;
const PODS: usize = 80;

#[derive(Debug, Clone)]
enum LoadStep {
    /// `n` pods come at the same time, in the order of their numbers from `first`.
    Add {
        first: usize,
        n: usize,
    },
    Del {
        first: usize,
        n: usize,
    },
    Pass {
        ms: u64,
    },
    /// Somebody else takes blocks from a subnet or gives blocks back.
    FreeBlocks {
        second: bool,
        free_blocks: FreeBlocks,
    },
    /// The API server shows `n` pods that are about to start, whether or not it is true.
    Expect {
        first: usize,
        n: usize,
    },
    /// EC2 throttles the next `n` mutating calls.
    Throttle {
        n: u32,
    },
}

#[derive(Debug, Clone)]
struct PromptnessCase {
    limits: Limits,
    policy: Setup,
    first: FreeBlocks,
    second: Option<FreeBlocks>,
    latency: Duration,
    steps: Vec<LoadStep>,
}

fn cases() -> impl Strategy<Value = PromptnessCase> {
    let pods = || (0..PODS, prop_oneof![4 => 1..3_usize, 2 => 3..12_usize, 1 => 12..40_usize]);
    let step = prop_oneof![
        6 => pods().prop_map(|(first, n)| LoadStep::Add { first, n }),
        4 => pods().prop_map(|(first, n)| LoadStep::Del { first, n }),
        5 => prop_oneof![1..1_000_u64, 1_000..40_000_u64, 40_000..400_000_u64]
            .prop_map(|ms| LoadStep::Pass { ms }),
        1 => (any::<bool>(), free_blocks()).prop_map(|(second, free_blocks)| LoadStep::FreeBlocks { second, free_blocks }),
        2 => pods().prop_map(|(first, n)| LoadStep::Expect { first, n }),
        1 => (1..4_u32).prop_map(|n| LoadStep::Throttle { n }),
    ];
    let grow_delay = prop::sample::select(vec![0, 0, 50]).prop_map(Duration::from_millis);
    let policies = (policies(vec![BlockKind::V4Address, BlockKind::V4Prefix]), grow_delay)
        .prop_map(|(policy, grow_delay)| Setup { grow_delay, ..policy });
    let subnets = (free_blocks(), prop::option::of(free_blocks()));
    let latency = (1..250_u64).prop_map(Duration::from_millis);
    let steps = prop::collection::vec(step, 1..60);
    (instance_limits(), policies, subnets, latency, steps).prop_map(
        |(limits, policy, (first, second), latency, steps)| PromptnessCase {
            limits,
            policy,
            first,
            second,
            latency,
            steps,
        },
    )
}

/// Refusals of a single block in a row. The engine asks again for a waiting pod after 2 s, then after twice
/// as long each time, at most 2 min.
#[derive(Debug, Clone, Copy)]
struct Refusals {
    n: u32,
    at: Timestamp,
}

impl Refusals {
    fn until(self) -> Timestamp {
        self.at + Duration::from_secs(2_u64.saturating_pow(self.n).min(120))
    }
}

/// An action that EC2 has throttled. The next call follows after about 1 s, then after about twice as long
/// each time, at most about 60 s. Jitter adds up to half of the time.
#[derive(Debug, Clone, Copy)]
struct Throttled {
    n: u32,
    /// The time of the last throttled call, or of the last call after it.
    at: Timestamp,
}

impl Throttled {
    fn until(self) -> Timestamp {
        self.at + Duration::from_millis(1_500 * 2_u64.saturating_pow(self.n - 1).min(60))
    }
}

struct Waiting {
    pod: usize,
    since: Timestamp,
}

/// The model: EC2, the pods, and the history that the excuses need.
struct PromptnessModel {
    node: Node,
    latency: Duration,
    /// When the calls under way end.
    due: BTreeMap<CallId, Timestamp>,
    waiting: BTreeMap<RequestId, Waiting>,
    live: BTreeMap<usize, IpAddr>,
    freed: BTreeMap<IpAddr, Timestamp>,
    /// ENIs on their way back.
    leaving: BTreeSet<EniId>,
    /// Whether EC2 has described the ENIs.
    is_known: bool,
    /// Since when a pod waits beside room or a place while no call helps.
    spare_since: Option<Timestamp>,
    to_throttle: u32,
    throttled: BTreeMap<Action, Throttled>,
    refusals: BTreeMap<(SubnetId, BlockKind), Refusals>,
}

fn brings_addresses(action: Action) -> bool {
    matches!(action, Action::CreateEni | Action::AttachEni | Action::Assign)
}

/// The subnet that a call asks for blocks, their kind and their number.
fn asked_of(call: &Ec2Call, ec2: &Ec2) -> Option<(SubnetId, BlockKind, u16)> {
    let (subnet, blocks) = match call {
        Ec2Call::CreateEni { subnet, blocks, .. } => (subnet.clone(), blocks),
        Ec2Call::Assign { eni, blocks } => (ec2.enis.get(eni)?.subnet.clone(), blocks),
        _ => return None,
    };
    Some((subnet, blocks.kind, blocks.n))
}

impl PromptnessModel {
    fn new(case: &PromptnessCase) -> Self {
        let ec2 = ec2(case.limits, case.first, case.second);
        let mut model = Self {
            node: Node::start_with(ec2, case.limits, case.policy.clone()),
            latency: case.latency,
            due: BTreeMap::new(),
            waiting: BTreeMap::new(),
            live: BTreeMap::new(),
            freed: BTreeMap::new(),
            leaving: BTreeSet::new(),
            is_known: false,
            spare_since: None,
            to_throttle: 0,
            throttled: BTreeMap::new(),
            refusals: BTreeMap::new(),
        };
        model.observe();
        model
    }

    fn take(&mut self, step: &LoadStep) {
        match step {
            LoadStep::Add { first, n } => {
                for pod in (*first..first + n).map(|pod| pod % PODS) {
                    let adding = self.waiting.values().any(|waiting| waiting.pod == pod);
                    if !adding && !self.live.contains_key(&pod) {
                        let request = self.node.add(pod);
                        self.waiting.insert(request, Waiting { pod, since: self.node.now });
                        self.observe();
                    }
                }
            }
            LoadStep::Del { first, n } => {
                for pod in (*first..first + n).map(|pod| pod % PODS) {
                    self.waiting.retain(|_, waiting| waiting.pod != pod);
                    self.node.del(pod);
                    if let Some(address) = self.live.remove(&pod) {
                        self.freed.insert(address, self.node.now);
                    }
                    self.observe();
                }
            }
            LoadStep::Pass { ms } => self.pass(Duration::from_millis(*ms)),
            LoadStep::FreeBlocks { second, free_blocks } => {
                let subnet = if *second { TAGGED_SUBNET } else { SUBNET };
                if self.node.ec2.subnets.contains_key(&crate::ec2::subnet_id(subnet)) {
                    free_blocks.put(&mut self.node.ec2, subnet);
                }
                // No check here: the engine cannot know of this change yet.
            }
            LoadStep::Expect { first, n } => {
                let pod = |n| Pod { name: format!("pod-{n}"), ..Pod::default() };
                let pods = (*first..first + n).map(|n| pod(n % PODS)).collect();
                self.node.send(Event::PodsExpected(pods));
                self.observe();
            }
            LoadStep::Throttle { n } => self.to_throttle = *n,
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.node.now + span;
        loop {
            let answered = self.due.iter().map(|(id, at)| (*at, *id)).min();
            let woken = self.node.engine.wake_at();
            match (answered, woken) {
                (Some((at, id)), woken) if at <= end && woken.is_none_or(|wake| at <= wake) => {
                    self.node.now = at;
                    self.end_call(id);
                }
                (_, Some(at)) if at <= end => {
                    self.node.now = at;
                    self.node.send(Event::Tick);
                }
                _ => break,
            }
            self.observe();
        }
        self.node.now = end;
        self.check();
    }

    fn end_call(&mut self, id: CallId) {
        self.due.remove(&id);
        let place = self.node.calls.iter().position(|(other, _)| *other == id).unwrap();
        let (_, call) = self.node.calls.remove(place).unwrap();
        let action = call.action();
        let reads = matches!(action, Action::DescribeEnis | Action::DescribeSubnets);
        let result = if !reads && self.to_throttle > 0 {
            self.to_throttle -= 1;
            Err(error(CallErrorKind::Throttled))
        } else {
            self.node.ec2.execute(&call)
        };
        self.note_end(&call, &result);
        self.node.send(Event::CallDone { id, result });
    }

    fn note_end(&mut self, call: &Ec2Call, result: &Result<CallOutput, CallError>) {
        let (action, now) = (call.action(), self.node.now);
        self.is_known |= action == Action::DescribeEnis && result.is_ok();
        if matches!(result, Err(CallError { kind: CallErrorKind::Throttled, .. })) {
            let n = self.throttled.get(&action).map_or(0, |throttled| throttled.n);
            self.throttled.insert(action, Throttled { n: (n + 1).min(8), at: now });
            return;
        }
        let Some((subnet, kind, count)) = asked_of(call, &self.node.ec2) else { return };
        let n = self.refusals.get(&(subnet.clone(), kind)).map_or(0, |refusals| refusals.n);
        if result.is_ok() {
            self.refusals.remove(&(subnet, kind));
        } else if count <= 1 {
            self.refusals.insert((subnet, kind), Refusals { n: (n + 1).min(8), at: now });
        }
    }

    /// Lets the log and the host answer. Then notes the new calls and answers, and checks.
    fn observe(&mut self) {
        while !self.node.saves.is_empty() || self.node.host.is_some() {
            self.node.save_all();
            self.node.end_sync(&LinkState::Ready);
        }
        for (id, call) in &self.node.calls {
            if self.due.contains_key(id) {
                continue;
            }
            self.due.insert(*id, self.node.now + self.latency);
            if let Some(throttled) = self.throttled.get_mut(&call.action()) {
                throttled.at = self.node.now;
            }
            if let Ec2Call::DetachEni { eni, .. } | Ec2Call::DeleteEni { eni } = call {
                self.leaving.insert(eni.clone());
            }
        }
        for (request, answer) in std::mem::take(&mut self.node.replies) {
            let Some(Waiting { pod, since }) = self.waiting.remove(&request) else { continue };
            match answer {
                Answer::Granted(assignment) => {
                    self.live.insert(pod, assignment.address());
                }
                Answer::Refused(refusal) => self.check_refusal(since, &refusal.message),
                other => panic!("{pod} gets {other:?}"),
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let spare = self.spare();
        self.spare_since = spare.map(|_| self.spare_since.unwrap_or(self.node.now));
        let (Some((n_room, n_new)), Some(since)) = (spare, self.spare_since) else { return };
        assert!(
            self.node.now.since(since) < self.node.boot.policy.timing.grow_delay,
            "no call uses the room for {n_room} and {n_new} on new ENIs since {since:?}; {}",
            self.describe_state()
        );
    }

    /// The room and the blocks on new ENIs beside which pods wait without an excuse; `None` if there are none.
    fn spare(&self) -> Option<(usize, usize)> {
        if self.waiting.is_empty() || !self.is_known {
            return None;
        }
        assert_eq!(self.n_free(), 0, "addresses are free; {}", self.describe_state());
        let now = self.node.now;
        if self.is_help_under_way() || self.is_full(0) || self.was_throttled_since(now) {
            return None;
        }
        Some((self.n_room(), self.n_on_new_enis())).filter(|spare| *spare != (0, 0))
    }

    /// Checks the refusal of a pod that has waited since `since`. Others may still wait.
    fn check_refusal(&self, since: Timestamp, why: &str) {
        let n_waiting = self.waiting.len() + 1;
        if !self.is_known || self.is_full(n_waiting - 1) || self.was_throttled_since(since) {
            return;
        }
        let n_free = self.n_free();
        let (n_room, n_new) = (self.n_room(), self.n_on_new_enis());
        assert!(
            n_free + n_room + n_new < n_waiting,
            "{why}\nrefused after {:?}, one of {n_waiting}, with {n_free} free, room for {n_room} \
             and {n_new} on new ENIs; {}",
            self.node.now.since(since),
            self.describe_state()
        );
    }

    fn describe_state(&self) -> String {
        let (view, blocks) = (self.node.view(), self.node.ec2.n_blocks());
        format!(
            "{:?} on {blocks:?}, under way {:?}, {:?}",
            view.counts, view.in_flight, view.blocked
        )
    }

    /// Whether the node has all the pods that it may have, counting `n_coming` waiting ones.
    fn is_full(&self, n_coming: usize) -> bool {
        let max_pods = usize::try_from(self.node.boot.policy.max_pods).unwrap();
        self.live.len() + n_coming >= max_pods
    }

    fn was_throttled_since(&self, since: Timestamp) -> bool {
        let mut throttled = self.throttled.iter().filter(|(action, _)| brings_addresses(**action));
        throttled.any(|(_, throttled)| throttled.until() > since)
    }

    /// Whether a call is under way that brings addresses, or that its ENI must end before it can take some.
    fn is_help_under_way(&self) -> bool {
        let limit = usize::from(self.node.boot.limits.blocks_per_eni());
        let has_room = |id: &EniId| self.usable().any(|e| e.id == *id && e.blocks.len() < limit);
        let changes_one_with_room = |call: &Ec2Call| match call {
            Ec2Call::Unassign { .. } => true,
            // A create waits for them if the last ones are minutes old.
            Ec2Call::DescribeEnis | Ec2Call::DescribeSubnets => true,
            Ec2Call::SetDeleteOnTermination { eni, .. }
            | Ec2Call::SetSecurityGroups { eni, .. } => has_room(eni),
            _ => false,
        };
        let mut calls = self.node.calls.iter().map(|(_, call)| call);
        calls.any(|call| brings_addresses(call.action()) || changes_one_with_room(call))
    }

    /// The ENIs whose addresses pods may get.
    fn usable(&self) -> impl Iterator<Item = &EniFacts> {
        let enis = self.node.ec2.enis.values();
        enis.filter(|eni| eni.attachment.is_some() && !self.leaving.contains(&eni.id))
    }

    fn n_free(&self) -> usize {
        let cooldown = self.node.boot.policy.timing.cooldown;
        let blocks: BTreeSet<_> = self.usable().flat_map(|eni| &eni.blocks).copied().collect();
        let here = |ip: &IpAddr| blocks.iter().any(|block| block.contains(*ip));
        let n_live = self.live.values().filter(|ip| here(ip)).count();
        let resting = self.freed.iter().filter(|(_, at)| **at + cooldown > self.node.now);
        let n_resting = resting.filter(|(ip, _)| here(ip)).count();
        let n: u64 = blocks.iter().map(|block| block.size()).sum();
        let going = self.node.calls.iter().filter_map(|(_, call)| match call {
            Ec2Call::Unassign { blocks, .. } => Some(blocks.iter().map(|b| b.size()).sum::<u64>()),
            _ => None,
        });
        usize::try_from(n - going.sum::<u64>()).unwrap() - n_live - n_resting
    }

    /// The blocks that ENIs may still take, as far as their subnets have them.
    fn n_room(&self) -> usize {
        let most = usize::from(self.node.boot.limits.blocks_per_eni());
        let mut by_subnet = BTreeMap::<_, usize>::new();
        for eni in self.usable() {
            *by_subnet.entry(&eni.subnet).or_default() += most.saturating_sub(eni.blocks.len());
        }
        let room = by_subnet.into_iter().map(|(subnet, room)| room.min(self.n_left(subnet)));
        room.sum()
    }

    /// The blocks that one more ENI would bring.
    fn n_on_new_enis(&self) -> usize {
        let Node { boot, ec2, .. } = &self.node;
        let allowed = usize::from(boot.limits.enis_allowed(&boot.policy));
        let creating = |call: &&Ec2Call| call.action() == Action::CreateEni;
        let n_creating = self.node.calls.iter().filter(|(_, call)| creating(&call)).count();
        if ec2.enis.len() + n_creating >= allowed {
            return 0;
        }
        let most = usize::from(boot.limits.blocks_per_eni());
        let free_blocks = ec2.subnets.keys().map(|subnet| self.n_left(subnet));
        free_blocks.max().unwrap_or(0).min(most)
    }

    /// The available blocks in a subnet.
    fn n_left(&self, id: &SubnetId) -> usize {
        let subnet = &self.node.ec2.subnets[id];
        let open = |kind| {
            let refusals = self.refusals.get(&(id.clone(), kind));
            refusals.is_none_or(|refusals| refusals.until() <= self.node.now)
        };
        let singles = if open(BlockKind::V4Address) { usize::from(subnet.n_addresses) } else { 0 };
        // The engine asks no subnet for prefixes while that subnet refuses single addresses.
        let both_open = open(BlockKind::V4Prefix) && open(BlockKind::V4Address);
        let prefixes = if both_open { usize::from(subnet.n_prefixes) } else { 0 };
        match self.node.view().kind {
            BlockKind::V4Address => singles,
            BlockKind::V4Prefix | BlockKind::V6Prefix => singles.max(prefixes),
        }
    }
}

proptest! {
    #![proptest_config(cases_of_cost(1))]

    #[test]
    fn no_pod_waits_while_it_could_be_served(case in cases()) {
        let Setup { grow_delay, add_wait, .. } = case.policy;
        assert!((case.latency + grow_delay) * ROUND_TRIPS < add_wait);
        let mut model = PromptnessModel::new(&case);
        for step in &case.steps {
            model.take(step);
        }
        model.pass(Duration::from_secs(600));
        prop_assert!(model.waiting.is_empty());
        prop_assert!(model.node.ec2.enis.contains_key(&eni_id(PRIMARY)));
    }
}
