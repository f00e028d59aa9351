//! A waiting pod and spare capacity never coexist for longer than one round trip to EC2, whatever
//! the targets are.
//!
//! EC2 answers each call after the same time; the log and the host answer at once. A pod *waits*
//! from its Add to its answer. The model knows EC2, what pods have been told and what EC2 has
//! refused when; it does not know the planner. After everything that happens it asserts:
//!
//! * No pod waits while an address is free: on an attached ENI that is not on its way back, neither
//!   a pod's nor resting.
//! * No pod waits while more could be had and nobody has asked: there is *room* (an ENI below its
//!   limit, in a subnet that has what the kind uses) or a *place* (an ENI fewer than allowed, and
//!   such a subnet), and no call is under way that brings addresses or changes an ENI with room.
//! * No pod is refused that could be served: there are as many free addresses, room and places as
//!   pods that wait, and the pod was patient enough for [`ROUND_TRIPS`].
//!
//! Room and a place may be there for as long as the grow delay lasts.
//!
//! What excuses it, with its longest duration: the node does not know yet what it holds; it has all
//! the pods it may have; EC2 has throttled a call that brings addresses ([`Throttled`]); the subnet
//! has refused a single block of that kind ([`Refusals`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::{Action, CallError, CallErrorKind, CallId, CallOutput, Ec2Call, EniFacts};
use ipam::event::{Answer, Event, LinkState, RequestId};
use ipam::id::{EniId, SubnetId};
use ipam::policy::Limits;
use ipam::time::Timestamp;
use proptest::prelude::*;

use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id, error};
use crate::node::{Node, OnEni as _, Setup};
use crate::settings::{Left, TAGGED_SUBNET, cases_of_cost, ec2, instance_limits, left, policies};

/// So many calls, one after the other, bring any address that can be had: the first reading; a call
/// that gives an ENI or a block back and its second half; twelve askings, each for half as much as
/// the one before, twice, for a subnet that is nearly empty and another; creating, attaching and
/// marking an ENI.
const ROUND_TRIPS: u32 = 32;
const PODS: usize = 80;

#[derive(Debug, Clone)]
enum Step {
    /// So many pods come at once, in the order of their numbers, beginning with `first`.
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
    /// Somebody else takes from a subnet or gives back to it.
    Left {
        second: bool,
        left: Left,
    },
    /// EC2 throttles the next so many calls that change something.
    Throttle {
        n: u32,
    },
}

#[derive(Debug, Clone)]
struct Scene {
    limits: Limits,
    policy: Setup,
    first: Left,
    second: Option<Left>,
    latency: Duration,
    steps: Vec<Step>,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let pods = || (0..PODS, prop_oneof![4 => 1..3_usize, 2 => 3..12_usize, 1 => 12..40_usize]);
    let step = prop_oneof![
        6 => pods().prop_map(|(first, n)| Step::Add { first, n }),
        4 => pods().prop_map(|(first, n)| Step::Del { first, n }),
        5 => prop_oneof![1..1_000_u64, 1_000..40_000_u64, 40_000..400_000_u64]
            .prop_map(|ms| Step::Pass { ms }),
        1 => (any::<bool>(), left()).prop_map(|(second, left)| Step::Left { second, left }),
        1 => (1..4_u32).prop_map(|n| Step::Throttle { n }),
    ];
    let grow_delay = prop::sample::select(vec![0, 0, 50]).prop_map(Duration::from_millis);
    let policies = (policies(vec![BlockKind::V4Address, BlockKind::V4Prefix]), grow_delay)
        .prop_map(|(policy, grow_delay)| Setup { grow_delay, ..policy });
    let subnets = (left(), prop::option::of(left()));
    let latency = (1..250_u64).prop_map(Duration::from_millis);
    let steps = prop::collection::vec(step, 1..60);
    (instance_limits(), policies, subnets, latency, steps).prop_map(
        |(limits, policy, (first, second), latency, steps)| Scene {
            limits,
            policy,
            first,
            second,
            latency,
            steps,
        },
    )
}

/// Refusals of a single block in a row: EC2 is asked again for a waiting pod after 2 s, and after
/// twice as long each time, at most 2 min.
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

/// An action that EC2 has throttled: the next call follows after about 1 s, and after twice as long
/// each time, at most about 60 s; "about" is up to half as long again.
#[derive(Debug, Clone, Copy)]
struct Throttled {
    n: u32,
    /// The last throttled call, or the last call since.
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

/// The model: EC2 and the pods, and what has been seen.
struct World {
    node: Node,
    latency: Duration,
    /// When the calls under way end.
    due: BTreeMap<CallId, Timestamp>,
    waiting: BTreeMap<RequestId, Waiting>,
    live: BTreeMap<usize, IpAddr>,
    freed: BTreeMap<IpAddr, Timestamp>,
    /// ENIs on their way back.
    leaving: BTreeSet<EniId>,
    /// Whether EC2 has said what is here.
    is_known: bool,
    /// Since when more could be had for a pod that waits, and nobody has asked.
    spare_since: Option<Timestamp>,
    to_throttle: u32,
    throttled: BTreeMap<Action, Throttled>,
    refusals: BTreeMap<(SubnetId, BlockKind), Refusals>,
}

fn brings_addresses(action: Action) -> bool {
    matches!(action, Action::CreateEni | Action::AttachEni | Action::Assign)
}

/// The subnet that a call asks for blocks, of which kind, and for how many.
fn asked_of(call: &Ec2Call, ec2: &Ec2) -> Option<(SubnetId, BlockKind, u16)> {
    let (subnet, blocks) = match call {
        Ec2Call::CreateEni { subnet, blocks, .. } => (subnet.clone(), blocks),
        Ec2Call::Assign { eni, blocks } => (ec2.enis.get(eni)?.subnet.clone(), blocks),
        _ => return None,
    };
    Some((subnet, blocks.kind, blocks.n))
}

impl World {
    fn new(scene: &Scene) -> Self {
        let ec2 = ec2(scene.limits, scene.first, scene.second);
        let mut world = Self {
            node: Node::start_with(ec2, scene.limits, scene.policy.clone()),
            latency: scene.latency,
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
        world.look_around();
        world
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Add { first, n } => {
                for pod in (*first..first + n).map(|pod| pod % PODS) {
                    let adding = self.waiting.values().any(|waiting| waiting.pod == pod);
                    if !adding && !self.live.contains_key(&pod) {
                        let request = self.node.add(pod);
                        self.waiting.insert(request, Waiting { pod, since: self.node.now });
                        self.look_around();
                    }
                }
            }
            Step::Del { first, n } => {
                for pod in (*first..first + n).map(|pod| pod % PODS) {
                    self.waiting.retain(|_, waiting| waiting.pod != pod);
                    self.node.del(pod);
                    if let Some(address) = self.live.remove(&pod) {
                        self.freed.insert(address, self.node.now);
                    }
                    self.look_around();
                }
            }
            Step::Pass { ms } => self.pass(Duration::from_millis(*ms)),
            Step::Left { second, left } => {
                let subnet = if *second { TAGGED_SUBNET } else { SUBNET };
                if self.node.ec2.subnets.contains_key(&crate::ec2::subnet_id(subnet)) {
                    left.put(&mut self.node.ec2, subnet);
                }
                // A pod that already waits may have been told the truth of a moment ago.
            }
            Step::Throttle { n } => self.to_throttle = *n,
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
            self.look_around();
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

    /// The log and the host answer; then the new calls and answers are taken note of.
    fn look_around(&mut self) {
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
                other => panic!("{pod} is told {other:?}"),
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
            "nobody has asked since {since:?} for the room for {n_room} and {n_new} on new ENIs; {}",
            self.picture()
        );
    }

    /// The room and the places that pods wait beside, without an excuse.
    fn spare(&self) -> Option<(usize, usize)> {
        if self.waiting.is_empty() || !self.is_known {
            return None;
        }
        assert_eq!(self.n_free(), 0, "addresses are free; {}", self.picture());
        let now = self.node.now;
        if self.is_help_under_way() || self.is_full(0) || self.was_throttled_since(now) {
            return None;
        }
        Some((self.n_room(), self.n_on_new_enis())).filter(|spare| *spare != (0, 0))
    }

    /// A pod was refused that had waited since then; those that came with it may still wait.
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
            self.picture()
        );
    }

    fn picture(&self) -> String {
        let (view, blocks) = (self.node.view(), self.node.ec2.n_blocks());
        format!(
            "{:?} on {blocks:?}, under way {:?}, {:?}",
            view.counts, view.in_flight, view.blocked
        )
    }

    /// Whether the node has all the pods that it may have, `n_coming` of those that wait included.
    fn is_full(&self, n_coming: usize) -> bool {
        let max_pods = usize::try_from(self.node.boot.policy.max_pods).unwrap();
        self.live.len() + n_coming >= max_pods
    }

    fn was_throttled_since(&self, since: Timestamp) -> bool {
        let mut throttled = self.throttled.iter().filter(|(action, _)| brings_addresses(**action));
        throttled.any(|(_, throttled)| throttled.until() > since)
    }

    /// Whether a call is under way that brings addresses, or after which its ENI can take some.
    fn is_help_under_way(&self) -> bool {
        let most = usize::from(self.node.boot.limits.blocks_per_eni());
        let has_room = |id: &EniId| self.usable().any(|e| e.id == *id && e.blocks.len() < most);
        let changes_one_with_room = |call: &Ec2Call| match call {
            Ec2Call::Unassign { .. } => true,
            Ec2Call::SetDeleteOnTermination { eni, .. } => has_room(eni),
            _ => false,
        };
        let mut calls = self.node.calls.iter().map(|(_, call)| call);
        calls.any(|call| brings_addresses(call.action()) || changes_one_with_room(call))
    }

    /// ENIs whose addresses pods may get.
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

    /// Blocks that ENIs may still take, as far as their subnets have them.
    fn n_room(&self) -> usize {
        let most = usize::from(self.node.boot.limits.blocks_per_eni());
        let mut by_subnet = BTreeMap::<_, usize>::new();
        for eni in self.usable() {
            *by_subnet.entry(&eni.subnet).or_default() += most.saturating_sub(eni.blocks.len());
        }
        let room = by_subnet.into_iter().map(|(subnet, room)| room.min(self.n_left(subnet)));
        room.sum()
    }

    /// Blocks that one more ENI would bring.
    fn n_on_new_enis(&self) -> usize {
        let Node { boot, ec2, .. } = &self.node;
        let allowed = usize::from(boot.limits.enis_allowed(&boot.policy));
        let creating = |call: &&Ec2Call| call.action() == Action::CreateEni;
        let n_creating = self.node.calls.iter().filter(|(_, call)| creating(&call)).count();
        if ec2.enis.len() + n_creating >= allowed {
            return 0;
        }
        let most = usize::from(boot.limits.blocks_per_eni());
        let left = ec2.subnets.keys().map(|subnet| self.n_left(subnet));
        left.max().unwrap_or(0).min(most)
    }

    /// Blocks that may be had in a subnet.
    fn n_left(&self, id: &SubnetId) -> usize {
        let subnet = &self.node.ec2.subnets[id];
        let open = |kind| {
            let refusals = self.refusals.get(&(id.clone(), kind));
            refusals.is_none_or(|refusals| refusals.until() <= self.node.now)
        };
        let singles = if open(BlockKind::V4Address) { usize::from(subnet.n_addresses) } else { 0 };
        // A subnet that refuses single addresses is not asked for prefixes meanwhile.
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
    fn no_pod_waits_while_it_could_be_served(scene in scenes()) {
        let Setup { grow_delay, add_wait, .. } = scene.policy;
        assert!((scene.latency + grow_delay) * ROUND_TRIPS < add_wait);
        let mut world = World::new(&scene);
        for step in &scene.steps {
            world.take(step);
        }
        world.pass(Duration::from_secs(600));
        prop_assert!(world.waiting.is_empty());
        prop_assert!(world.node.ec2.enis.contains_key(&eni_id(PRIMARY)));
    }
}
