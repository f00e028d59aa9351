//! Nodes that join and leave, and the scheduler.

use std::time::Duration;

use ec2_model::Rng;

use super::kubelet::Stage;
use super::sdk::RetryQuota;
use super::{Daemons, FIRST_NODE, Life, Node, NodeState, Run, SimEvent, Strategy};
use crate::bound::NodeCapacity;
use crate::cloud::SetupError;
use crate::daemon::{Daemon, Input};
use crate::incumbent::Incumbent;
use crate::oracle::Oracle;
use crate::spec::NodeSpec;
use crate::tidepool::Tidepool;
use crate::trace::TraceAction;

/// From the drain of a node to the end of its instance.
const DRAIN_TIME: Duration = Duration::from_secs(30);

impl<'a> Run<'a> {
    pub(super) fn step(&mut self, action: &TraceAction) -> Result<(), SetupError> {
        match *action {
            TraceAction::Create { pods, life } => {
                for _ in 0..pods {
                    self.create_pod(life);
                }
                self.schedule();
            }
            TraceAction::Delete { pods } => self.delete_some(pods),
            TraceAction::Roll { surge } => self.roll(surge),
            TraceAction::Join { nodes } => {
                for _ in 0..nodes {
                    self.start_node()?;
                }
            }
            TraceAction::Drain { nodes } => {
                for _ in 0..nodes {
                    self.drain_oldest();
                }
            }
            TraceAction::Occupy { subnet, addresses } => {
                self.cloud.occupy(subnet, addresses, self.now);
            }
            TraceAction::Vacate { subnet } => self.cloud.vacate(subnet, self.now),
        }
        Ok(())
    }

    pub(super) fn start_node(&mut self) -> Result<(), SetupError> {
        let place = self.nodes.len();
        let spec = self.spec_of(place);
        let site = self.cloud.join(spec, self.now)?;
        let stream = FIRST_NODE + u64::try_from(place).expect("usize is at most 64 bits wide");
        let rng = Rng::with_stream(self.setup.seed, stream);
        let daemon: Box<dyn Daemon> = match self.daemons {
            Daemons::Of(Strategy::Tidepool) => Box::new(Tidepool::new(site.clone(), self.now)),
            Daemons::Of(Strategy::Incumbent) => Box::new(Incumbent::new(site.clone(), rng)),
            Daemons::Oracles => Box::new(Oracle::default()),
        };
        let held = self.cloud.holding(&site.instance);
        let life = Life { started: self.now, held, drained: None, ended: None };
        let pods = std::collections::BTreeSet::new();
        let (state, retry_quota) = (NodeState::Starting, RetryQuota::default());
        self.nodes.push(Node { spec, site, daemon, state, life, retry_quota, pods });
        self.tell(place, Input::Start);
        Ok(())
    }

    fn drain_oldest(&mut self) {
        let is_up = |node: &&Node| matches!(node.state, NodeState::Starting | NodeState::Ready);
        if self.nodes.iter().filter(is_up).count() < 2 {
            return;
        }
        let Some(place) = self.nodes.iter().position(|node| is_up(&node)) else { return };
        let node = &mut self.nodes[place];
        self.open.remove(&(node.pods.len(), place));
        node.state = NodeState::Draining;
        node.life.drained = Some(self.now);
        let pods: Vec<usize> = node.pods.iter().copied().collect();
        for pod in pods {
            let stays = self.pods[pod].life.is_none();
            self.delete_pod(pod);
            if stays {
                self.create_pod(None);
            }
        }
        self.push_in(DRAIN_TIME, SimEvent::InstanceEnds { node: place });
        self.schedule();
    }

    pub(super) fn end_instance(&mut self, node: usize) {
        let found = &mut self.nodes[node];
        found.state = NodeState::Gone;
        found.life.ended = Some(self.now);
        self.awaited.retain(|_, (of, _)| *of != node);
        self.cloud.terminate(&found.site.instance, self.now);
    }

    /// The spec of the node with this index, which may not exist yet.
    fn spec_of(&self, place: usize) -> &'a NodeSpec {
        &self.setup.node_specs[place % self.setup.node_specs.len()]
    }

    /// Adds a node to the list of nodes with a place, if it has one.
    pub(super) fn note_place(&mut self, node: usize) {
        let found = &self.nodes[node];
        let n_places = usize::try_from(found.spec.n_places()).unwrap_or(usize::MAX);
        if found.state == NodeState::Ready && found.pods.len() < n_places {
            self.open.insert((found.pods.len(), node));
        }
    }

    /// Schedules waiting pods in their order.
    pub(super) fn schedule(&mut self) {
        while let Some(pod) = self.queue.front().copied() {
            if self.pods[pod].stage != Stage::Unscheduled {
                self.queue.pop_front();
                continue;
            }
            let Some((_, node)) = self.open.pop_first() else { return };
            self.queue.pop_front();
            self.nodes[node].pods.insert(pod);
            self.pods[pod].node = Some(node);
            self.pods[pod].stage = Stage::Scheduled;
            self.note_place(node);
            self.bind(pod, node);
        }
    }

    /// Removes a pod from its node.
    pub(super) fn vacate_place(&mut self, node: usize, pod: usize) {
        let found = &mut self.nodes[node];
        self.open.remove(&(found.pods.len(), node));
        found.pods.remove(&pod);
        self.note_place(node);
        self.schedule();
    }

    /// The capacities of the existing nodes.
    pub(super) fn capacities(&self) -> Vec<NodeCapacity> {
        let there = self.nodes.iter().filter(|node| node.state != NodeState::Gone);
        let capacity = |node: &Node| {
            NodeCapacity::new(&self.cloud.blocks(&node.site.instance), node.site.limits, node.spec)
        };
        there.map(capacity).collect()
    }

    /// The capacities of the next nodes, one per spec: a primary ENI without blocks.
    pub(super) fn joining_capacities(&mut self) -> Result<Vec<NodeCapacity>, SetupError> {
        let next = self.nodes.len()..self.nodes.len() + self.setup.node_specs.len();
        let capacity = |place| {
            let spec = self.spec_of(place);
            Ok(NodeCapacity::new(&[0], self.cloud.limits(&spec.instance_type, self.now)?, spec))
        };
        next.map(capacity).collect()
    }
}
