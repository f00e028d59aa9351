//! `ipamd run`: learns which instance the node is, then runs the agent and makes the EC2 calls that the
//! agent asks for.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use agent::{
    BindAddress, Config, Edges, EnforcingMode, Inlet, Introspection, NeighbourLimits, Notes,
    PolicyAgentConfig, SettingsRefused, StateDirectory, host,
};
use anyhow::Context as _;
use aws::{ConnectOptions, Ec2, Imds, NodeFacts, Roots};
use command_line::{Exit, Failure};
use ipam::call::{Action, CallError, CallErrorKind, CallId, Ec2Call};
use ipam::event::Event;
use ipam::id::BootId;
use ipam::policy::{Policy, Provisioning};
use ipam::record::Record;
use ipam::time::Timestamp;
use k8s::Reports;
use settings::{ApiServer, ConfigMaps, InForce, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tracing::{error, info, warn};

use crate::cloud::Cloud;
use crate::facts::{FactsSource, Identity, Learnt};
use crate::install::entry;
use crate::kubernetes::Outbox;
use crate::limits::{self, Known};
use crate::live::{Live, Voice};
use crate::logging::LevelSwitch;
use crate::traces::Traces;
use crate::{config_maps, hints, install, kubernetes, logging, migration, node, traces};

/// Outcomes of ADDs and DELs that wait to be reported. Further ones are dropped.
const POD_NEWS_AT_ONCE: usize = 256;

/// The arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Also put the plugin on the node, and the conflist once a pod could get an address. Both stay at the end.
    #[arg(long)]
    install: bool,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let started = Instant::now();
    let in_force = InForce::of_process()?;
    let levels = logging::start(&in_force.settings)?;
    // A conflist that cannot be made ends the start: nothing but a change of the settings would help.
    let files = arguments.install.then(|| install::Files::of(&in_force.settings)).transpose()?;
    let in_force = config_maps::recall(in_force);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One for the event loop and one for everything else; no task runs for long.
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(daemon(in_force, started, files, levels));
    // Calls to EC2 that are still in flight are on record, so the next start settles them.
    runtime.shutdown_background();
    result
}

async fn daemon(
    (in_force, maps): (InForce, ConfigMaps),
    started: Instant,
    files: Option<install::Files>,
    levels: LevelSwitch,
) -> Result<(), Failure> {
    let mut signals = Signals::listen().context("listen for signals")?;
    let hangups = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let settings = in_force.settings.clone();
    let prepared = tokio::select! {
        prepared = prepare(&settings) => prepared?,
        () = signals.next() => return Ok(()),
    };
    let Prepared { identity, boot, facts, facts_source, cloud, limits, policy, state, inherited } =
        prepared;
    let limits::Learnt { known: Known { limits, source }, late } = limits;

    let (inlet, inbox) = agent::channel();
    let (calls, called) = mpsc::unbounded_channel();
    let (host, wanted) = watch::channel(None);
    let host::Reports { notes, repairs } = host::Reports::default();
    let (pod_news, outcomes) = mpsc::channel(POD_NEWS_AT_ONCE);
    let (troubles, queue) = Reports::queue();
    let (tell_maps, newest_maps) = watch::channel(None);
    let settings_refused = SettingsRefused::default();

    let reports = host::Reports { notes: notes.clone(), repairs: repairs.clone() };
    let neighbours = match settings.raise_neighbour_limits {
        true => NeighbourLimits::Raise,
        false => NeighbourLimits::Keep,
    };
    let keeper = tokio::spawn(host::keep(wanted, inlet.clone(), reports, neighbours));
    let ranging = tokio::spawn(hints::send_ranges_forever(facts.clone(), inlet.clone()));
    let hinting = match settings.provisioning {
        // The metadata service's answers are all that there is, so none is a hint.
        Provisioning::ImdsOnly => tokio::spawn(std::future::pending()),
        Provisioning::Always | Provisioning::WhileSchedulable | Provisioning::Off => {
            tokio::spawn(hints::send_forever(inlet.clone()))
        }
    };
    let caller = tokio::spawn(make_calls(cloud, called, inlet.clone(), troubles.clone()));
    let outbox = Outbox { pod_news: outcomes, reports: (troubles.clone(), queue), maps: tell_maps };
    // Nothing waits for it, and the daemon goes on without it.
    tokio::spawn(kubernetes::attend(settings.clone(), outbox, inlet.clone(), notes.clone()));
    let traces = Traces::start(&settings, &facts);
    let installing = install(files, settings.socket.clone(), notes.clone());
    let voice =
        Voice { notes: notes.clone(), reports: Some(troubles), refused: settings_refused.clone() };
    let vcpus = settings::known_vcpus(&facts.instance_type);
    let live = Live::new(in_force, limits, vcpus, inlet, maps, levels, voice);
    let config = Config {
        node: node::node(&settings, &facts, &boot),
        limits,
        limits_from: source.to_string(),
        notes: notes.clone(),
        started,
        host_repairs: repairs,
        settings_refused,
        tracer: traces.tracer.clone(),
        policy,
        pod_mtu: settings.pod_mtu,
        socket: settings.socket,
        metrics_port: settings.metrics_port,
        introspection: settings.introspection.map(|bind| introspection(bind, &live)),
        runtime_socket: settings.runtime_socket,
        with_api_server: matches!(settings.api_server, ApiServer::Used { .. }),
        pod_news,
        policy_agent: policy_agent(settings.network_policies, &facts),
        inherited,
    };
    let ended = tokio::select! {
        ended = agent::run(config, state, inbox, Edges { calls, host }, signals.next()) => ended,
        refuted = identity.refuted(&facts, &notes), if facts_source == FactsSource::Kept => {
            Err(refuted)
        }
        never = live.follow(hangups, newest_maps, late) => match never {},
        never = installing => match never {},
        // Without one of these tasks the daemon would be half a daemon, so it ends.
        panic = panicked(keeper) => Err(panic).context("keep the ENIs' links up"),
        panic = panicked(caller) => Err(panic).context("make EC2 calls"),
        panic = panicked(hinting) => Err(panic).context("read the metadata service"),
        panic = panicked(ranging) => Err(panic).context("read the VPC's ranges"),
    };
    traces.flush().await;
    if let Err(fault) = &ended {
        error!(fault = format!("{fault:#}"), "ipamd ends");
    }
    Ok(ended?)
}

/// What the daemon needs before it decides anything.
struct Prepared {
    identity: Identity,
    boot: BootId,
    facts: NodeFacts,
    facts_source: FactsSource,
    cloud: Cloud,
    limits: limits::Learnt,
    policy: Policy,
    state: StateDirectory,
    inherited: Record,
}

/// Learns all that takes time, then waits until no other daemon holds the state directory.
async fn prepare(settings: &Settings) -> Result<Prepared, Failure> {
    let boot = agent::boot_id().context("read the id of the machine's boot")?;
    let identity = Identity::new(boot.clone(), &settings.state_directory);
    let (Learnt { facts, source: facts_source }, cloud, limits) =
        learn(settings, &identity).await?;
    let Known { limits: known, source } = &limits.known;
    let vcpus = settings::known_vcpus(&facts.instance_type);
    let policy = settings::policy(settings, *known, vcpus)?;
    for warning in settings::warnings(settings, &policy, *known) {
        warn!(warning, "setting");
    }
    info!(?policy, limits = ?known, limits_from = %source, "effective policy");
    // All that takes time is done, so this daemon takes over as soon as another one ends. Whatever follows is for
    // the node's only daemon.
    let (directory, pod) = (&settings.state_directory, settings.pod_name.as_deref());
    let state = StateDirectory::take(directory, &settings.socket, pod).await?;
    let inherited = migration::inherit(settings, &facts, now()).await?;
    Ok(Prepared { identity, boot, facts, facts_source, cloud, limits, policy, state, inherited })
}

fn policy_agent(
    mode: Option<settings::EnforcingMode>,
    facts: &NodeFacts,
) -> Option<PolicyAgentConfig> {
    let mode = match mode? {
        settings::EnforcingMode::Standard => EnforcingMode::Standard,
        settings::EnforcingMode::Strict => EnforcingMode::Strict,
    };
    Some(PolicyAgentConfig { mode, region: facts.region.clone() })
}

fn introspection(bind: settings::BindAddress, live: &Live) -> Introspection {
    let bind = match bind {
        settings::BindAddress::Loopback(address) => BindAddress::Loopback(address),
        settings::BindAddress::Unix(path) => BindAddress::Unix(path),
    };
    Introspection { bind, settings: live.shown() }
}

async fn install(files: Option<install::Files>, socket: PathBuf, notes: Notes) -> Infallible {
    match files {
        Some(files) => entry::keep(files, &socket, notes).await,
        None => std::future::pending().await,
    }
}

/// The machine's clock.
fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// Ready only if the task panics. A task that ends does so because the agent ends too.
async fn panicked(task: JoinHandle<()>) -> JoinError {
    match task.await {
        Ok(()) => std::future::pending().await,
        Err(panic) => panic,
    }
}

/// The node's facts, who answers for EC2, and the limits of the instance.
async fn learn(
    settings: &Settings,
    identity: &Identity,
) -> Result<(Learnt, Cloud, limits::Learnt), Failure> {
    let learnt = identity.learn().await;
    let facts = &learnt.facts;
    info!(?facts, "node");
    let (instance_type, directory) = (&facts.instance_type, &settings.state_directory);
    if settings.provisioning == Provisioning::ImdsOnly {
        let limits = limits::learn_without_ec2(instance_type, directory);
        return Ok((learnt, Cloud::Metadata(Imds::connect()), limits));
    }
    let ec2 = connect(settings, facts).await?;
    let limits = limits::learn(&ec2, instance_type, directory, learnt.source).await;
    Ok((learnt, Cloud::Ec2(ec2), limits))
}

/// A client for EC2.
async fn connect(settings: &Settings, facts: &NodeFacts) -> Result<Ec2, Failure> {
    let roots = Roots::of(settings.ca_bundle.clone());
    if roots == Roots::Amazon {
        warn!(
            "the system has no CA certificates; AWS is trusted by the roots of Amazon that ipamd brings along"
        );
    }
    // In a task of its own, since the SDK panics at what it does not expect in its environment.
    let connecting = tokio::spawn(Ec2::connect(ConnectOptions {
        region: facts.region.clone(),
        endpoint: settings.ec2_endpoint.clone(),
        proxies: traces::proxies(settings),
        roots,
        instance: facts.instance.clone(),
        vpc: facts.vpc.clone(),
        primary_mac: facts.primary_mac,
        availability_zone: facts.availability_zone.clone(),
        http_timeout: settings.http_timeout,
        credentials: None,
    }));
    let connected = connecting.await.map_err(|panic| no_client(&panicked_with(panic)))?;
    connected.map_err(|fault| no_client(&format!("{:#}", anyhow::Error::from(fault))))
}

fn panicked_with(panic: JoinError) -> String {
    let panic = panic.try_into_panic();
    let why = panic.as_deref().map_or("it was stopped", |payload| logging::panic_text(payload));
    why.to_owned()
}

/// The client for EC2 cannot be set up.
fn no_client(why: &str) -> Failure {
    let message = format!("the client for EC2 cannot be set up: {why}");
    error!("{message}");
    Failure::new(Exit::NoClient, message)
}

/// Makes the calls that arrive, concurrently, until their sender is dropped.
async fn make_calls(
    cloud: Cloud,
    mut calls: mpsc::UnboundedReceiver<(CallId, Ec2Call)>,
    inlet: Inlet,
    troubles: Reports,
) {
    while let Some((id, call)) = calls.recv().await {
        let (cloud, inlet, troubles) = (cloud.clone(), inlet.clone(), troubles.clone());
        tokio::spawn(async move {
            let done = make_call(cloud, id, call.clone()).await;
            if let Event::CallDone { result: Err(fault), .. } = &done {
                kubernetes::report_call(&call, fault, &troubles);
            }
            inlet.send(done);
        });
    }
}

/// Makes `call` and returns its outcome.
pub(crate) async fn make_call(cloud: Cloud, id: CallId, call: Ec2Call) -> Event {
    let point = point_of(call.action());
    let by_metadata = matches!(cloud, Cloud::Metadata(_));
    failpoint::pass("calling", point);
    let made = tokio::spawn(async move { cloud.execute(&call).await });
    let result = made.await.unwrap_or_else(|_panic| Err(client_panicked()));
    failpoint::pass("called", point);
    match &result {
        Err(fault) if by_metadata => {
            warn!(id = id.0, %fault, "metadata service cannot be read in place of EC2");
        }
        Err(fault) => warn!(id = id.0, %fault, kind = ?fault.kind, "EC2 call failed"),
        Ok(_) => {}
    }
    Event::CallDone { id, result }
}

/// The action in the name of a fail point. EC2 has one name for two of our actions.
fn point_of(action: Action) -> &'static str {
    if action == Action::SetSecurityGroups { "SetSecurityGroups" } else { action.as_str() }
}

/// Whether EC2 acted is unknown.
fn client_panicked() -> CallError {
    CallError {
        kind: CallErrorKind::OutcomeUnknown,
        code: "ClientPanicked".to_owned(),
        message: "the EC2 client has panicked".to_owned(),
    }
}

/// The signals that stop the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use datapath::Mtu;

    use super::*;

    /// The package `settings` depends on neither `proto` nor `datapath`, so it repeats their values.
    #[test]
    fn settings_agree_with_plugin_and_kernel() {
        let read = |bytes: &str| {
            let variables = [("AWS_VPC_ENI_MTU".to_owned(), bytes.to_owned())];
            Settings::read(&variables.into_iter().collect()).unwrap()
        };
        assert_eq!(read("").socket, std::path::Path::new(proto::DEFAULT_SOCKET));
        let mtu = |bytes: &str| Mtu::try_from(u32::from(read(bytes).mtu));
        assert_eq!(mtu(""), Ok(Mtu::JUMBO));
        assert!(mtu("576").is_ok());
    }
}
