//! One node: an engine, its EC2, its log and its host. Each of them answers when the test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::{Block, BlockKind, Family};
use ipam::call::{Action, CallId, CallOutput, Ec2Call, EniFacts};
use ipam::connection_tracking::ConnectionTracking;
use ipam::eni_config::EniConfigAnswer;
use ipam::event::{
    Answer, Effect, Event, HostPicture, LinkState, MetadataEni, NodeLocal, Reason, Refusal,
    RequestId, SaveSeq,
};
use ipam::id::{AttachmentKey, BootId, EniId, InstanceId, Pod};
use ipam::kernel_report::{AddressedLink, KernelReport, PodLink};
use ipam::policy::{
    EgressPolicy, Families, FamilyPolicy, Limits, NatPolicy, Needs, Node as NodeFacts, Placement,
    Policy, Provisioning, SourcePorts, Targets, Timing, WarmSettings,
};
use ipam::record::{Assignment, Change, PodIpv6, Record, Via};
use ipam::time::Timestamp;
use ipam::view::{Counts, PoolView};
use ipam::{Boot, Engine};

use crate::ec2::{Ec2, mac_of};

pub(crate) const INSTANCE: &str = "i-0123456789abcdef0";
pub(crate) const OURS: (&str, &str) = ("node.k8s.amazonaws.com/instance_id", INSTANCE);

/// The blocks of each ENI, as the metadata service shows them.
pub(crate) type MetadataBlocks = BTreeMap<EniId, BTreeSet<Block>>;

/// `(ENIs, addresses per ENI)` of the instance types that the tests name.
pub(crate) fn limits(instance_type: &str) -> Limits {
    let (enis, addresses_per_eni) = match instance_type {
        "t3.small" => (3, 4),
        "m5.large" => (3, 10),
        "m5.xlarge" => (4, 15),
        "p3dn.24xlarge" => (15, 50),
        other => panic!("no limits for {other}"),
    };
    Limits { enis, addresses_per_eni, prefixes: true }
}

/// A [`Policy`] without its groups, so that a test names only the settings that it is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setup {
    pub(crate) kind: BlockKind,
    /// Whether pods on IPv4 have IPv6 addresses too, and what they need to start.
    pub(crate) dual: Option<Needs>,
    pub(crate) targets: Targets,
    pub(crate) placement: Placement,
    pub(crate) provisioning: Provisioning,
    pub(crate) max_enis: Option<u16>,
    pub(crate) max_pods: u32,
    pub(crate) delegated_prefixes: Option<u16>,
    pub(crate) connection_tracking: ConnectionTracking,
    pub(crate) pod_ipv6: PodIpv6,
    pub(crate) cooldown: Duration,
    pub(crate) add_wait: Duration,
    pub(crate) grow_delay: Duration,
    pub(crate) shrink_delay: Duration,
    pub(crate) min_eni_age: Duration,
    pub(crate) leak_age: Option<Duration>,
    /// The family that pods reach by a node-local address.
    pub(crate) egress: Option<Family>,
}

impl From<Setup> for Policy {
    fn from(setup: Setup) -> Policy {
        let Setup {
            kind, dual, targets, placement, max_enis, max_pods, delegated_prefixes, ..
        } = setup;
        let family = FamilyPolicy { targets, ..FamilyPolicy::new(kind, WarmSettings::default()) };
        let timing = Timing {
            cooldown: setup.cooldown,
            add_wait: setup.add_wait,
            grow_delay: setup.grow_delay,
            shrink_delay: setup.shrink_delay,
            min_eni_age: setup.min_eni_age,
            leak_age: setup.leak_age,
        };
        let families = match dual {
            None => Families::single(family),
            Some(needs) => Families::dual(family, needs),
        };
        let egress = EgressPolicy { to: setup.egress, ports: SourcePorts::Random };
        Policy {
            families,
            placement,
            provisioning: setup.provisioning,
            max_enis,
            max_pods,
            delegated_prefixes,
            connection_tracking: setup.connection_tracking,
            mtu: 9001,
            pod_ipv6: setup.pod_ipv6,
            nat: NatPolicy { egress, ..NatPolicy::default() },
            timing,
        }
    }
}

pub(crate) fn policy(kind: BlockKind, settings: WarmSettings) -> Setup {
    Setup {
        kind,
        dual: None,
        targets: Targets::resolve(kind, settings),
        placement: Placement::LikePrimary,
        provisioning: Provisioning::WhileSchedulable,
        max_enis: None,
        max_pods: 737,
        delegated_prefixes: None,
        connection_tracking: ConnectionTracking::default(),
        pod_ipv6: PodIpv6::AsItIs,
        cooldown: Duration::from_secs(30),
        add_wait: Duration::from_secs(10),
        grow_delay: Duration::ZERO,
        shrink_delay: Duration::from_secs(30),
        min_eni_age: Duration::from_secs(60),
        leak_age: None,
        egress: None,
    }
}

/// `WARM_IP_TARGET` and `MINIMUM_IP_TARGET` with single addresses; both may be 0 here.
pub(crate) fn warm_ip(warm_ip: u32, minimum_ip: u32) -> Setup {
    let targets = Targets::Ip { warm: warm_ip, minimum: minimum_ip };
    Setup { targets, ..policy(BlockKind::V4Address, WarmSettings::default()) }
}

/// Short access to an assignment that has one address on an ENI.
pub(crate) trait OnEni {
    fn address(&self) -> IpAddr;
    fn eni(&self) -> EniId;
    fn device_index(&self) -> u16;
}

impl OnEni for Assignment {
    fn address(&self) -> IpAddr {
        self.addresses.first().address
    }

    fn eni(&self) -> EniId {
        self.addresses.first().via.eni().clone()
    }

    fn device_index(&self) -> u16 {
        match self.addresses.first().via {
            Via::Eni { index, .. } => index,
            Via::Branch { .. } => panic!("{self:?} is on a branch ENI"),
        }
    }
}

/// The block that holds only `address`.
pub(crate) fn single(address: IpAddr) -> Block {
    match address {
        IpAddr::V4(address) => Block::address(address),
        IpAddr::V6(_) => panic!("{address} is no block"),
    }
}

pub(crate) fn node_facts() -> NodeFacts {
    NodeFacts {
        instance: InstanceId::try_from(INSTANCE).unwrap(),
        boot: BootId("a boot".to_owned()),
        primary_mac: mac_of(0),
        subnet_cidr: Some("10.0.0.0/16".parse().unwrap()),
        instance_type: "any".to_owned(),
        cluster: Some("mine".to_owned()),
        eni_tags: BTreeMap::new(),
        manage_untagged: true,
    }
}

pub(crate) fn key(pod: usize) -> AttachmentKey {
    AttachmentKey {
        network: "aws-cni".into(),
        container: format!("c{pod}"),
        ifname: "eth0".to_owned(),
    }
}

/// A node whose EC2, log and host answer only on request, or all together with [`settle`](Self::settle).
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) boot: Boot,
    pub(crate) engine: Engine,
    pub(crate) ec2: Ec2,
    pub(crate) now: Timestamp,
    /// The durable changes.
    pub(crate) log: Vec<Change>,
    pub(crate) saves: VecDeque<(SaveSeq, Vec<Change>)>,
    pub(crate) calls: VecDeque<(CallId, Ec2Call)>,
    pub(crate) host: Option<HostPicture>,
    /// The host network that the engine wants, whether or not the host has answered.
    pub(crate) picture: Option<HostPicture>,
    /// The calls in the order in which they were made, each with its reason.
    pub(crate) reasons: Vec<(Ec2Call, Reason)>,
    /// What was asked of the metadata service in place of EC2.
    pub(crate) metadata_reads: Vec<Action>,
    /// The links that the engine wants removed and that still exist.
    pub(crate) to_take_down: BTreeMap<IpAddr, PodLink>,
    /// Addresses of the host, each with its link. They are part of the next report.
    pub(crate) on_host: BTreeMap<IpAddr, AddressedLink>,
    /// The addresses of the last order to remove some from the host.
    pub(crate) off_host: BTreeMap<IpAddr, String>,
    /// The pods of the last order to restore what the kernel lacks.
    pub(crate) restored: BTreeMap<AttachmentKey, Assignment>,
    /// The addresses whose connections the kernel was to forget, and when.
    pub(crate) forgotten_connections: Vec<(Timestamp, BTreeSet<IpAddr>)>,
    /// The kernel's routes: the attachment whose link each address is routed to.
    pub(crate) links: BTreeMap<IpAddr, AttachmentKey>,
    /// Whether each link carries its attachment's mark. Links of amazon-vpc-cni-k8s carry none.
    pub(crate) links_are_marked: bool,
    /// Whether the kernel is read when the engine asks for it.
    pub(crate) kernel_answers: bool,
    /// Whether the engine has asked for the kernel since it was last read on its order.
    pub(crate) kernel_is_asked: bool,
    /// Attachments whose network namespace is gone.
    pub(crate) ended: BTreeSet<AttachmentKey>,
    /// The sandboxes that the runtime lists; `None` if it does not answer.
    pub(crate) listed: Option<BTreeSet<String>>,
    /// EC2's answer to each describe at the moment when the call was made.
    pub(crate) early: BTreeMap<CallId, CallOutput>,
    pub(crate) replies: BTreeMap<RequestId, Answer>,
    /// The answered requests, in the order of their answers.
    pub(crate) answered: Vec<RequestId>,
    /// The cluster's last answer, which the daemon keeps for the next start.
    eni_config: Option<EniConfigAnswer>,
    next_request: u64,
}

impl Node {
    /// A node that has just started and made its first calls.
    pub(crate) fn start(limits: Limits, policy: impl Into<Policy>) -> Self {
        Self::start_with(Ec2::new(limits), limits, policy)
    }

    pub(crate) fn start_with(ec2: Ec2, limits: Limits, policy: impl Into<Policy>) -> Self {
        let (policy, record) = (policy.into(), Record::default());
        let boot = Boot { node: node_facts(), limits, policy, record };
        let now = Timestamp::from_millis(1_000_000);
        let (engine, effects) = Engine::new(boot.clone(), now);
        let mut node = Self {
            boot,
            engine,
            ec2,
            now,
            log: Vec::new(),
            saves: VecDeque::new(),
            calls: VecDeque::new(),
            host: None,
            picture: None,
            reasons: Vec::new(),
            metadata_reads: Vec::new(),
            to_take_down: BTreeMap::new(),
            on_host: BTreeMap::new(),
            off_host: BTreeMap::new(),
            restored: BTreeMap::new(),
            forgotten_connections: Vec::new(),
            links: BTreeMap::new(),
            links_are_marked: true,
            kernel_answers: true,
            kernel_is_asked: false,
            ended: BTreeSet::new(),
            listed: None,
            early: BTreeMap::new(),
            replies: BTreeMap::new(),
            answered: Vec::new(),
            eni_config: None,
            next_request: 0,
        };
        node.absorb(effects);
        node
    }

    /// A node that has settled.
    pub(crate) fn settled(limits: Limits, policy: impl Into<Policy>) -> Self {
        let mut node = Self::start(limits, policy);
        node.settle();
        node
    }

    pub(crate) fn record(&self) -> Record {
        let mut record = Record::default();
        for change in &self.log {
            record.apply(change).unwrap();
        }
        record
    }

    /// The process dies, and another starts from the durable changes.
    pub(crate) fn restart(&mut self) {
        let record = self.record();
        self.saves.clear();
        self.calls.clear();
        (self.host, self.picture) = (None, None);
        let (engine, effects) = Engine::new(Boot { record, ..self.boot.clone() }, self.now);
        self.engine = engine;
        self.absorb(effects);
        if let Some(answer) = self.eni_config.clone() {
            self.send(Event::EniConfig(answer));
        }
        self.report_kernel();
    }

    /// The record is lost, the process dies, and another starts.
    pub(crate) fn restart_without_record(&mut self) {
        self.log.clear();
        self.saves.clear();
        self.restart();
    }

    /// The kernel's state is reported to the engine.
    pub(crate) fn report_kernel(&mut self) {
        self.report_kernel_from(self.now);
    }

    /// As [`report_kernel`](Self::report_kernel), by a report that began at `begun`.
    pub(crate) fn report_kernel_from(&mut self, begun: Timestamp) {
        let mark = |key: &AttachmentKey| self.links_are_marked.then(|| key.mark());
        let seen = |key: &AttachmentKey| PodLink { name: key.to_string(), mark: mark(key) };
        let links = self.links.iter().map(|(address, key)| (*address, seen(key))).collect();
        let has_link = |key: &&AttachmentKey| self.links.values().any(|o| o.mark() == key.mark());
        let assigned = self.engine.record().assignments().keys();
        let ended = assigned.filter(|key| key.is_by_link() || self.ended.contains(*key));
        let vanished = ended.filter(|key| !has_link(key)).cloned().collect();
        let listed = self.listed.clone();
        // The engine repeats the removals that failed.
        self.to_take_down.clear();
        self.restored.clear();
        self.off_host.clear();
        let host_addresses = self.on_host.clone();
        let report = KernelReport { begun, links, host_addresses, vanished, listed };
        self.send(Event::Kernel(report));
    }

    /// What a correct metadata service shows.
    pub(crate) fn metadata(&self) -> MetadataBlocks {
        let attached = self.ec2.enis.values().filter(|eni| eni.attachment.is_some());
        attached
            .map(|eni| (eni.id.clone(), eni.blocks.iter().copied().chain(own_block(eni)).collect()))
            .collect()
    }

    /// Sends these blocks and the true security groups, as what the metadata service shows. Checks that no call follows
    /// from it except a describe; calls that give something back may wait for that describe. A block that the service shows
    /// again may serve a pod or be delegated.
    pub(crate) fn hint(&mut self, shown: MetadataBlocks) {
        let groups = |id: &EniId| self.ec2.enis.get(id).map(|eni| eni.security_groups.clone());
        let shown = shown.into_iter().map(|(id, blocks)| {
            let security_groups = groups(&id).unwrap_or_default();
            (id, MetadataEni { blocks, security_groups })
        });
        let shown = shown.collect();
        let is_call = |it: &&Effect| match it {
            Effect::Call { call, .. } => *call != Ec2Call::DescribeEnis,
            Effect::Save { changes, .. } => {
                changes.iter().any(|change| matches!(change, Change::Intended { .. }))
            }
            _ => false,
        };
        let without = self.engine.clone().handle(Event::Tick, self.now);
        let effects = self.engine.handle(Event::Hint(shown), self.now);
        let n_calls = |effects: &[Effect]| effects.iter().filter(is_call).count();
        assert!(n_calls(&effects) <= n_calls(&without), "{effects:?}\n{without:?}");
        self.absorb(effects);
    }

    /// As [`restart`](Self::restart), with other settings.
    pub(crate) fn restart_with(&mut self, policy: impl Into<Policy>) {
        self.boot.policy = policy.into();
        self.restart();
    }

    /// The user wants something else, now and after a restart.
    pub(crate) fn change_policy(&mut self, policy: impl Into<Policy>) {
        self.boot.policy = policy.into();
        self.send(Event::Policy(self.boot.policy.clone()));
    }

    /// The cluster says what the ENIConfig of this node is, now and after a restart.
    pub(crate) fn change_eni_config(&mut self, answer: EniConfigAnswer) {
        self.eni_config = Some(answer.clone());
        self.send(Event::EniConfig(answer));
    }

    /// EC2 allows something else, now and after a restart.
    pub(crate) fn change_limits(&mut self, limits: Limits) {
        self.boot.limits = limits;
        self.send(Event::Limits(limits));
    }

    pub(crate) fn send(&mut self, event: Event) {
        let effects = self.engine.handle(event, self.now);
        self.absorb(effects);
        if self.kernel_is_asked && self.kernel_answers {
            self.kernel_is_asked = false;
            self.report_kernel();
        }
    }

    fn absorb(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Save { seq, changes } => {
                    assert!(!changes.is_empty(), "an empty save");
                    self.saves.push_back((seq, changes));
                }
                Effect::Reply { request, answer } => {
                    let before = self.replies.insert(request, answer);
                    assert_eq!(before, None, "{request:?} is answered twice");
                    self.answered.push(request);
                }
                Effect::Call { id, call, why } => {
                    self.reasons.push((call.clone(), why));
                    let same = |(_, other): &&(_, Ec2Call)| {
                        other.eni().is_some() && other.eni() == call.eni()
                    };
                    let other = self.calls.iter().find(same);
                    assert_eq!(other, None, "{call} while another call changes the ENI");
                    if call == Ec2Call::DescribeEnis {
                        let enis = self.ec2.enis.values().cloned().collect();
                        self.early.insert(id, CallOutput::Enis(enis));
                    }
                    self.calls.push_back((id, call));
                }
                Effect::ReadMetadata { id, call } => {
                    assert!(call.reads(), "{call} changes something");
                    self.metadata_reads.push(call.action());
                    self.calls.push_back((id, call));
                }
                Effect::SyncHost(picture) => {
                    self.picture = Some(picture.clone());
                    self.host = Some(picture);
                }
                Effect::TakeDown(links) => self.to_take_down.extend(links),
                Effect::ReadKernel => self.kernel_is_asked = true,
                Effect::RestorePods(pods) => self.restored = pods,
                Effect::RemoveHostAddresses(addresses) => self.off_host = addresses,
                Effect::ForgetConnections(addresses) => {
                    self.forgotten_connections.push((self.now, addresses))
                }
            }
        }
    }

    pub(crate) fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    /// Sends an Add whose caller waits for a minute.
    pub(crate) fn add(&mut self, pod: usize) -> RequestId {
        self.add_until(pod, self.now + Duration::from_secs(60))
    }

    pub(crate) fn add_until(&mut self, pod: usize, deadline: Timestamp) -> RequestId {
        let request = self.request();
        let pod_facts = Pod { name: format!("pod-{pod}"), ..Pod::default() };
        let netns = format!("/run/netns/{pod}");
        let (key, node_local) = (key(pod), NodeLocal::Taken);
        self.send(Event::Add { request, key, pod: pod_facts, netns, node_local, deadline });
        request
    }

    pub(crate) fn del(&mut self, pod: usize) -> RequestId {
        let request = self.request();
        self.send(Event::Del { request, key: key(pod) });
        request
    }

    pub(crate) fn cancel(&mut self, request: RequestId) {
        self.send(Event::Cancel { request });
    }

    /// Sends a GC of the tests' network in which only these pods are valid.
    pub(crate) fn gc(&mut self, alive: &[usize]) -> RequestId {
        let request = self.request();
        let valid = alive.iter().map(|pod| (key(*pod).container, key(*pod).ifname)).collect();
        let (network, adding) = ("aws-cni".into(), BTreeSet::new());
        self.send(Event::Gc { request, network, valid, adding });
        request
    }

    /// The oldest save ends.
    pub(crate) fn end_save(&mut self, result: Result<(), String>) {
        let Some((seq, changes)) = self.saves.pop_front() else { return };
        if result.is_ok() {
            self.log.extend(changes);
        }
        self.send(Event::Saved { seq, result });
    }

    pub(crate) fn save_all(&mut self) {
        while !self.saves.is_empty() {
            self.end_save(Ok(()));
        }
    }

    /// EC2 carries out the call at `place` and answers.
    pub(crate) fn end_call(&mut self, place: usize) -> Ec2Call {
        let (id, call) = self.calls.remove(place).expect("a call at this place");
        let result = self.ec2.execute(&call);
        self.send(Event::CallDone { id, result });
        call
    }

    pub(crate) fn end_sync(&mut self, state: &LinkState) {
        for eni in self.host.take().into_iter().flat_map(|picture| picture.enis) {
            self.send(Event::EniLink { eni: eni.eni, link: state.clone() });
        }
    }

    /// Everything under way succeeds at this very moment, and so does everything that follows from it.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.save_all();
            if !self.calls.is_empty() {
                self.end_call(0);
            } else if self.host.is_some() {
                self.end_sync(&LinkState::Ready);
            } else if self.saves.is_empty() {
                return;
            }
        }
        panic!("the node does not come to rest: {:#?}", self.view());
    }

    /// Time passes, and everything under way succeeds at once.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle();
        while let Some(at) = self.engine.wake_at().filter(|at| *at <= end) {
            assert!(at > self.now, "the engine wakes at {at:?}, but it is {:?}", self.now);
            self.now = at;
            self.send(Event::Tick);
            self.settle();
        }
        self.now = end;
    }

    /// Time passes and saves succeed, but no call ends.
    pub(crate) fn pass_unsettled(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.engine.wake_at().filter(|at| *at <= end) {
            self.now = at;
            self.send(Event::Tick);
            self.save_all();
        }
        self.now = end;
    }

    /// Time passes until the node wants to save something.
    pub(crate) fn pass_until_a_save(&mut self) {
        while self.saves.is_empty() {
            self.now = self.engine.wake_at().expect("the node wants to save something");
            self.send(Event::Tick);
        }
    }

    /// The calls that wait for EC2's answer, as text.
    pub(crate) fn under_way(&self) -> Vec<String> {
        self.calls.iter().map(|(_, call)| call.to_string()).collect()
    }

    pub(crate) fn answer(&self, request: RequestId) -> Option<&Answer> {
        self.replies.get(&request)
    }

    pub(crate) fn granted(&self, request: RequestId) -> &Assignment {
        match self.replies.get(&request) {
            Some(Answer::Granted(assignment)) => assignment,
            other => panic!("{request:?}: {other:?}\n{:#?}", self.view().blocked),
        }
    }

    pub(crate) fn refused(&self, request: RequestId) -> &Refusal {
        match self.replies.get(&request) {
            Some(Answer::Refused(refusal)) => refusal,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// Adds a pod, lets the node settle, and returns its address.
    pub(crate) fn run_pod(&mut self, pod: usize) -> Assignment {
        let request = self.add(pod);
        self.settle();
        self.granted(request).clone()
    }

    pub(crate) fn view(&self) -> PoolView {
        self.engine.view(self.now)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.view().counts
    }
}

/// The ENI's own IPv4 address, as the metadata service lists it among the others.
pub(crate) fn own_block(eni: &EniFacts) -> Option<Block> {
    match eni.primary_address {
        IpAddr::V4(address) => Some(Block::address(address)),
        IpAddr::V6(_) => None,
    }
}
