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
mod disturbances;
mod error_chain;
mod event_loop;
mod handle;
pub mod host;
mod host_ports;
mod metrics;
pub mod migration;
mod notes;
mod own_file;
mod pending_dels;
mod pod_poll;
mod restore;
mod retired;
mod runtime;
mod service;
mod socket;
mod state;
mod tasks;
mod wire;
mod writer;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use ipam::event::{Event, Refusal};
use ipam::id::Pod;
use ipam::policy::{Limits, Node, Policy};
use ipam::record::Record;
use ipam::time::Timestamp;
use ipam::{Boot, Engine};
use proto::v1::ipam_server::IpamServer;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tonic::service::InterceptorLayer;
use tonic::transport::Server;

use crate::clock::Clock;
use crate::event_loop::{EventLoop, Orders};
use crate::handle::{Handle, Message};
use crate::metrics::Counters;
use crate::service::Service;
use crate::socket::Socket;
use crate::state::Store;
use crate::tasks::Tasks;
use crate::writer::Writer;

pub use datapath::neighbour_limits::NeighbourLimits;

pub use crate::boot::boot_id;
pub use crate::error_chain::error_chain;
pub use crate::event_loop::Edges;
pub use crate::handle::{Inbox, Inlet, channel};
pub use crate::metrics::{HostRepairs, SettingsRefused};
pub use crate::notes::Notes;
pub use crate::state::lock::StateDirectory;

/// How long DELs from files may delay the start.
const START_TIMEOUT: Duration = Duration::from_secs(1);
/// How long requests in progress may take after the order to stop, and then the disk again.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// The metric of the node's own network.
    pub host_repairs: HostRepairs,
    /// The metric of refused settings.
    pub settings_refused: SettingsRefused,
    /// The user's settings, as the engine's policy.
    pub policy: Policy,
    /// What all pods' links have in common.
    pub pod_links: PodLinks,
    /// Where to listen. DELs that the plugin could not deliver lie in a directory beside it.
    pub socket: PathBuf,
    /// The port of `/metrics`, on all of the machine's addresses. `None` serves no metrics.
    pub metrics_port: Option<u16>,
    /// The container runtime's socket. `None` if the daemon must not ask the runtime.
    pub runtime_socket: Option<PathBuf>,
    /// Where each ADD that gets no address is reported, with its pod. Reports are dropped while it is full.
    pub refusals: mpsc::Sender<(Pod, Refusal)>,
    /// The record to start with if the directory has none: another daemon's allocations.
    pub inherited: Record,
}

/// What the plugin must know of every pod's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodLinks {
    /// The largest MTU, in bytes.
    pub mtu: u16,
    /// Whether pods without an IPv6 address have IPv6 switched off.
    pub disable_ipv6: bool,
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
    service: Service,
    event_loop: JoinHandle<thread::JoinHandle<()>>,
    socket: PathBuf,
    tasks: Tasks,
    metrics_port: Option<u16>,
    runtime_socket: Option<PathBuf>,
    kernel_poll: Arc<Notify>,
    counters: Arc<Counters>,
}

impl Daemon {
    async fn start(
        config: Config,
        state: StateDirectory,
        inbox: Inbox,
        edges: Edges,
    ) -> anyhow::Result<Self> {
        let Config {
            node,
            limits,
            limits_from,
            notes,
            host_repairs,
            settings_refused,
            policy,
            pod_links,
            socket,
            metrics_port,
            runtime_socket,
            refusals,
            inherited,
        } = config;
        // Files are named after the machine's time. The engine's clock may be ahead, because of the record.
        let now = Clock::start(Timestamp::default()).now();
        let store = Store::open(state, &node.instance, inherited, now);
        let record = store.record().clone();
        let clock = Clock::start(clock::after(&record));
        let (inlet, saved) = (inbox.inlet(), inbox.inlet());
        let writer = Writer::start(store, move |event| saved.send(event))
            .context("start the thread that writes the state")?;
        let handle = Handle::new(inlet.clone(), clock);
        let repaired = host_repairs.clone();
        let counters = Arc::new(Counters::default().with(host_repairs, settings_refused));
        let mut tasks = Tasks::default();
        let watching = clock.watch_forever(notes.clone());
        tasks.spawn("watches the machine's clock", async { match watching.await {} });
        let (counted, named) = (Arc::clone(&counters), node.clone());
        let told = service::Told { node: named, limits_from, notes, refusals };
        let service = Service::new(handle.clone(), counted, pod_links, told);
        let (mut engine, mut first) =
            Engine::new(Boot { node, limits, policy, record }, clock.now());
        // Before any address is allocated, since pods may run that the record has lost.
        if let Some(report) = pod_poll::poll_first(clock.now()).await {
            first.extend(engine.handle(Event::Kernel(report), clock.now()));
        }
        let (cleanup, cleanups) = mpsc::unbounded_channel();
        tasks.spawn("cleans up after pods", async {
            cleanup::carry_out_forever(cleanups).await;
            Ok(())
        });
        let sweeping = retired::sweep_forever(Arc::clone(&counters));
        tasks.spawn("removes the links of ended pods", async {
            sweeping.await;
            Ok(())
        });
        let ports = host_ports::keep_forever(proto::ports::directory(&socket), repaired);
        tasks.spawn("keeps host ports", async {
            ports.await;
            Ok(())
        });
        let (restoring, pods) = mpsc::unbounded_channel();
        let restores = restore::keep(pods, inlet.clone(), Arc::clone(&counters));
        tasks.spawn("restores pods' networks", async {
            restores.await;
            Ok(())
        });
        let counted = Arc::clone(&counters);
        let kernel_poll = Arc::<Notify>::default();
        let orders = Orders { cleanup, restoring, kernel_poll: Arc::clone(&kernel_poll) };
        let event_loop = EventLoop::start(engine, first, clock, writer, edges, orders, counted);
        Ok(Self {
            inlet,
            handle,
            service,
            event_loop: tokio::spawn(event_loop.run(inbox)),
            socket,
            tasks,
            metrics_port,
            runtime_socket,
            kernel_poll,
            counters,
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
            service,
            event_loop,
            socket,
            mut tasks,
            metrics_port,
            runtime_socket,
            kernel_poll,
            counters,
        } = self;
        let pending_dels = proto::pending::directory(&socket);
        // Before any ADD is served, since the attachment's DEL may lie in a file. If the disk hangs, the
        // files are applied later.
        let applying = pending_dels::apply_all(&handle, &pending_dels);
        let _ = tokio::time::timeout(START_TIMEOUT, applying).await;
        let polling =
            pod_poll::poll_forever(handle.clone(), inlet.clone(), runtime_socket, kernel_poll);
        tasks.spawn("polls the kernel's pods", polling);
        if let Some(port) = metrics_port {
            let serving = metrics::serve_forever(port, handle.clone(), counters);
            tasks.spawn("serves metrics", async {
                serving.await;
                Ok(())
            });
        }
        tasks.spawn("applies DELs from files", async {
            pending_dels::apply_forever(handle, pending_dels).await;
            Ok(())
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = tokio::spawn(answer(listener, service, async { drop(stopped.await) }));
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
        flush(event_loop.await.context("the event loop has panicked")?).await?;
        why
    }
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
    service: Service,
    stopped: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IpamServer<Service>>().await;
    Server::builder()
        .layer(InterceptorLayer::new(socket::only_root))
        .add_service(health_service)
        .add_service(IpamServer::new(service))
        .serve_with_incoming_shutdown(listener.connections(), stopped)
        .await
}

/// Waits until every decision is on disk.
async fn flush(writer: thread::JoinHandle<()>) -> anyhow::Result<()> {
    let joined = tokio::task::spawn_blocking(|| writer.join());
    let joined = tokio::time::timeout(STOP_TIMEOUT, joined).await;
    joined
        .context("the disk does not accept the state in time")?
        .context("wait for the writer")?
        .map_err(|_panic| anyhow::anyhow!("the thread that writes the state has panicked"))
}
