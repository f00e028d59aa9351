//! A node in virtual time. Facts, limits, policy, engine and the making of calls are the daemon's own code;
//! EC2 is `vpc-sim`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws::{ConnectOptions, Ec2, Imds, Proxies};
use aws_credential_types::Credentials;
use ec2_model::fabric::FabricEni;
use ipam::call::Ec2Call;
use ipam::event::{Answer, Effect, Event, LinkState, NodeLocal, RequestId};
use ipam::id::{AttachmentKey, BootId, Pod};
use ipam::kernel_report::{KernelReport, PodLink};
use ipam::record::Record;
use ipam::time::Timestamp;
use ipam::{Boot, Engine};
use service_url::ServiceUrl;
use settings::Settings;
use tempfile::TempDir;
use vpc_sim::server::Server;

use super::super::{FILE, FactsSource, Identity, Learnt};
use super::service::{self, Chance, Shown};
use crate::cloud::Cloud;
use crate::run::make_call;
use crate::{hints, limits};

/// The instance has an IPv6 address of its own, as on any node in a subnet with IPv6.
const TOPOLOGY: &str = r#"
region: us-east-1
account: "111122223333"
clock: manual
vpcs:
  - cidrs: [10.0.0.0/16]
    ipv6_cidrs: ["2600:1f13:abc:de00::/56"]
    subnets:
      - {name: a, az: us-east-1a, cidr: 10.0.0.0/22, ipv6_cidr: "2600:1f13:abc:de00::/64"}
instances: [{type: m5.large, subnet: a, ipv6_address: "2600:1f13:abc:de00::10"}]
"#;
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// An m5.large has 27 addresses for pods.
pub(super) const MAX_PODS: u64 = 22;

/// How often what happened. `untrue`, `unserved`, `lost`, `given_back` and `dead` must stay 0.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) starts: u64,
    pub(super) by_kept_facts: u64,
    /// Starts with facts that were not true.
    untrue: u64,
    pub(super) granted: u64,
    unserved: u64,
    /// Pods whose address is no longer on record or at EC2.
    lost: u64,
    /// Calls that take a pod's address off its ENI.
    given_back: u64,
    /// Grants of an address that a pod has, or that EC2 does not have on this instance.
    dead: u64,
    calls: u64,
    /// Calls among these that follow a hint.
    pub(super) by_hints: u64,
}

pub(super) struct TestNode {
    pub(super) server: Server,
    shown: Arc<Mutex<Shown>>,
    directory: TempDir,
    imds: Imds,
    settings: Settings,
    pub(super) record: Record,
    pub(super) daemon: Option<(Engine, Ec2)>,
    pub(super) pods: BTreeMap<AttachmentKey, IpAddr>,
    waiting: BTreeMap<u64, AttachmentKey>,
    n_requests: u64,
    pub(super) chance: Chance,
    pub(super) counts: Counts,
}

impl Counts {
    /// Panics if a count that must stay 0 has not.
    pub(super) fn assert_no_harm(&self) {
        let Self {
            starts: _,
            by_kept_facts: _,
            granted: _,
            untrue,
            unserved,
            lost,
            given_back,
            dead,
            calls: _,
            by_hints: _,
        } = self;
        assert_eq!([untrue, unserved, lost, given_back, dead], [&0; 5], "{self:?}");
    }
}

impl TestNode {
    pub(super) async fn new(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("topology.yaml");
        std::fs::write(&config, TOPOLOGY).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings =
            vpc_sim::server::Settings { config, listen, imds_listen: None, fabric: false };
        let server = Server::start(&settings).await.unwrap();
        let shown = Arc::<Mutex<Shown>>::default();
        let url = service::start(Arc::clone(&shown)).await;
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Self {
            server,
            shown,
            directory,
            imds: Imds::connect_to(&url).unwrap(),
            settings: Settings::read(&variables.into_iter().collect()).unwrap(),
            record: Record::default(),
            daemon: None,
            pods: BTreeMap::new(),
            waiting: BTreeMap::new(),
            n_requests: 0,
            chance: Chance::new(1),
            counts: Counts::default(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.server.simulator().clock().now().unix_millis())
    }

    /// Sets what the metadata service shows from now on.
    pub(super) fn show(&self, shown: Shown) {
        *self.shown.lock().unwrap() = shown;
    }

    /// The metadata of a service that is right.
    pub(super) fn truth(&self) -> Shown {
        let instance = &self.server.endpoints().instances[0];
        let read =
            |path: &str| self.server.simulator().with(|model, now| model.imds(instance, path, now));
        let mut shown = Shown::new();
        let mut paths = ["/latest/meta-data/", "/latest/dynamic/"].map(str::to_owned).to_vec();
        while let Some(path) = paths.pop() {
            let Some(text) = read(&path) else { continue };
            if path.ends_with('/') {
                paths.extend(text.lines().map(|line| format!("{path}{line}")));
            }
            shown.insert(path, text);
        }
        shown
    }

    fn has(&self, address: IpAddr) -> bool {
        let found = self.server.simulator().with(|model, now| model.instance_of(address, now));
        found.as_ref() == self.server.endpoints().instances.first()
    }

    pub(super) async fn start(&mut self) {
        let boot = BootId("a".to_owned());
        let file = self.directory.path().join(FILE);
        let identity = Identity { imds: self.imds.clone(), boot: boot.clone(), file };
        let Learnt { facts, source } = identity.learn().await;
        self.counts.starts += 1;
        self.counts.by_kept_facts += u64::from(source == FactsSource::Kept);
        let instance = self.server.endpoints().instances[0].as_str();
        let names = [&facts.instance_type, &facts.region, &facts.availability_zone];
        let is_true = names == ["m5.large", "us-east-1", "us-east-1a"]
            && facts.instance.as_str() == instance
            && facts.primary_mac.to_string() == self.enis()[0].mac.to_string();
        self.counts.untrue += u64::from(!is_true);
        let ec2 = Ec2::connect(ConnectOptions {
            region: facts.region.clone(),
            endpoint: ServiceUrl::parse(&self.server.endpoints().ec2).ok(),
            proxies: Proxies::default(),
            roots: aws::Roots::System,
            instance: facts.instance.clone(),
            vpc: facts.vpc.clone(),
            primary_mac: facts.primary_mac,
            availability_zone: facts.availability_zone.clone(),
            http_timeout: Duration::from_secs(10),
            credentials: Some(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test")),
        });
        let ec2 = ec2.await.unwrap();
        let learnt = limits::learn(&ec2, &facts.instance_type, self.directory.path(), source).await;
        let known = learnt.known;
        let vcpus = settings::known_vcpus(&facts.instance_type);
        let boot = Boot {
            node: crate::node::node(&self.settings, &facts, &boot),
            limits: known.limits,
            policy: settings::policy(&self.settings, known.limits, vcpus).unwrap(),
            record: self.record.clone(),
        };
        let now = self.now();
        let (engine, effects) = Engine::new(boot, now);
        self.daemon = Some((engine, ec2));
        let ranges = self.imds.vpc_ranges(facts.primary_mac).await;
        let ranges = ranges.ok().map(Event::VpcRanges);
        let events = [self.kernel()].into_iter().chain(ranges).collect();
        self.follow(effects, events, usize::MAX).await;
        for key in std::mem::take(&mut self.waiting).into_values() {
            self.add(key, usize::MAX).await;
        }
    }

    /// A report of the kernel, which is right.
    fn kernel(&self) -> Event {
        let seen = |key: &AttachmentKey| PodLink { name: key.to_string(), mark: Some(key.mark()) };
        let links = self.pods.iter().map(|(key, address)| (*address, seen(key))).collect();
        Event::Kernel(KernelReport { begun: self.now(), links, ..KernelReport::default() })
    }

    /// Carries out effects and handles the events that follow. The daemon dies after `n_effects`.
    async fn follow(&mut self, effects: Vec<Effect>, events: Vec<Event>, n_effects: usize) {
        let Some((mut engine, ec2)) = self.daemon.take() else { return };
        let (mut effects, mut events) = (VecDeque::from(effects), VecDeque::from(events));
        let mut n_done = 0;
        loop {
            if let Some(effect) = effects.pop_front() {
                n_done += 1;
                if n_done > n_effects {
                    return;
                }
                self.carry_out(effect, &ec2, &mut events).await;
            } else if let Some(event) = events.pop_front() {
                effects.extend(engine.handle(event, self.now()));
            } else {
                break;
            }
        }
        self.daemon = Some((engine, ec2));
    }

    async fn carry_out(&mut self, effect: Effect, ec2: &Ec2, events: &mut VecDeque<Event>) {
        match effect {
            Effect::Save { seq, changes } => {
                changes.iter().for_each(|change| self.record.apply(change).unwrap());
                events.push_back(Event::Saved { seq, result: Ok(()) });
            }
            Effect::Reply { request, answer: Answer::Granted(assignment) } => {
                let Some(key) = self.waiting.remove(&request.0) else { return };
                let granted = assignment.addresses.first().address;
                let is_free = self.pods.values().all(|address| *address != granted);
                self.counts.granted += 1;
                self.counts.dead += u64::from(!is_free || !self.has(granted));
                self.pods.insert(key, granted);
            }
            Effect::Reply { request, answer: Answer::Refused(_) } => {
                self.waiting.remove(&request.0);
                self.counts.unserved += 1;
            }
            Effect::Reply { answer: Answer::Released(_) | Answer::Collected(_), .. } => {}
            Effect::Call { id, call, why: _ } => {
                self.counts.calls += 1;
                self.counts.given_back += u64::from(self.takes_from_a_pod(&call));
                events.push_back(make_call(Cloud::Ec2(ec2.clone()), id, call).await);
            }
            Effect::SyncHost(picture) => {
                let enis = picture.enis.into_iter();
                events.extend(
                    enis.map(|eni| Event::EniLink { eni: eni.eni, link: LinkState::Ready }),
                );
            }
            Effect::ReadKernel => events.push_back(self.kernel()),
            Effect::ReadMetadata { .. }
            | Effect::TakeDown(_)
            | Effect::RestorePods(_)
            | Effect::RemoveHostAddresses(_)
            | Effect::ForgetConnections(_) => {}
        }
    }

    fn takes_from_a_pod(&self, call: &Ec2Call) -> bool {
        match call {
            Ec2Call::Unassign { blocks, .. } => {
                self.pods.values().any(|ip| blocks.iter().any(|block| block.contains(*ip)))
            }
            Ec2Call::DetachEni { eni, .. } | Ec2Call::DeleteEni { eni } => {
                let held = |key| self.record.assignments().get(key);
                self.pods.keys().any(|key| {
                    held(key).is_some_and(|held| held.addresses.first().via.eni() == eni)
                })
            }
            _ => false,
        }
    }

    pub(super) async fn add(&mut self, key: AttachmentKey, n_effects: usize) {
        self.n_requests += 1;
        self.waiting.insert(self.n_requests, key.clone());
        let deadline = self.now() + MINUTE;
        let request = RequestId(self.n_requests);
        let (pod, netns) = (Pod::default(), String::new());
        let node_local = NodeLocal::NotTaken;
        let add = Event::Add { request, key, pod, netns, node_local, deadline };
        self.follow(vec![], vec![add], n_effects).await;
    }

    /// Sends the running daemon a hint, as it gets one each minute.
    pub(super) async fn hint(&mut self) {
        let Ok(enis) = hints::attached(&self.imds).await else { return };
        let before = self.counts.calls;
        self.follow(vec![], vec![Event::Hint(enis)], usize::MAX).await;
        self.counts.by_hints += self.counts.calls - before;
    }

    /// The blocks that the metadata service shows, as text.
    pub(super) async fn hinted_blocks(&self) -> Vec<String> {
        let enis = hints::attached(&self.imds).await.unwrap();
        enis.into_values().flat_map(|eni| eni.blocks).map(|block| block.to_string()).collect()
    }

    /// On how many blocks the metadata service differs from EC2's later answer.
    pub(super) fn refuted_hints(&self) -> usize {
        let (engine, _) = self.daemon.as_ref().unwrap();
        engine.view(self.now()).refuted_hints.values().map(BTreeSet::len).sum()
    }

    pub(super) async fn add_pod(&mut self) {
        let container = format!("c{}", self.n_requests);
        let key = AttachmentKey { network: "aws-cni".into(), container, ifname: "eth0".to_owned() };
        self.add(key, usize::MAX).await;
    }

    pub(super) async fn delete_pod(&mut self) {
        let which = usize::try_from(self.chance.below(MAX_PODS)).unwrap() % self.pods.len();
        let key = self.pods.keys().nth(which).unwrap().clone();
        self.pods.remove(&key);
        self.n_requests += 1;
        let request = RequestId(self.n_requests);
        self.follow(vec![], vec![Event::Del { request, key }], usize::MAX).await;
    }

    /// Lets `span` pass, with the engine's ticks in it, and counts lost pods at its end.
    pub(super) async fn advance(&mut self, span: Duration) {
        let end = self.now() + span;
        loop {
            let wakes_at = self.daemon.as_ref().and_then(|(engine, _)| engine.wake_at());
            let at = wakes_at.filter(|at| *at <= end).unwrap_or(end);
            self.server.simulator().clock().skip(at.since(self.now()));
            if wakes_at.is_none_or(|at| at > end) {
                break;
            }
            self.follow(vec![], vec![Event::Tick], usize::MAX).await;
        }
        let held =
            |key| self.record.assignments().get(key).map(|held| held.addresses.first().address);
        let is_lost = |(key, ip): (_, &IpAddr)| held(key) != Some(*ip) || !self.has(*ip);
        self.counts.lost += self.pods.iter().filter(|pod| is_lost(*pod)).count() as u64;
    }

    /// A node with `n` pods.
    pub(super) async fn with_pods(variables: &[(&str, &str)], n: usize) -> Self {
        let mut node = Self::new(variables).await;
        node.show(node.truth());
        node.start().await;
        node.advance(MINUTE).await;
        node.fill(n).await;
        node
    }

    /// Adds pods until there are `n`.
    pub(super) async fn fill(&mut self, n: usize) {
        for _ in self.pods.len()..n {
            self.add_pod().await;
            self.advance(Duration::from_secs(1)).await;
        }
        self.advance(MINUTE).await;
        assert_eq!(self.pods.len(), n, "{:?}", self.counts);
    }

    pub(super) async fn die_and_start_twice(&mut self) {
        for _ in 0..2 {
            self.daemon = None;
            self.start().await;
            self.advance(10 * MINUTE).await;
        }
    }

    pub(super) fn enis(&self) -> Vec<FabricEni> {
        self.server.simulator().with(|model, now| model.fabric(now)).instances.remove(0).enis
    }
}
