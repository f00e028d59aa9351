//! Those who wait are served in the order in which they came, however slowly addresses come, and
//! nothing is kept for one who has gone away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::event::{Answer, LinkState, RequestId};
use ipam::policy::Limits;
use proptest::prelude::*;

use crate::ec2::SUBNET;
use crate::node::{Node, Setup, key};
use crate::settings::{Left, cases_of_cost, ec2, instance_limits, left, policies};

#[derive(Debug, Clone)]
enum Step {
    Add,
    /// The caller of an Add that is not answered yet goes away.
    Cancel(usize),
    /// A pod that has an address goes.
    Del(usize),
    EndSave,
    EndCall(usize),
    EndSync,
    Left(Left),
    Pass(u64),
}

#[derive(Debug, Clone)]
struct Scene {
    limits: Limits,
    policy: Setup,
    left: Left,
    steps: Vec<Step>,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let step = prop_oneof![
        8 => Just(Step::Add),
        2 => (0..20_usize).prop_map(Step::Cancel),
        3 => (0..20_usize).prop_map(Step::Del),
        6 => Just(Step::EndSave),
        4 => (0..3_usize).prop_map(Step::EndCall),
        2 => Just(Step::EndSync),
        1 => left().prop_map(Step::Left),
        3 => prop_oneof![1..500_u64, 500..9_000_u64].prop_map(Step::Pass),
    ];
    let policies = policies(vec![BlockKind::V4Address, BlockKind::V4Prefix]);
    let steps = prop::collection::vec(step, 1..150);
    (instance_limits(), policies, left(), steps).prop_map(|(limits, policy, left, steps)| Scene {
        limits,
        policy,
        left,
        steps,
    })
}

/// A node on which each pod comes once.
struct World {
    node: Node,
    /// Adds that nobody has answered, with their pods.
    open: BTreeMap<RequestId, usize>,
    cancelled: BTreeMap<RequestId, usize>,
    live: BTreeSet<usize>,
    n_pods: usize,
    /// The last Add that was granted.
    last: Option<RequestId>,
}

impl World {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Add => {
                let request = self.node.add(self.n_pods);
                self.open.insert(request, self.n_pods);
                self.n_pods += 1;
            }
            Step::Cancel(which) => {
                if let Some((request, pod)) = self.open.iter().nth(*which) {
                    let (request, pod) = (*request, *pod);
                    self.open.remove(&request);
                    self.cancelled.insert(request, pod);
                    self.node.cancel(request);
                }
            }
            Step::Del(which) => {
                if let Some(pod) = self.live.iter().nth(*which).copied() {
                    self.live.remove(&pod);
                    self.node.del(pod);
                }
            }
            Step::EndSave => self.node.end_save(Ok(())),
            Step::EndCall(which) => {
                if !self.node.calls.is_empty() {
                    self.node.end_call(which % self.node.calls.len());
                }
            }
            Step::EndSync => self.node.end_sync(&LinkState::Ready),
            Step::Left(left) => left.put(&mut self.node.ec2, SUBNET),
            Step::Pass(ms) => self.pass(*ms),
        }
        self.check_answers();
    }

    /// Time passes, and nothing under way ends.
    fn pass(&mut self, ms: u64) {
        let end = self.node.now + Duration::from_millis(ms);
        while let Some(at) = self.node.engine.wake_at().filter(|at| *at <= end) {
            self.node.now = at;
            self.node.send(ipam::event::Event::Tick);
        }
        self.node.now = end;
    }

    fn check_answers(&mut self) {
        for request in std::mem::take(&mut self.node.answered) {
            assert!(!self.cancelled.contains_key(&request), "{request:?} was cancelled");
            let Some(pod) = self.open.remove(&request) else { continue };
            if let Answer::Granted(_) = self.node.replies[&request] {
                assert!(self.last < Some(request), "{request:?} is served after {:?}", self.last);
                self.last = Some(request);
                self.live.insert(pod);
            }
        }
    }

    /// Nothing is on record for those who went away, and nobody waits for them.
    fn check_cancelled(&self) {
        let record = self.node.record();
        for pod in self.cancelled.values() {
            assert_eq!(record.assignments().get(&key(*pod)), None, "pod {pod} went away");
        }
        let live: BTreeSet<_> = self.live.iter().map(|pod| key(*pod)).collect();
        assert_eq!(record.assignments().keys().cloned().collect::<BTreeSet<_>>(), live);
        let counts = self.node.counts();
        assert_eq!((counts.assigned, counts.waiting), (live.len() as u64, 0));
    }
}

proptest! {
    #![proptest_config(cases_of_cost(1))]

    #[test]
    fn adds_are_served_in_order_and_cancelled_ones_never(scene in scenes()) {
        let ec2 = ec2(scene.limits, scene.left, None);
        let mut world = World {
            node: Node::start_with(ec2, scene.limits, scene.policy.clone()),
            open: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            live: BTreeSet::new(),
            n_pods: 0,
            last: None,
        };
        for step in &scene.steps {
            world.take(step);
        }
        world.node.pass(Duration::from_secs(60));
        world.check_answers();
        prop_assert!(world.open.is_empty(), "never answered: {:?}", world.open);
        world.check_cancelled();
    }

    /// A queue of which everybody goes away leaves the pool as one that nobody ever joined, once
    /// what was fetched for it has gone back.
    #[test]
    fn cancelled_queue_leaves_nothing(scene in scenes(), n in 1..30_usize) {
        let start = || {
            let ec2 = ec2(scene.limits, Left::PLENTY, None);
            Node::start_with(ec2, scene.limits, scene.policy.clone())
        };
        let (mut node, mut alone) = (start(), start());
        let requests: Vec<_> = (0..n).map(|pod| node.add(pod)).collect();
        for request in requests {
            node.cancel(request);
            prop_assert_eq!(node.answer(request), None);
        }
        node.settle();
        alone.settle();
        prop_assert_eq!(node.ec2.calls, alone.ec2.calls);
        prop_assert_eq!(node.log, alone.log);
    }
}
