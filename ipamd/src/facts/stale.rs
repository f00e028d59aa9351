//! Two days of pods and restarts, in virtual time, by a metadata service that does not tell what is: no pod
//! loses its address, and none gets one that EC2 does not have here.
//!
//! Facts, limits, policy, EC2's client and the engine are the daemon's own; EC2 is `vpc-sim`.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use aws::{ConnectOptions, Ec2};
use aws_credential_types::Credentials;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use ipam::call::Ec2Call;
use ipam::event::{Answer, Effect, Event, LinkState, RequestId};
use ipam::id::{AttachmentKey, Pod};
use ipam::record::Record;
use ipam::sighting::{SeenLink, Sighting};
use ipam::time::Timestamp;
use ipam::{Boot, Engine};
use tempfile::TempDir;
use vpc_sim::server::Server;

use super::*;
use crate::settings::Settings;
use crate::{limits, node};

const TOPOLOGY: &str = r#"
region: us-east-1
account: "111122223333"
clock: manual
vpcs: [{cidrs: [10.0.0.0/16], subnets: [{name: a, az: us-east-1a, cidr: 10.0.0.0/22}]}]
instances: [{type: m5.large, subnet: a}]
"#;
const MINUTE: Duration = Duration::from_secs(60);
const HOURS: u64 = 48;
/// An m5.large has 27 addresses for pods.
const MOST_PODS: u64 = 22;

/// What a metadata service shows: text by path below the root.
type Shown = BTreeMap<String, String>;

/// How the service is wrong, given what it showed first, what is true, and chance.
type Lie = fn(&Shown, Shown, &mut Chance) -> Shown;

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

async fn answer(State(shown): State<Arc<Mutex<Shown>>>, request: Request) -> Response {
    if request.method() == Method::PUT {
        let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
        return (ttl, "token").into_response();
    }
    let found = shown.lock().unwrap().get(request.uri().path()).cloned();
    found.ok_or(StatusCode::NOT_FOUND).into_response()
}

/// What must not be, and what was.
#[derive(Debug, Default)]
struct Tally {
    starts: u64,
    by_kept_facts: u64,
    as_another: u64,
    granted: u64,
    unserved: u64,
    /// By a daemon that was told the beginning of the type's, region's or zone's name: limits are assumed
    /// then, or EC2 refuses its calls, until the next start.
    unserved_by_name: u64,
    lost: u64,
    given_back: u64,
    dead: u64,
    calls: u64,
}

struct World {
    server: Server,
    shown: Arc<Mutex<Shown>>,
    directory: TempDir,
    imds: Imds,
    settings: Settings,
    record: Record,
    daemon: Option<(Engine, Ec2)>,
    pods: BTreeMap<AttachmentKey, IpAddr>,
    waiting: BTreeMap<u64, AttachmentKey>,
    n_requests: u64,
    has_names: bool,
    chance: Chance,
    tally: Tally,
}

impl World {
    async fn new(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("topology.yaml");
        std::fs::write(&config, TOPOLOGY).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings =
            vpc_sim::server::Settings { config, listen, imds_listen: None, fabric: false };
        let server = Server::start(&settings).await.unwrap();
        let shown = Arc::<Mutex<Shown>>::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shown));
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(vpc_sim::serve::serve(listener, router));
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Self {
            server,
            shown,
            directory,
            imds: Imds::connect_to(&url).unwrap(),
            settings: Settings::from_variables(variables).unwrap(),
            record: Record::default(),
            daemon: None,
            pods: BTreeMap::new(),
            waiting: BTreeMap::new(),
            n_requests: 0,
            has_names: true,
            chance: Chance(1),
            tally: Tally::default(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.server.simulator().clock().now().unix_millis())
    }

    /// The metadata as they are.
    fn truth(&self) -> Shown {
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

    async fn start(&mut self) {
        let boot = BootId("a".to_owned());
        let file = self.directory.path().join(FILE);
        let identity = Identity { imds: self.imds.clone(), boot: boot.clone(), file };
        let Learnt { facts, word } = identity.learn().await;
        self.tally.starts += 1;
        self.tally.by_kept_facts += u64::from(word == Word::Kept);
        if facts.instance.as_str() != self.server.endpoints().instances[0].as_str() {
            // A record of another instance is set aside.
            self.tally.as_another += 1;
            self.record = Record::default();
        }
        let names = [&facts.instance_type, &facts.region, &facts.availability_zone];
        self.has_names = names == ["m5.large", "us-east-1", "us-east-1a"];
        let ec2 = Ec2::connect(ConnectOptions {
            region: facts.region.clone(),
            endpoint: Some(self.server.endpoints().ec2.clone()),
            instance: facts.instance.clone(),
            vpc: facts.vpc.clone(),
            availability_zone: facts.availability_zone.clone(),
            http_timeout: Duration::from_secs(10),
            credentials: Some(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test")),
        });
        let ec2 = ec2.await.unwrap();
        let known = limits::learn(&ec2, &facts.instance_type, self.directory.path(), word).await;
        let vcpus = aws::known_vcpus(&facts.instance_type);
        let boot = Boot {
            node: node::node(&self.settings, &facts, &boot),
            limits: known.limits,
            policy: node::policy(&self.settings, known.limits, vcpus).unwrap(),
            record: self.record.clone(),
        };
        let now = self.now();
        let (engine, effects) = Engine::new(boot, now);
        self.daemon = Some((engine, ec2));
        let seen = |key: &AttachmentKey| SeenLink { name: key.to_string(), mark: Some(key.mark()) };
        let links = self.pods.iter().map(|(key, address)| (*address, seen(key))).collect();
        let sighting = Sighting { begun: now, links, ..Sighting::default() };
        self.follow(effects, vec![Event::Seen(sighting)], usize::MAX).await;
        for key in std::mem::take(&mut self.waiting).into_values() {
            self.add(key, usize::MAX).await;
        }
    }

    /// Does what the daemon wants, and tells it what came of that; it dies after so many effects.
    async fn follow(&mut self, effects: Vec<Effect>, events: Vec<Event>, lives_for: usize) {
        let Some((mut engine, ec2)) = self.daemon.take() else { return };
        let (mut effects, mut events) = (VecDeque::from(effects), VecDeque::from(events));
        let mut n_done = 0;
        loop {
            if let Some(effect) = effects.pop_front() {
                n_done += 1;
                if n_done > lives_for {
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
                let is_free = self.pods.values().all(|address| *address != assignment.address);
                self.tally.granted += 1;
                self.tally.dead += u64::from(!is_free || !self.has(assignment.address));
                self.pods.insert(key, assignment.address);
            }
            Effect::Reply { request, answer: Answer::Refused(_) } => {
                self.waiting.remove(&request.0);
                match self.has_names {
                    true => self.tally.unserved += 1,
                    false => self.tally.unserved_by_name += 1,
                }
            }
            Effect::Reply { answer: Answer::Released(_) | Answer::Collected(_), .. } => {}
            Effect::Call { id, call } => {
                self.tally.calls += 1;
                self.tally.given_back += u64::from(self.takes_from_a_pod(&call));
                events.push_back(Event::CallDone { id, result: ec2.execute(&call).await });
            }
            Effect::SyncHost(enis) => events.extend(
                enis.into_iter().map(|eni| Event::EniLink { eni: eni.eni, link: LinkState::Ready }),
            ),
        }
    }

    fn takes_from_a_pod(&self, call: &Ec2Call) -> bool {
        match call {
            Ec2Call::Unassign { blocks, .. } => {
                self.pods.values().any(|ip| blocks.iter().any(|block| block.contains(*ip)))
            }
            Ec2Call::DetachEni { eni, .. } | Ec2Call::DeleteEni { eni } => {
                let held = |key| self.record.assignments().get(key);
                self.pods.keys().any(|key| held(key).is_some_and(|held| held.eni == *eni))
            }
            _ => false,
        }
    }

    async fn add(&mut self, key: AttachmentKey, lives_for: usize) {
        self.n_requests += 1;
        self.waiting.insert(self.n_requests, key.clone());
        let deadline = self.now() + MINUTE;
        let request = RequestId(self.n_requests);
        let (pod, netns) = (Pod::default(), String::new());
        self.follow(vec![], vec![Event::Add { request, key, pod, netns, deadline }], lives_for)
            .await;
    }

    async fn come(&mut self) {
        let container = format!("c{}", self.n_requests);
        let key =
            AttachmentKey { network: "aws-cni".to_owned(), container, ifname: "eth0".to_owned() };
        self.add(key, usize::MAX).await;
    }

    async fn go(&mut self) {
        let which = usize::try_from(self.chance.below(MOST_PODS)).unwrap() % self.pods.len();
        let key = self.pods.keys().nth(which).unwrap().clone();
        self.pods.remove(&key);
        self.n_requests += 1;
        let request = RequestId(self.n_requests);
        self.follow(vec![], vec![Event::Del { request, key }], usize::MAX).await;
    }

    /// Lets time pass.
    async fn pass(&mut self, span: Duration) {
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
        let held = |key| self.record.assignments().get(key).map(|held| held.address);
        let is_lost = |(key, ip): (_, &IpAddr)| held(key) != Some(*ip) || !self.has(*ip);
        self.tally.lost += self.pods.iter().filter(|pod| is_lost(*pod)).count() as u64;
    }

    /// Pods come and go each minute; the daemon starts anew each hour, every other time since it died.
    async fn live(mut self, lie: Lie) -> Tally {
        *self.shown.lock().unwrap() = self.truth();
        self.start().await;
        self.pass(MINUTE).await;
        let first = self.truth();
        for hour in 0..HOURS {
            for minute in 0..60 {
                let wanted = self.chance.below(MOST_PODS);
                for _ in 0..3 {
                    match (self.pods.len() as u64).cmp(&wanted) {
                        std::cmp::Ordering::Less => self.come().await,
                        std::cmp::Ordering::Equal => {}
                        std::cmp::Ordering::Greater => self.go().await,
                    }
                }
                if minute == 59 && hour % 2 == 1 {
                    let lives_for = usize::try_from(self.chance.below(4)).unwrap();
                    let key = AttachmentKey {
                        network: "aws-cni".to_owned(),
                        container: format!("last{hour}"),
                        ifname: "eth0".to_owned(),
                    };
                    self.add(key, lives_for).await;
                    self.daemon = None;
                }
                self.pass(MINUTE).await;
            }
            let truth = self.truth();
            *self.shown.lock().unwrap() = lie(&first, truth, &mut self.chance);
            self.start().await;
        }
        self.pass(MINUTE).await;
        println!("{:?}", self.tally);
        self.tally
    }
}

async fn is_harmless(lie: Lie) -> Tally {
    let world = World::new(&[("WARM_IP_TARGET", "2"), ("CLUSTER_NAME", "ours")]).await;
    let tally = world.live(lie).await;
    let Tally { as_another, unserved, lost, given_back, dead, .. } = tally;
    assert_eq!((as_another, unserved, lost, given_back, dead), (0, 0, 0, 0, 0), "{tally:?}");
    assert!(tally.starts > HOURS && tally.granted > 1_000, "{tally:?}");
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_metadata_harm_no_pod_for_two_days() {
    is_harmless(|first, _, _| first.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_are_rolled_back_harm_no_pod_for_two_days() {
    let back = |first: &Shown, truth, chance: &mut Chance| match chance.below(2) {
        0 => first.clone(),
        _ => truth,
    };
    is_harmless(back).await;
}

/// Some documents end too soon, some are missing.
#[tokio::test(flavor = "multi_thread")]
async fn truncated_metadata_harm_no_pod_for_two_days() {
    let cut = |_: &Shown, mut truth: Shown, chance: &mut Chance| {
        truth.retain(|_, _| chance.below(60) > 0);
        for text in truth.values_mut() {
            if chance.below(30) == 0 {
                let end = chance.below(text.len() as u64 + 1);
                text.truncate(usize::try_from(end).unwrap());
            }
        }
        truth
    };
    let tally = is_harmless(cut).await;
    assert!((5..HOURS).contains(&tally.by_kept_facts), "{tally:?}");
}

impl World {
    /// A node with so many pods.
    async fn with_pods(variables: &[(&str, &str)], n: usize) -> Self {
        let mut world = Self::new(variables).await;
        *world.shown.lock().unwrap() = world.truth();
        world.start().await;
        world.pass(MINUTE).await;
        for _ in 0..n {
            world.come().await;
            world.pass(Duration::from_secs(1)).await;
        }
        world.pass(MINUTE).await;
        assert_eq!(world.pods.len(), n, "{:?}", world.tally);
        world
    }

    async fn die_and_start_twice(&mut self) {
        for _ in 0..2 {
            self.daemon = None;
            self.start().await;
            self.pass(10 * MINUTE).await;
        }
    }

    fn enis(&self) -> Vec<ec2_model::fabric::FabricEni> {
        self.server.simulator().with(|model, now| model.fabric(now)).instances.remove(0).enis
    }

    fn no_harm(&self) {
        let Tally { as_another, unserved, lost, given_back, dead, .. } = self.tally;
        assert_eq!((as_another, unserved, lost, given_back, dead), (0, 0, 0, 0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_pods_on_thirteen_prefixes_of_which_metadata_show_twelve_keep_their_addresses()
{
    let variables = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("WARM_IP_TARGET", "8"),
        ("TIDEPOOL_MAX_PODS", "250"),
    ];
    let mut world = World::with_pods(&variables, 200).await;
    let n_prefixes = |shown: &Shown| -> usize {
        let lists = shown.iter().filter(|(path, _)| path.ends_with("/ipv4-prefix"));
        lists.map(|(_, text)| text.lines().count()).sum()
    };
    let mut shown = world.truth();
    assert_eq!(n_prefixes(&shown), 13);
    let list = shown.iter_mut().find(|(path, _)| path.ends_with("/ipv4-prefix")).unwrap().1;
    *list = list.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(n_prefixes(&shown), 12);
    *world.shown.lock().unwrap() = shown;
    let before = world.record.assignments().clone();
    world.die_and_start_twice().await;
    assert_eq!(*world.record.assignments(), before);
    let unassign = |model: &mut ec2_model::Model, _| model.log().n_of("UnassignPrivateIpAddresses");
    assert_eq!(world.server.simulator().with(unassign), 0);
    world.no_harm();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_ec2_has_taken_back_is_not_given_out_while_metadata_list_it() {
    let mut world = World::with_pods(&[("WARM_IP_TARGET", "5")], 4).await;
    *world.shown.lock().unwrap() = world.truth();
    world.daemon = None;
    let is_free = |ip: &std::net::Ipv4Addr| world.pods.values().all(|pods| *pods != *ip);
    let enis = world.enis();
    let mut free =
        enis.iter().flat_map(|eni| eni.secondaries.iter().map(|ip| (eni.id.clone(), *ip)));
    let (eni, taken) = free.find(|(_, ip)| is_free(ip)).unwrap();
    let disturbance = ec2_model::fault::Disturbance::Unassign {
        eni,
        addresses: vec![taken.into()],
        prefixes: vec![],
    };
    world.server.simulator().with(|model, now| model.disturb(disturbance, now)).unwrap();
    assert!(world.shown.lock().unwrap().values().any(|text| text.contains(&taken.to_string())));
    world.start().await;
    for _ in 0..20 {
        world.come().await;
        world.pass(Duration::from_secs(1)).await;
    }
    world.pass(MINUTE).await;
    assert_eq!(world.pods.len(), 24);
    assert!(world.pods.values().all(|ip| *ip != IpAddr::from(taken)));
    world.no_harm();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eni_that_metadata_list_for_ever_is_neither_used_nor_called_for() {
    let mut world = World::with_pods(&[("WARM_IP_TARGET", "1")], 20).await;
    *world.shown.lock().unwrap() = world.truth();
    let before = world.enis();
    while !world.pods.is_empty() {
        world.go().await;
    }
    world.pass(60 * MINUTE).await;
    let after = world.enis();
    let gone = before.iter().filter(|eni| after.iter().all(|other| other.id != eni.id));
    let gone: Vec<String> = gone.map(|eni| eni.id.to_string()).collect();
    assert!(!gone.is_empty(), "{after:?}");
    let n_calls = world.server.simulator().calls().len();
    world.die_and_start_twice().await;
    for _ in 0..20 {
        world.come().await;
        world.pass(Duration::from_secs(1)).await;
    }
    world.pass(MINUTE).await;
    assert_eq!(world.pods.len(), 20);
    let calls = world.server.simulator().calls();
    assert!(calls.len() > n_calls);
    let names_it = |text: &String| gone.iter().any(|eni| text.contains(eni));
    let on_it = calls[n_calls..].iter().find(|call| call.record.parameters.values().any(names_it));
    assert_eq!(on_it, None);
    let held = world.record.assignments().values();
    assert!(held.map(|held| held.eni.to_string()).all(|eni| !gone.contains(&eni)));
    world.no_harm();
}
