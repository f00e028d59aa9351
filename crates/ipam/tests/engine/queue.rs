//! Waiting Adds are served in the order of their arrival, however slowly addresses come. The engine keeps
//! nothing for a cancelled Add.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::event::{Answer, LinkState, RequestId};
use ipam::policy::Limits;
use proptest::prelude::*;

use crate::ec2::SUBNET;
use crate::node::{Node, Setup, key};
use crate::settings::{FreeBlocks, cases_of_cost, ec2, free_blocks, instance_limits, policies};

#[derive(Debug, Clone)]
enum QueueStep {
    Add,
    /// The caller of an unanswered Add goes away.
    Cancel(usize),
    /// A pod with an address ends.
    Del(usize),
    EndSave,
    EndCall(usize),
    EndSync,
    FreeBlocks(FreeBlocks),
    Pass(u64),
}

#[derive(Debug, Clone)]
struct QueueCase {
    limits: Limits,
    policy: Setup,
    free_blocks: FreeBlocks,
    steps: Vec<QueueStep>,
}

fn cases() -> impl Strategy<Value = QueueCase> {
    let step = prop_oneof![
        8 => Just(QueueStep::Add),
        2 => (0..20_usize).prop_map(QueueStep::Cancel),
        3 => (0..20_usize).prop_map(QueueStep::Del),
        6 => Just(QueueStep::EndSave),
        4 => (0..3_usize).prop_map(QueueStep::EndCall),
        2 => Just(QueueStep::EndSync),
        1 => free_blocks().prop_map(QueueStep::FreeBlocks),
        3 => prop_oneof![1..500_u64, 500..9_000_u64].prop_map(QueueStep::Pass),
    ];
    let policies = policies(vec![BlockKind::V4Address, BlockKind::V4Prefix]);
    let steps = prop::collection::vec(step, 1..150);
    (instance_limits(), policies, free_blocks(), steps).prop_map(
        |(limits, policy, free_blocks, steps)| QueueCase { limits, policy, free_blocks, steps },
    )
}

/// A node on which each pod comes once.
struct QueueModel {
    node: Node,
    /// The unanswered Adds, with their pods.
    open: BTreeMap<RequestId, usize>,
    cancelled: BTreeMap<RequestId, usize>,
    live: BTreeSet<usize>,
    n_pods: usize,
    /// The last granted Add.
    last: Option<RequestId>,
}

impl QueueModel {
    fn take(&mut self, step: &QueueStep) {
        match step {
            QueueStep::Add => {
                let request = self.node.add(self.n_pods);
                self.open.insert(request, self.n_pods);
                self.n_pods += 1;
            }
            QueueStep::Cancel(which) => {
                if let Some((request, pod)) = self.open.iter().nth(*which) {
                    let (request, pod) = (*request, *pod);
                    self.open.remove(&request);
                    self.cancelled.insert(request, pod);
                    self.node.cancel(request);
                }
            }
            QueueStep::Del(which) => {
                if let Some(pod) = self.live.iter().nth(*which).copied() {
                    self.live.remove(&pod);
                    self.node.del(pod);
                }
            }
            QueueStep::EndSave => self.node.end_save(Ok(())),
            QueueStep::EndCall(which) => {
                if !self.node.calls.is_empty() {
                    self.node.end_call(which % self.node.calls.len());
                }
            }
            QueueStep::EndSync => self.node.end_sync(&LinkState::Ready),
            QueueStep::FreeBlocks(free_blocks) => free_blocks.put(&mut self.node.ec2, SUBNET),
            QueueStep::Pass(ms) => self.pass(*ms),
        }
        self.check_answers();
    }

    /// Time passes, and no call, save or sync ends.
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

    /// The record holds exactly the live pods, and no Add waits.
    fn check_cancelled(&self) {
        let record = self.node.record();
        for pod in self.cancelled.values() {
            assert_eq!(record.assignments().get(&key(*pod)), None, "pod {pod} is cancelled");
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
    fn adds_are_served_in_order_and_cancelled_ones_never(case in cases()) {
        let ec2 = ec2(case.limits, case.free_blocks, None);
        let mut model = QueueModel {
            node: Node::start_with(ec2, case.limits, case.policy.clone()),
            open: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            live: BTreeSet::new(),
            n_pods: 0,
            last: None,
        };
        for step in &case.steps {
            model.take(step);
        }
        model.node.pass(Duration::from_secs(60));
        model.check_answers();
        prop_assert!(model.open.is_empty(), "never answered: {:?}", model.open);
        model.check_cancelled();
    }

    /// A node whose waiting Adds are all cancelled makes the same calls as a node that never had any.
    #[test]
    fn cancelled_queue_leaves_nothing(case in cases(), n in 1..30_usize) {
        let start = || {
            let ec2 = ec2(case.limits, FreeBlocks::PLENTY, None);
            Node::start_with(ec2, case.limits, case.policy.clone())
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
