//! One simulation: the loop that advances virtual time from event to event.

mod cluster;
mod kubelet;
mod sdk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use ec2_model::Rng;
use ec2_model::id::EniId;
use ec2_model::request::Request;
use ipam::time::Timestamp;

use self::kubelet::Pod;
use self::sdk::{Attempt, RetryQuota};
use crate::bound::Bound;
use crate::cloud::{Cloud, SetupError, Site};
use crate::daemon::{Command, Daemon, Input, SandboxId};
use crate::event_queue::EventQueue;
use crate::load::{Holding, NodeLoad};
use crate::score::{Score, Tally};
use crate::spec::{NodeSpec, VpcSpec};
use crate::trace::Trace;

/// The time to set up a device on the host: links, routes, rules.
const DEVICE_SETUP: Duration = Duration::from_millis(10);
/// The time to read one metadata path, which the host itself serves. An assumption.
const METADATA_READ: Duration = Duration::from_millis(1);
/// The paths that are read in sequence: the list of ENIs, and per ENI its keys, id, device number,
/// network card, subnet, subnet range, addresses and prefixes.
const METADATA_PATHS: (u32, u32) = (1, 8);

/// From a pod's binding to the news of it on its node. An assumption: one event of a watch.
const NEWS: Duration = Duration::from_millis(100);

/// The numbers of the random streams. Each consumer has its own, so that none changes another's
/// numbers.
const KUBELET: u64 = 2;
const SDK: u64 = 3;
const FIRST_NODE: u64 = 1_000;

/// Whose daemon runs on the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// Ours: the engine.
    Tidepool,
    /// The daemon of amazon-vpc-cni-k8s.
    Incumbent,
}

impl Strategy {
    /// Both, ours first.
    pub const ALL: [Self; 2] = [Self::Tidepool, Self::Incumbent];

    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tidepool => "tidepool",
            Self::Incumbent => "incumbent",
        }
    }
}

/// The input of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// EC2 and the subnets.
    pub vpc: VpcSpec,
    /// The nodes' types, in turn. Never empty.
    pub node_specs: Vec<NodeSpec>,
    /// Number of nodes before the trace begins.
    pub nodes: u32,
    /// Time before the trace. These nodes start one after another in its first half.
    pub warm_up: Duration,
    /// The load.
    pub trace: Trace,
    /// Length of the simulation from the start of the trace.
    pub lasts: Duration,
    /// Determines all random choices.
    pub seed: u64,
    /// What happens between a pod's binding to its node and its ADD.
    pub start: PodStart,
}

/// What happens between a pod's binding to its node and its ADD.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodStart {
    /// The time that the kubelet takes for volumes and the like. It counts as no wait.
    pub lead: Duration,
    /// Whether our daemon learns of bound pods from the API server.
    pub is_seen: bool,
}

/// The result of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The figures.
    pub score: Score,
    /// The number of blocks on each ENI of each node that exists at the end. Nodes by age; ENIs
    /// with the primary first.
    pub blocks: Vec<Vec<u16>>,
    /// What pods asked of each node that existed during the trace. Nodes by age.
    pub loads: Vec<NodeLoad>,
}

/// Whose daemons run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Daemons {
    Of(Strategy),
    /// Those that always have an address.
    Oracles,
}

/// Runs a simulation to its end.
///
/// # Errors
///
/// If EC2 refuses the start of the simulation.
pub fn run(setup: &Setup, strategy: Strategy) -> Result<Outcome, SetupError> {
    Ok(Run::new(setup, Daemons::Of(strategy))?.played()?.finish(strategy))
}

/// What pods ask of each node if every pod gets its address at its arrival. Nodes by age.
///
/// # Errors
///
/// If EC2 refuses the start of the simulation.
pub fn loads(setup: &Setup) -> Result<Vec<NodeLoad>, SetupError> {
    Ok(Run::new(setup, Daemons::Oracles)?.played()?.loads())
}

/// An event of the simulation.
#[derive(Debug)]
enum SimEvent {
    /// A node of the warm-up starts.
    NodeStarts,
    /// The trace begins, and with it the score.
    TraceBegins,
    /// The step with this index in the trace happens.
    Step(usize),
    /// A daemon gets an input.
    Tell { node: usize, input: Input },
    /// A request leaves a node.
    Call { node: usize, tag: u64, request: Box<Request>, attempt: Attempt },
    /// A daemon's answer to an Add reaches the runtime.
    Answered { sandbox: SandboxId, answer: Result<Ipv4Addr, &'static str> },
    /// The kubelet starts a pod's sandbox, perhaps again.
    Sandbox { pod: usize },
    /// The API server shows a node the pods that are bound to it.
    News { node: usize },
    /// The plugin gives up waiting.
    GivenUp { sandbox: SandboxId },
    /// A pod ends by itself.
    PodEnds { pod: usize },
    /// The instance of a drained node ends.
    InstanceEnds { node: usize },
    /// A scheduled change happens at EC2 for which a node may wait.
    CloudWakes,
    /// A point is added to the curves.
    Sample,
}

/// A node that has started.
struct Node<'a> {
    spec: &'a NodeSpec,
    site: Site,
    daemon: Box<dyn Daemon>,
    state: NodeState,
    life: Life,
    retry_quota: RetryQuota,
    /// The pods scheduled to it.
    pods: BTreeSet<usize>,
}

/// The moments of a node, as far as they have come.
#[derive(Debug, Clone, Copy)]
struct Life {
    started: Timestamp,
    /// What it held at the start of the trace, or at its own.
    held: Holding,
    drained: Option<Timestamp>,
    ended: Option<Timestamp>,
}

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeState {
    Starting,
    Ready,
    Draining,
    Gone,
}

struct Run<'a> {
    setup: &'a Setup,
    daemons: Daemons,
    now: Timestamp,
    end: Timestamp,
    events: EventQueue<SimEvent>,
    cloud: Cloud,
    nodes: Vec<Node<'a>>,
    pods: Vec<Pod>,
    /// Pods that wait for a place.
    queue: VecDeque<usize>,
    /// Nodes with a place, sorted by their number of pods.
    open: BTreeSet<(usize, usize)>,
    /// The pod of each address.
    owners: BTreeMap<Ipv4Addr, usize>,
    /// Devices that nodes wait for, by the ENI's primary address.
    awaited: BTreeMap<Ipv4Addr, (usize, EniId)>,
    cloud_wakes_at: Option<Timestamp>,
    rollout: kubelet::Rollout,
    kubelet: Rng,
    sdk: Rng,
    tally: Tally,
    bound: Option<Bound>,
}

impl<'a> Run<'a> {
    fn new(setup: &'a Setup, daemons: Daemons) -> Result<Self, SetupError> {
        let start = Timestamp::default() + setup.warm_up;
        Ok(Self {
            setup,
            daemons,
            now: Timestamp::default(),
            end: start + setup.lasts,
            events: EventQueue::default(),
            cloud: Cloud::new(&setup.vpc, setup.seed)?,
            nodes: Vec::new(),
            pods: Vec::new(),
            queue: VecDeque::new(),
            open: BTreeSet::new(),
            owners: BTreeMap::new(),
            awaited: BTreeMap::new(),
            cloud_wakes_at: None,
            rollout: kubelet::Rollout::default(),
            kubelet: Rng::with_stream(setup.seed, KUBELET),
            sdk: Rng::with_stream(setup.seed, SDK),
            tally: Tally::new(start),
            bound: None,
        })
    }

    /// Adds the events that are known beforehand.
    fn plan_ahead(&mut self) {
        let (zero, start) = (Timestamp::default(), Timestamp::default() + self.setup.warm_up);
        for n in 0..self.setup.nodes {
            let at = zero + self.setup.warm_up / 2 / self.setup.nodes * n;
            self.events.push(at, SimEvent::NodeStarts);
        }
        self.events.push(start, SimEvent::TraceBegins);
        for (place, step) in self.setup.trace.iter().enumerate() {
            self.events.push(start + step.at, SimEvent::Step(place));
        }
        self.events.push(start, SimEvent::Sample);
    }

    fn played(mut self) -> Result<Self, SetupError> {
        self.plan_ahead();
        while let Some((at, event)) = self.events.pop(self.end) {
            self.pass_time_until(at);
            self.handle(event)?;
        }
        self.pass_time_until(self.end);
        Ok(self)
    }

    fn pass_time_until(&mut self, at: Timestamp) {
        self.tally.pass_time(self.now, at, self.cloud.n_held());
        self.now = at;
    }

    fn handle(&mut self, event: SimEvent) -> Result<(), SetupError> {
        match event {
            SimEvent::NodeStarts => self.start_node()?,
            SimEvent::TraceBegins => self.begin_trace()?,
            SimEvent::Step(place) => self.step(&self.setup.trace[place].action)?,
            SimEvent::Tell { node, input } => self.tell(node, input),
            SimEvent::Call { node, tag, request, attempt } => {
                self.call(node, tag, request, attempt);
            }
            SimEvent::Answered { sandbox, answer } => self.answered(sandbox, answer),
            SimEvent::Sandbox { pod } => self.start_sandbox(pod),
            SimEvent::News { node } => self.tell_of_bound(node),
            SimEvent::GivenUp { sandbox } => self.give_up(sandbox),
            SimEvent::PodEnds { pod } => self.delete_pod(pod),
            SimEvent::InstanceEnds { node } => self.end_instance(node),
            SimEvent::CloudWakes => self.look_for_devices(),
            SimEvent::Sample => self.sample(),
        }
        Ok(())
    }

    fn begin_trace(&mut self) -> Result<(), SetupError> {
        self.cloud.forget_calls();
        for node in &mut self.nodes {
            node.life.held = self.cloud.holding(&node.site.instance);
        }
        let there = self.capacities();
        let joining = self.joining_capacities()?;
        self.bound = Bound::of_burst(self.setup, there, &joining);
        Ok(())
    }

    fn push_in(&mut self, span: Duration, event: SimEvent) {
        self.events.push(self.now + span, event);
    }

    /// Gives a daemon an input and executes its commands.
    fn tell(&mut self, node: usize, input: Input) {
        let found = &mut self.nodes[node];
        if found.state == NodeState::Gone {
            return;
        }
        let commands = found.daemon.handle(input, self.now);
        let is_ready = found.state == NodeState::Starting && found.daemon.ready(self.now);
        for command in commands {
            self.carry_out(node, command);
        }
        if is_ready {
            self.nodes[node].state = NodeState::Ready;
            self.tally.node_ready(self.now);
            self.note_place(node);
            self.schedule();
        }
    }

    fn carry_out(&mut self, node: usize, command: Command) {
        match command {
            Command::Answer { sandbox, answer, after } => {
                self.push_in(after, SimEvent::Answered { sandbox, answer });
            }
            Command::Call { tag, request, retryer } => {
                self.call(node, tag, request, Attempt::first(retryer));
            }
            Command::Timer { timer, at } => {
                let at = at.max(self.now);
                self.events.push(at, SimEvent::Tell { node, input: Input::Timer(timer) });
            }
            Command::AwaitDevice { eni, address } => self.await_device(node, eni, address),
            Command::ReadMetadata { tag } => {
                let enis = self.cloud.metadata(&self.nodes[node].site.instance, self.now);
                let n_enis = u32::try_from(enis.len()).expect("an instance has few ENIs");
                let n_paths = METADATA_PATHS.0 + METADATA_PATHS.1 * n_enis;
                let input = Input::Metadata { tag, enis };
                self.push_in(METADATA_READ * n_paths, SimEvent::Tell { node, input });
            }
        }
    }

    fn await_device(&mut self, node: usize, eni: EniId, address: Ipv4Addr) {
        let is_there = self.cloud.reaches(&self.nodes[node].site.instance, address, self.now);
        if !is_there {
            self.awaited.insert(address, (node, eni.clone()));
            self.watch_cloud();
        }
        self.tell_of_device(node, eni, is_there);
    }

    fn tell_of_device(&mut self, node: usize, eni: EniId, is_there: bool) {
        let input = Input::Device { eni, is_there };
        self.push_in(DEVICE_SETUP, SimEvent::Tell { node, input });
    }

    /// The kernel notifies the host when a device appears.
    fn look_for_devices(&mut self) {
        if self.cloud_wakes_at != Some(self.now) {
            return;
        }
        self.cloud_wakes_at = None;
        self.cloud.advance(self.now);
        let (cloud, nodes, now) = (&mut self.cloud, &self.nodes, self.now);
        let has_come = |address: &Ipv4Addr, (node, _): &mut (usize, EniId)| {
            cloud.reaches(&nodes[*node].site.instance, *address, now)
        };
        let come: Vec<_> = self.awaited.extract_if(.., has_come).collect();
        for (_, (node, eni)) in come {
            self.tell_of_device(node, eni, true);
        }
        self.watch_cloud();
    }

    /// Schedules a wake-up for EC2's next change, if a node waits for a device.
    fn watch_cloud(&mut self) {
        let wakes_at = self.cloud.advance(self.now).filter(|_| !self.awaited.is_empty());
        let sooner = wakes_at.filter(|at| self.cloud_wakes_at.is_none_or(|before| *at < before));
        if let Some(at) = sooner {
            self.cloud_wakes_at = Some(at);
            self.events.push(at, SimEvent::CloudWakes);
        }
    }

    fn sample(&mut self) {
        self.tally.sample(self.now, self.cloud.n_held());
        self.push_in(Tally::spacing(self.setup.lasts), SimEvent::Sample);
    }

    fn finish(self, strategy: Strategy) -> Outcome {
        let loads = self.loads();
        let waiting = self
            .pods
            .iter()
            .filter(|pod| pod.is_waiting())
            .map(|pod| pod.created + self.setup.start.lead);
        let waiting: Vec<_> = waiting.collect();
        let calls = self.cloud.calls();
        let score = self.tally.finish(strategy, calls, self.bound, &waiting, self.end);
        let there = self.nodes.iter().filter(|node| node.state != NodeState::Gone);
        let blocks = there.map(|node| self.cloud.blocks(&node.site.instance)).collect();
        Outcome { score, blocks, loads }
    }

    fn loads(&self) -> Vec<NodeLoad> {
        let begins = Timestamp::default() + self.setup.warm_up;
        let load = |node: &Node<'_>| NodeLoad {
            limits: node.site.limits,
            policy: node.site.policy.clone(),
            from: node.life.started.max(begins),
            joined: node.life.started >= begins,
            held: node.life.held,
            drained: node.life.drained,
            until: node.life.ended.unwrap_or(self.end),
            stays: Vec::new(),
        };
        let mut loads: Vec<_> = self.nodes.iter().map(load).collect();
        for pod in &self.pods {
            if let (Some(node), Some(stay)) = (pod.node, pod.stay(self.end)) {
                loads[node].stays.push(stay);
            }
        }
        loads
    }
}
