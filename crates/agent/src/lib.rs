//! Runs the engine: one loop, one socket, one state file. It decides nothing, and it must not know
//! EC2's SDK: calls leave as data through [`Edges`] and results come back through an [`Inlet`].

mod adding;
mod boot;
pub mod checked_file;
pub mod checkpoint;
mod cleanup;
mod clock;
mod error_chain;
mod event_loop;
mod handle;
pub mod host;
mod metrics;
pub mod migration;
mod notes;
mod pending_dels;
mod pod_poll;
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
use ipam::event::Event;
use ipam::policy::{Limits, Node, Policy};
use ipam::record::Record;
use ipam::time::Timestamp;
use ipam::{Boot, Engine};
use proto::v1::ipam_server::IpamServer;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;

use crate::clock::Clock;
use crate::event_loop::EventLoop;
use crate::handle::{Handle, Message};
use crate::metrics::Counters;
use crate::service::Service;
use crate::state::Store;
use crate::tasks::Tasks;
use crate::writer::Writer;

pub use crate::boot::boot_id;
pub use crate::error_chain::error_chain;
pub use crate::event_loop::Edges;
pub use crate::handle::{Inbox, Inlet, channel};
pub use crate::notes::Notes;

/// How long remembered DELs may hold up the start.
const PATIENCE_AT_START: Duration = Duration::from_secs(1);
/// How long requests in progress, and then the disk, may take once the daemon is told to stop.
const PATIENCE_AT_STOP: Duration = Duration::from_secs(2);

/// What the daemon runs with, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who and where this node is.
    pub node: Node,
    /// What EC2 allows it.
    pub limits: Limits,
    /// Who says so, in a few words for whoever looks at the pool.
    pub limits_from: String,
    /// What else there is to say to whoever looks at the pool.
    pub notes: Notes,
    /// What the user wants.
    pub policy: Policy,
    /// Where to listen; DELs that the plugin could not deliver lie beside it.
    pub socket: PathBuf,
    /// Where Prometheus finds `/metrics`, on all of the machine's addresses; `None` for nowhere.
    pub metrics_port: Option<u16>,
    /// Where the container runtime listens; `None` if it is not to be asked.
    pub runtime_socket: Option<PathBuf>,
    /// Where the record lives.
    pub state_directory: PathBuf,
    /// The record to start with where none lives there yet: what another daemon left.
    pub inherited: Record,
}

/// Runs the daemon until `shutdown` is ready; then Adds that wait are refused, the record is
/// flushed and the socket removed.
///
/// # Errors
///
/// If another daemon uses the socket or the state directory, or if the loop has died.
pub async fn run(
    config: Config,
    inbox: Inbox,
    edges: Edges,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let socket = config.socket.clone();
    let listener = socket::bind(&socket)?;
    let result = match Daemon::start(config, inbox, edges).await {
        Ok(daemon) => daemon.serve(listener, shutdown).await,
        Err(fault) => Err(fault),
    };
    // Gone already only if somebody else removed it.
    let _ = std::fs::remove_file(&socket);
    result
}

/// The running parts behind the socket.
struct Daemon {
    inlet: Inlet,
    handle: Handle,
    service: Service,
    event_loop: JoinHandle<thread::JoinHandle<()>>,
    remembered: PathBuf,
    tasks: Tasks,
    metrics_port: Option<u16>,
    runtime_socket: Option<PathBuf>,
    counters: Arc<Counters>,
}

impl Daemon {
    async fn start(config: Config, inbox: Inbox, edges: Edges) -> anyhow::Result<Self> {
        let Config {
            node,
            limits,
            limits_from,
            notes,
            policy,
            socket,
            metrics_port,
            runtime_socket,
            state_directory,
            inherited,
        } = config;
        // The machine's own time names files; the record may make the engine's clock run ahead.
        let now = Clock::start(Timestamp::default()).now();
        let store = Store::open(&state_directory, &node.instance, inherited, now)?;
        let record = store.record().clone();
        let clock = Clock::start(clock::after(&record));
        let (inlet, saved) = (inbox.inlet(), inbox.inlet());
        let writer = Writer::start(store, move |event| saved.send(event))
            .context("start the thread that writes the state")?;
        let handle = Handle::new(inlet.clone(), clock);
        let counters = Arc::<Counters>::default();
        let service =
            Service::new(handle.clone(), Arc::clone(&counters), node.clone(), limits_from, notes);
        let (mut engine, mut first) =
            Engine::new(Boot { node, limits, policy, record }, clock.now());
        // Before any address is given: pods may run that the record has lost.
        if let Some(report) = pod_poll::poll_first(clock.now()).await {
            first.extend(engine.handle(Event::Kernel(report), clock.now()));
        }
        let mut tasks = Tasks::default();
        let (cleanup, orders) = mpsc::unbounded_channel();
        tasks.spawn("cleans up after pods", async {
            cleanup::carry_out_forever(orders).await;
            Ok(())
        });
        let counted = Arc::clone(&counters);
        let event_loop = EventLoop::start(engine, first, clock, writer, edges, cleanup, counted);
        Ok(Self {
            inlet,
            handle,
            service,
            event_loop: tokio::spawn(event_loop.run(inbox)),
            remembered: proto::pending::directory(&socket),
            tasks,
            metrics_port,
            runtime_socket,
            counters,
        })
    }

    async fn serve(
        self,
        listener: UnixListener,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self {
            inlet,
            handle,
            service,
            event_loop,
            remembered,
            mut tasks,
            metrics_port,
            runtime_socket,
            counters,
        } = self;
        // Before any Add is served: it may be for an attachment whose DEL lies in a file. If the disk
        // hangs, the files are applied later.
        let applying = pending_dels::apply_all(&handle, &remembered);
        let _ = tokio::time::timeout(PATIENCE_AT_START, applying).await;
        let polling = pod_poll::poll_forever(handle.clone(), inlet.clone(), runtime_socket);
        tasks.spawn("polls the kernel's pods", polling);
        if let Some(port) = metrics_port {
            let serving = metrics::serve_forever(port, handle.clone(), counters);
            tasks.spawn("serves metrics", async {
                serving.await;
                Ok(())
            });
        }
        tasks.spawn("applies DELs from files", async {
            pending_dels::apply_forever(handle, remembered).await;
            Ok(())
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = tokio::spawn(answer(listener, service, async { drop(stopped.await) }));
        tracing::info!(version = proto::VERSION, "ipamd is serving");
        let why = tokio::select! {
            () = shutdown => Ok(()),
            () = inlet.closed() => Err(anyhow!("the event loop has ended")),
            fault = tasks.ended() => Err(fault),
        };
        match &why {
            Ok(()) => tracing::info!("ipamd is stopping"),
            Err(fault) => tracing::error!(fault = format!("{fault:#}"), "ipamd cannot go on"),
        }
        inlet.tell(Message::Stop);
        drop(stop);
        if tokio::time::timeout(PATIENCE_AT_STOP, &mut server).await.is_err() {
            tracing::warn!("some requests are left without an answer");
            server.abort();
        }
        inlet.tell(Message::End);
        flush(event_loop.await.context("the event loop has died")?).await?;
        why
    }
}

/// Answers on `listener` until `stopped` is ready and the requests in progress are done.
async fn answer(
    listener: UnixListener,
    service: Service,
    stopped: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IpamServer<Service>>().await;
    Server::builder()
        .layer(InterceptorLayer::new(socket::only_root))
        .add_service(health_service)
        .add_service(IpamServer::new(service))
        .serve_with_incoming_shutdown(socket::connections(listener), stopped)
        .await
}

/// Waits until all that was decided is on disk.
async fn flush(writer: thread::JoinHandle<()>) -> anyhow::Result<()> {
    let joined = tokio::task::spawn_blocking(|| writer.join());
    let joined = tokio::time::timeout(PATIENCE_AT_STOP, joined).await;
    joined
        .context("the disk does not take the state")?
        .context("wait for the writer")?
        .map_err(|_panic| anyhow::anyhow!("the thread that writes the state has died"))
}
