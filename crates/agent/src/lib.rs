//! Runs the engine: one loop, one socket, one state file. It decides nothing.
//!
//! It must not know EC2's SDK. Calls leave as data through [`Edges`], and results come back through an
//! [`Inlet`].

mod adding;
mod boot;
pub mod checked_file;
pub mod checkpoint;
mod cleanup;
mod clock;
mod differences;
mod disturbances;
mod error_chain;
mod event_loop;
pub mod examine;
mod handle;
pub mod host;
mod host_ports;
mod http;
mod introspection;
mod metrics;
pub mod migration;
mod notes;
mod own_file;
mod pending_dels;
mod pod_poll;
mod policy_agent;
mod refusals;
mod restore;
mod retired;
mod runtime;
mod service;
mod socket;
mod state;
mod tasks;
mod traces;
mod wire;
mod writer;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use ipam::event::Event;
use ipam::id::Pod;
use ipam::policy::{Limits, Node, Policy};
use ipam::record::Record;
use ipam::time::Timestamp;
use ipam::{Boot, Engine};
use otlp::Tracer;
use proto::policy_agent::config_server_backend_server::ConfigServerBackendServer;
use proto::v1::ipam_server::IpamServer;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tonic::service::InterceptorLayer;
use tonic::transport::Server;

use crate::clock::Clock;
use crate::event_loop::{EventLoop, Orders};
use crate::handle::{Handle, Message};
use crate::metrics::{Counters, Outlook, Scraped};
use crate::policy_agent::{ConfigService, PolicyAgent};
use crate::service::{Service, Views};
use crate::socket::Socket;
use crate::state::Store;
use crate::tasks::Tasks;
use crate::writer::Writer;

pub use datapath::neighbour_limits::NeighbourLimits;

pub use crate::boot::boot_id;
pub use crate::error_chain::error_chain;
pub use crate::event_loop::Edges;
pub use crate::handle::{Inbox, Inlet, channel};
pub use crate::introspection::{BindAddress, Introspection, ShownSettings};
pub use crate::metrics::{HostRepairs, SettingsRefused};
pub use crate::notes::Notes;
pub use crate::policy_agent::{EnforcingMode, PolicyAgentConfig};
pub use crate::service::PodNews;
pub use crate::state::lock::StateDirectory;

/// How long DELs from files may delay the start.
const START_TIMEOUT: Duration = Duration::from_secs(1);
/// How long requests in progress may take after the order to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the disk may take after that. Whoever has given the order kills the daemon ten seconds after it at the earliest:
/// that is `terminationGracePeriodSeconds` of amazon-vpc-cni-k8s's DaemonSet. On a node with a long run queue, a bound of
/// two seconds has ended sound stops with an error.
const DISK_TIMEOUT: Duration = Duration::from_secs(6);

/// The daemon's configuration, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's identity and place.
    pub node: Node,
    /// The limits of the instance.
    pub limits: Limits,
    /// The source of `limits`, in a few words. The View shows it.
    pub limits_from: String,
    /// Further lines for the View.
    pub notes: Notes,
    /// When the process started.
    pub started: Instant,
    /// The metric of the node's own network.
    pub host_repairs: HostRepairs,
    /// The metric of refused settings.
    pub settings_refused: SettingsRefused,
    /// Makes the spans of requests and of calls to EC2.
    pub tracer: Tracer,
    /// The user's settings, as the engine's policy.
    pub policy: Policy,
    /// The largest MTU of pods' links, in bytes.
    pub pod_mtu: u16,
    /// Where to listen. DELs that the plugin could not deliver lie in a directory beside it.
    pub socket: PathBuf,
    /// The port of `/metrics`, on all of the machine's addresses. `None` serves no metrics.
    pub metrics_port: Option<u16>,
    /// The introspection. `None` serves none.
    pub introspection: Option<Introspection>,
    /// The container runtime's socket. `None` if the daemon must not ask the runtime.
    pub runtime_socket: Option<PathBuf>,
    /// Whether the API server is used, for the metric of the start.
    pub with_api_server: bool,
    /// Where the outcome of each ADD and DEL is reported, with its pod. Reports are dropped while it is full.
    pub pod_news: mpsc::Sender<(Pod, PodNews)>,
    /// How the network policy agent is used. `None` if it is not.
    pub policy_agent: Option<PolicyAgentConfig>,
    /// The record to start with if the directory has none: another daemon's allocations.
    pub inherited: Record,
}

/// Runs the daemon, with its record in the directory `state`, until `shutdown` is ready. Then it refuses the ADDs
/// that wait, removes the socket, flushes the record and gives the directory back.
///
/// # Errors
///
/// If another daemon uses the socket, or if the loop or a task has ended.
pub async fn run(
    config: Config,
    state: StateDirectory,
    inbox: Inbox,
    edges: Edges,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let socket = Socket::bind(&config.socket).await?;
    Daemon::start(config, state, inbox, edges).await?.serve(socket, shutdown).await
}

/// The running parts behind the socket.
struct Daemon {
    inlet: Inlet,
    handle: Handle,
    services: (Service, Option<ConfigService>),
    policy_agent: Option<PolicyAgent>,
    event_loop: JoinHandle<thread::JoinHandle<()>>,
    socket: PathBuf,
    tasks: Tasks,
    metrics_port: Option<u16>,
    runtime_socket: Option<PathBuf>,
    kernel_poll: Arc<Notify>,
    counters: Arc<Counters>,
    notes: Notes,
    with_api_server: bool,
}

impl Daemon {
    async fn start(
        config: Config,
        state: StateDirectory,
        inbox: Inbox,
        edges: Edges,
    ) -> anyhow::Result<Self> {
        // Files are named after the machine's time. The engine's clock may be ahead, because of the record.
        let now = Clock::start(Timestamp::default()).now();
        let store = Store::open(state, &config.node.instance, config.inherited, now);
        let record = store.record().clone();
        let clock = Clock::start(clock::after(&record));
        let (inlet, saved) = (inbox.inlet(), inbox.inlet());
        let writer = Writer::start(store, move |event| saved.send(event))
            .context("start the thread that writes the state")?;
        let handle = Handle::new(inlet.clone(), clock);
        let counters = Arc::new(Counters::of(
            config.host_repairs.clone(),
            config.settings_refused,
            config.tracer.clone(),
            config.started,
        ));
        let views = Arc::new(Views {
            node: config.node.clone(),
            limits_from: config.limits_from,
            notes: config.notes.clone(),
        });
        let mut tasks = Tasks::default();
        tasks.spawn("watches the machine's clock", clock.watch_forever(config.notes.clone()));
        // Also if a disk refuses the socket.
        if let Some(introspection) = config.introspection {
            let serving =
                introspection::serve_forever(introspection, handle.clone(), Arc::clone(&views));
            tasks.spawn("serves introspection", serving);
        }
        let counted = Arc::clone(&counters);
        let tracer = config.tracer;
        let policies = config.policy_agent.as_ref();
        let policy_agent = policies.map(|policies| {
            PolicyAgent::beside(&config.socket, policies.mode, counters.policy_calls())
        });
        let policy_config =
            policies.map(|policies| ConfigService::new(policies, &config.node.instance));
        if let Some(service) = policy_config.clone() {
            let serving = policy_agent::serve_forever(service);
            tasks.spawn("serves network policy agents before 1.4.1", serving);
        }
        let service = Service::new(
            handle.clone(),
            counted,
            config.pod_mtu,
            views,
            config.pod_news,
            tracer.clone(),
            policy_agent.clone(),
        );
        let Config { node, limits, policy, .. } = config;
        let (mut engine, mut first) =
            Engine::new(Boot { node, limits, policy, record }, clock.now());
        // Before any address is allocated, since pods may run that the record has lost.
        if let Some(report) = pod_poll::poll_first(clock.now()).await {
            first.extend(engine.handle(Event::Kernel(report), clock.now()));
        }
        let ports = proto::ports::directory(&config.socket);
        tasks.spawn("keeps host ports", host_ports::keep_forever(ports, config.host_repairs));
        let orders = carry_out(&mut tasks, &inlet, &counters);
        let kernel_poll = Arc::clone(&orders.kernel_poll);
        let counted = Arc::clone(&counters);
        let begun = (engine, first);
        let event_loop = EventLoop::start(begun, clock, writer, edges, orders, counted, tracer);
        Ok(Self {
            inlet,
            handle,
            services: (service, policy_config),
            policy_agent,
            event_loop: tokio::spawn(event_loop.run(inbox)),
            socket: config.socket,
            tasks,
            metrics_port: config.metrics_port,
            runtime_socket: config.runtime_socket,
            kernel_poll,
            counters,
            notes: config.notes,
            with_api_server: config.with_api_server,
        })
    }

    async fn serve(
        self,
        listener: Socket,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self {
            inlet,
            handle,
            services,
            policy_agent,
            event_loop,
            socket,
            mut tasks,
            metrics_port,
            runtime_socket,
            kernel_poll,
            counters,
            notes,
            with_api_server,
        } = self;
        let pending_dels = proto::pending::directory(&socket);
        // Before any ADD is served, since the attachment's DEL may lie in a file. If the disk hangs, the
        // files are applied later.
        let applying = pending_dels::apply_all(&handle, policy_agent.as_ref(), &pending_dels);
        let _ = tokio::time::timeout(START_TIMEOUT, applying).await;
        let polling =
            pod_poll::poll_forever(handle.clone(), inlet.clone(), runtime_socket, kernel_poll);
        tasks.spawn("polls the kernel's pods", polling);
        let outlook = Arc::<Outlook>::default();
        let following = Arc::clone(&outlook).follow(handle.clone());
        tasks.spawn("follows the use of addresses", following);
        if let Some(port) = metrics_port {
            let scraped =
                Scraped { handle: handle.clone(), counters: Arc::clone(&counters), outlook, notes };
            tasks.spawn("serves metrics", metrics::serve_forever(port, scraped));
        }
        let applying = pending_dels::apply_forever(handle, policy_agent, pending_dels);
        tasks.spawn("applies DELs from files", applying);
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = tokio::spawn(answer(listener, services, async { drop(stopped.await) }));
        counters.has_started(with_api_server);
        tracing::info!(version = proto::VERSION, "ipamd is serving");
        let why = tokio::select! {
            () = shutdown => Ok(()),
            () = inlet.closed() => Err(anyhow!("the event loop has ended")),
            fault = tasks.ended() => Err(fault),
            ended = &mut server => Err(server_fault(ended)),
        };
        let serves = !server.is_finished();
        match &why {
            Ok(()) => tracing::info!("ipamd is stopping"),
            Err(fault) => tracing::error!(fault = format!("{fault:#}"), "ipamd cannot continue"),
        }
        inlet.send_message(Message::Stop);
        drop(stop);
        if serves && tokio::time::timeout(STOP_TIMEOUT, &mut server).await.is_err() {
            tracing::warn!("some requests got no answer before the stop");
            server.abort();
        }
        // Before the state directory is given back, since the next daemon then makes a socket of this name. After
        // a fault the socket stays: nobody answers there, and the next daemon replaces it.
        if why.is_ok() {
            // This fails only if somebody else has removed it.
            let _ = std::fs::remove_file(socket);
        }
        inlet.send_message(Message::End);
        let writer = event_loop.await.context("the event loop has panicked")?;
        writer::flush(writer, tokio::time::sleep(DISK_TIMEOUT)).await?;
        why
    }
}

/// Starts the tasks that carry out the engine's effects on pods, and returns the channels to them.
fn carry_out(tasks: &mut Tasks, inlet: &Inlet, counters: &Arc<Counters>) -> Orders {
    let (cleanup, cleanups) = mpsc::unbounded_channel();
    tasks.spawn("cleans up after pods", cleanup::carry_out_forever(cleanups));
    let sweeping = retired::sweep_forever(Arc::clone(counters));
    tasks.spawn("removes the links of ended pods", sweeping);
    let (restoring, pods) = mpsc::unbounded_channel();
    let restores = restore::keep(pods, inlet.clone(), Arc::clone(counters));
    tasks.spawn("restores pods' networks", restores);
    Orders { cleanup, restoring, kernel_poll: Arc::default() }
}

/// Why the server has ended, though nobody has asked it to.
fn server_fault(ended: Result<Result<(), tonic::transport::Error>, JoinError>) -> anyhow::Error {
    let why = match ended {
        Ok(Ok(())) => anyhow!("it has no more connections to wait for"),
        Ok(Err(fault)) => anyhow!(fault),
        Err(panic) => anyhow!(panic),
    };
    why.context("the server of the socket has ended")
}

/// Answers on `listener` until `stopped` is ready and the requests in progress are done.
async fn answer(
    listener: Socket,
    (service, policy_config): (Service, Option<ConfigService>),
    stopped: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IpamServer<Service>>().await;
    Server::builder()
        .layer(InterceptorLayer::new(socket::only_root))
        .add_service(health_service)
        .add_service(IpamServer::new(service))
        .add_optional_service(policy_config.map(ConfigServerBackendServer::new))
        .serve_with_incoming_shutdown(listener.connections(), stopped)
        .await
}
