//! A node: a directory and an EC2. Daemons start and stop on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::{Config, Edges, Inlet, Notes, StateDirectory};
use ipam::block::BlockKind;
use ipam::event::{Event, HostEni, HostPicture, LinkState};
use ipam::id::{BootId, InstanceId};
use ipam::policy::{
    Families, FamilyPolicy, Limits, Node, Placement, Policy, Provisioning, Targets, Timing,
    WarmSettings,
};
use ipam::record::Record;
use proto::v1;
use proto::v1::add_reply::Outcome;
use proto::v1::ipam_client::IpamClient;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::fake_ec2::FakeEc2;

/// When a test counts as hung. No test passes or fails by how long anything takes below this.
const DEADLINE: Duration = Duration::from_secs(90);

/// The parts that outlive a daemon.
pub(crate) struct TestNode {
    pub(crate) directory: TempDir,
    pub(crate) ec2: FakeEc2,
    pub(crate) config: Config,
    pub(crate) state_directory: PathBuf,
}

/// A running daemon, on a runtime of its own so that it can be killed.
pub(crate) struct Daemon {
    runtime: Runtime,
    /// Dropping it asks the daemon to stop.
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<anyhow::Result<()>>,
}

impl TestNode {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        let ec2 = FakeEc2::new(&config);
        config.node.primary_mac = ec2.primary_mac();
        let state_directory = directory.path().join("state");
        Self { directory, ec2, config, state_directory }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.config.socket
    }

    /// Starts a daemon and waits until it accepts connections.
    pub(crate) async fn start(&self) -> Daemon {
        let daemon = self.launch();
        let socket = self.socket();
        until("the socket to answer", || async { UnixStream::connect(socket).await.ok() }).await;
        daemon
    }

    /// Starts a daemon that may fail to start.
    pub(crate) fn launch(&self) -> Daemon {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (inlet, inbox) = agent::channel();
        let (calls, called) = mpsc::unbounded_channel();
        let (host, wanted) = watch::channel(None);
        runtime.spawn(self.ec2.clone().serve(called, inlet.clone()));
        runtime.spawn(serve_host(wanted, inlet));
        let shutdown = async { drop(stopped.await) };
        let (config, state) = (self.config.clone(), self.state_directory.clone());
        runtime.spawn(async move {
            let run = async {
                let mut shutdown = std::pin::pin!(shutdown);
                let state = tokio::select! {
                    state = StateDirectory::take(&state, &config.socket, None) => state?,
                    () = &mut shutdown => return Ok(()),
                };
                agent::run(config, state, inbox, Edges { calls, host }, shutdown).await
            };
            drop(end.send(run.await));
        });
        Daemon { runtime, stop: Some(stop), ended }
    }

    pub(crate) async fn client(&self) -> Client {
        Client(IpamClient::new(connect(self.socket()).await))
    }
}

impl Daemon {
    /// Stops it as `SIGTERM` does.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stop.take());
        self.end().await
    }

    /// Waits until it ends, and returns its result.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        let ended = tokio::time::timeout(DEADLINE, self.ended).await;
        let result = ended.expect("the daemon ends before the deadline").unwrap();
        self.runtime.shutdown_background();
        result
    }

    /// Kills it, and does not wait for its end.
    pub(crate) fn kill_silently(mut self) {
        // Dropping the sender would ask a thread that still runs to stop in good order.
        std::mem::forget(self.stop.take());
        self.runtime.shutdown_background();
    }

    /// Kills it. Only the files on disk remain.
    pub(crate) async fn kill(self, node: &TestNode) {
        self.kill_silently();
        let lock = node.state_directory.join("tidepool.lock");
        let free = || async {
            let lock = std::fs::File::open(&lock).unwrap();
            rustix::fs::flock(lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok()
        };
        until("the dead daemon's lock to be free", free).await;
        let silent = || async { UnixStream::connect(node.socket()).await.err() };
        until("the dead daemon's socket to be silent", silent).await;
    }
}

/// A client of the daemon, with short forms of the requests.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) IpamClient<Channel>);

impl Client {
    /// The address, or the refusal's code and message.
    pub(crate) async fn add(&self, container: &str) -> Result<String, (String, String)> {
        self.add_within(container, DEADLINE).await.unwrap()
    }

    /// [`Self::add`] of a caller that gives up after `timeout`, with a [`Status`].
    pub(crate) async fn add_within(
        &self,
        container: &str,
        timeout: Duration,
    ) -> Result<Result<String, (String, String)>, Status> {
        let mut request = Request::new(add_request(container));
        request.set_timeout(timeout);
        Ok(match self.0.clone().add(request).await?.into_inner().outcome.unwrap() {
            Outcome::Granted(granted) => {
                assert_eq!(granted.mtu, 1400, "the largest that pods' links may have");
                Ok(granted.addresses[0].address.clone())
            }
            Outcome::Refused(refused) => Err((refused.code, refused.message)),
        })
    }

    /// Runs the ADD in a task of its own. Aborting the task closes the call, as a caller that goes away does.
    pub(crate) fn spawn_add(
        &self,
        container: &str,
    ) -> JoinHandle<Result<String, (String, String)>> {
        let (client, container) = (self.clone(), container.to_owned());
        tokio::spawn(async move { client.add(&container).await })
    }

    /// The released addresses.
    pub(crate) async fn del(&self, container: &str) -> Result<Vec<String>, Status> {
        let request = v1::DelRequest {
            attachment: Some(attachment(container)),
            pod: None,
            client_version: proto::VERSION.into(),
        };
        let reply = self.0.clone().del(request).await?.into_inner();
        Ok(reply.released.into_iter().map(|held| held.address).collect())
    }

    /// The recorded addresses.
    pub(crate) async fn check(&self, container: &str) -> Vec<v1::PodAddress> {
        let request = v1::CheckRequest {
            attachment: Some(attachment(container)),
            client_version: proto::VERSION.into(),
        };
        self.0.clone().check(request).await.unwrap().into_inner().addresses
    }

    pub(crate) async fn view(&self) -> v1::ViewReply {
        self.0.clone().view(v1::ViewRequest {}).await.unwrap().into_inner()
    }

    pub(crate) async fn counts(&self) -> v1::PoolCounts {
        self.view().await.counts.unwrap()
    }

    /// Waits until `n_free` addresses are free, so that an ADD is served at once.
    pub(crate) async fn until_warm(&self, n_free: u64) {
        let enough = || async { (self.counts().await.free >= n_free).then_some(()) };
        until("free addresses", enough).await;
    }

    pub(crate) async fn until_waiting(&self, n: u64) {
        let so_many = || async { (self.counts().await.waiting == n).then_some(()) };
        until("the number of waiting ADDs", so_many).await;
    }
}

/// Repeats `ask` until it returns a value. Panics after [`DEADLINE`].
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, asking).await;
    found.unwrap_or_else(|_| panic!("waited {DEADLINE:?} for {what}"))
}

pub(crate) async fn connect(socket: &Path) -> Channel {
    try_connect(socket).await.unwrap()
}

/// `None` if nobody listens on the socket.
pub(crate) async fn try_connect(socket: &Path) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    endpoint.connect().await.ok()
}

pub(crate) fn add_request(container: &str) -> v1::AddRequest {
    v1::AddRequest {
        attachment: Some(attachment(container)),
        pod: Some(v1::Pod { namespace: "default".into(), name: "web".into(), uid: "u".into() }),
        netns: format!("/var/run/netns/{container}"),
        client_version: proto::VERSION.into(),
        takes_node_local: true,
    }
}

pub(crate) fn attachment(container: &str) -> v1::Attachment {
    v1::Attachment {
        network: "aws-cni".into(),
        container_id: container.into(),
        ifname: "eth0".into(),
    }
}

fn config(directory: &Path) -> Config {
    Config {
        node: Node {
            instance: InstanceId::try_from("i-0123456789abcdef0").unwrap(),
            boot: BootId("a boot".to_owned()),
            primary_mac: "02:00:00:00:00:01".parse().unwrap(),
            subnet_cidr: None,
            instance_type: "m5.4xlarge".to_owned(),
            cluster: Some("test".to_owned()),
            eni_tags: BTreeMap::new(),
            manage_untagged: true,
        },
        limits: Limits { enis: 8, addresses_per_eni: 30, prefixes: true },
        limits_from: "a test".to_owned(),
        policy: policy(),
        started: std::time::Instant::now(),
        introspection: None,
        host_repairs: agent::HostRepairs::default(),
        pod_mtu: 1400,
        socket: PathBuf::from(directory).join("run/ipamd.sock"),
        metrics_port: None,
        runtime_socket: None,
        notes: Notes::default(),
        settings_refused: agent::SettingsRefused::default(),
        tracer: otlp::Tracer::off(),
        with_api_server: false,
        pod_news: tokio::sync::mpsc::channel(1).0,
        policy_agent: None,
        inherited: Record::default(),
    }
}

fn policy() -> Policy {
    let targets = Targets::Ip { warm: 5, minimum: 0 };
    let family = FamilyPolicy::new(BlockKind::V4Address, WarmSettings::default());
    Policy {
        families: Families::single(FamilyPolicy { targets, ..family }),
        placement: Placement::LikePrimary,
        provisioning: Provisioning::Always,
        max_enis: None,
        max_pods: 500,
        delegated_prefixes: None,
        connection_tracking: ipam::connection_tracking::ConnectionTracking::default(),
        mtu: 9001,
        pod_ipv6: ipam::record::PodIpv6::AsItIs,
        nat: ipam::policy::NatPolicy::default(),
        timing: Timing {
            cooldown: Duration::from_secs(3600),
            add_wait: Duration::from_secs(60),
            grow_delay: Duration::ZERO,
            shrink_delay: Duration::from_secs(3600),
            min_eni_age: Duration::from_secs(3600),
            leak_age: None,
        },
    }
}

/// A kernel in which every ENI is ready at once.
async fn serve_host(mut wanted: watch::Receiver<Option<HostPicture>>, inlet: Inlet) {
    while wanted.changed().await.is_ok() {
        let picture = wanted.borrow_and_update().clone();
        for HostEni { eni, .. } in picture.into_iter().flat_map(|picture| picture.enis) {
            inlet.send(Event::EniLink { eni, link: LinkState::Ready });
        }
    }
}
