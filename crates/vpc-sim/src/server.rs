//! A whole simulator: topology, model and listeners, and the order in which they start and stop.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use ec2_model::Model;
use ec2_model::id::InstanceId;
use serde::Serialize;
use serde_saphyr::Spanned;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::ec2::Access;
use crate::fabric::{
    Fabric, FabricConfig, NetnsName, OUTSIDE_V4, OUTSIDE_V6, StartError, StopError, SyncError,
};
use crate::fabric_sync::{FabricSocketError, FabricSync, leads_out};
use crate::imds::{Audience, Imds};
use crate::seed::{home, seed};
use crate::serve::serve;
use crate::simulator::Simulator;
use crate::topology::{Topology, TopologyError, outside_netns};
use crate::{admin, ec2, imds, outside};

/// The address of IMDS in a VPC. EC2 listens beside it.
const IN_FABRIC: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
const IN_FABRIC_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));
const IMDS_PORT: u16 = 80;
/// EC2 has no fixed address in a real VPC, so this port is our choice.
const EC2_PORT_IN_FABRIC: u16 = 8773;

/// The settings of a simulator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The topology file.
    pub config: PathBuf,
    /// Address of EC2 and of the operator's endpoint. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// Address of the first instance's IMDS; each further instance takes the next port. Port 0
    /// takes any free port for each. `None` opens no IMDS listener outside the fabric. Instances
    /// started later have IMDS in the fabric only.
    pub imds_listen: Option<SocketAddr>,
    /// Whether instances get real devices. Needs root.
    pub fabric: bool,
}

/// Why the simulator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The topology file is wrong.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// An address of the machine cannot be used.
    #[error("listen on {address} for {what}")]
    Listen {
        /// `EC2` or `IMDS`.
        what: &'static str,
        /// The requested address.
        address: SocketAddr,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// No port is left below 65536 for this instance.
    #[error("no port left for IMDS of {0}: give `--imds-listen` a lower one")]
    NoPort(InstanceId),
    /// The fabric cannot start.
    #[error(transparent)]
    Fabric(#[from] StartError),
    /// The seeded ENIs could not be attached.
    #[error(transparent)]
    FabricSync(#[from] SyncError),
    /// After another failure, the fabric could not be removed.
    #[error(transparent)]
    FabricStop(#[from] StopError),
    /// An address in the fabric cannot be used.
    #[error(transparent)]
    FabricSocket(#[from] FabricSocketError),
}

/// The addresses of a running simulator. `--ready-file` holds them as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// Base URL of EC2. The operator's endpoint is below it at `/_sim`.
    pub ec2: String,
    /// Base URLs of IMDS outside the fabric, by instance.
    pub imds: BTreeMap<String, String>,
    /// The instances in the file's order.
    pub instances: Vec<InstanceId>,
    /// The addresses inside the fabric, if there is one.
    pub fabric: Option<FabricEndpoints>,
}

/// The addresses that instances use inside the fabric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FabricEndpoints {
    /// Base URL of EC2.
    pub ec2: String,
    /// Base URL of IMDS.
    pub imds: String,
    /// Network namespace by instance.
    pub netns: BTreeMap<String, String>,
    /// The host beyond the gateways, if a route leads there.
    pub outside: Option<OutsideEndpoint>,
}

/// The host in the outside, which answers ping and tells each client its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutsideEndpoint {
    /// Its network namespace.
    pub netns: String,
    /// Its addresses.
    pub addresses: [IpAddr; 2],
    /// The port of its server, for TCP and UDP.
    pub port: u16,
}

/// A running simulator. Dropping it stops it. [`Server::stop`] also reports errors.
#[derive(Debug)]
pub struct Server {
    simulator: Arc<Simulator>,
    endpoints: Endpoints,
    tasks: JoinSet<()>,
}

impl Server {
    /// Starts a simulator. It answers when this returns.
    ///
    /// # Errors
    /// If the topology, an address or the fabric fails. Then nothing is left running.
    pub async fn start(settings: &Settings) -> Result<Self, ServerError> {
        let topology = Topology::read(&settings.config)?;
        let clock = Clock::start(topology.clock);
        let (mut world, instances) =
            seed(&topology, clock.now()).map_err(|error| error.in_file(&settings.config))?;
        let ec2_listener = bind("EC2", settings.listen).await?;
        let imds_listeners = bind_imds(settings.imds_listen, &topology, &instances).await?;
        let leads_out = leads_out(&world.home_mut().fabric(clock.now()));
        let fabric_sync = match settings.fabric {
            true => Some(start_fabric(&topology, &instances, world.home_mut(), &clock).await?),
            false => None,
        };
        let simulator = Arc::new(Simulator::new(world, clock, fabric_sync));
        let imds = Arc::new(Imds::new(Arc::clone(&simulator)));
        let api = ec2::router(Arc::clone(&simulator), access(&topology));

        let endpoints = Endpoints {
            ec2: url(&ec2_listener),
            imds: imds_listeners.iter().map(|(id, at)| (id.to_string(), url(at))).collect(),
            instances,
            fabric: simulator.fabric_sync().map(|sync| fabric_endpoints(sync, leads_out)),
        };
        let mut served = match simulator.fabric_sync() {
            Some(fabric_sync) => listen_in_fabric(fabric_sync, &api, &imds).await?,
            None => Vec::new(),
        };
        for (id, listener) in imds_listeners {
            served.push((listener, imds::router(Arc::clone(&imds), Audience::Instance(id))));
        }
        let operator = admin::router(Arc::clone(&simulator));
        served.push((ec2_listener, api.merge(operator)));

        let mut tasks: JoinSet<()> =
            served.into_iter().map(|(listener, router)| serve(listener, router)).collect();
        if let (Some(fabric_sync), true) = (simulator.fabric_sync(), leads_out) {
            let (tcp, udp) = fabric_sync.outside_sockets(outside::PORT).await?;
            tasks.spawn(outside::serve(tcp, udp));
        }
        let timekeeper = Arc::clone(&simulator);
        tasks.spawn(async move { timekeeper.keep_time().await });
        Ok(Self { simulator, endpoints, tasks })
    }

    /// The addresses of the simulator.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The simulator behind the listeners.
    #[must_use]
    pub fn simulator(&self) -> &Arc<Simulator> {
        &self.simulator
    }

    /// Closes all connections and removes the fabric.
    ///
    /// # Errors
    /// If something of the fabric is left.
    pub async fn stop(mut self) -> Result<(), StopError> {
        self.tasks.shutdown().await;
        match self.simulator.fabric_sync() {
            Some(fabric_sync) => fabric_sync.stop().await,
            None => Ok(()),
        }
    }
}

/// Reads a topology and seeds a world with it, without starting anything.
///
/// # Errors
/// If the file cannot be read, is not a topology, or holds what EC2 would refuse.
pub fn check(config: &Path) -> Result<(), TopologyError> {
    let topology = Topology::read(config)?;
    seed(&topology, Clock::start(topology.clock).now())
        .map(|_world| ())
        .map_err(|error| error.in_file(config))
}

fn access(topology: &Topology) -> Access {
    let known = "Topology::check accepted it";
    let account = |(key, account): (&String, &Spanned<String>)| {
        (key.clone(), account.value.parse().expect(known))
    };
    let regions = topology.regions.iter().chain([&topology.region]);
    Access {
        home: home(topology),
        regions: regions.map(|region| region.value.parse().expect(known)).collect(),
        access_keys: topology.access_keys.iter().map(account).collect(),
        anonymous: topology.anonymous,
    }
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, ServerError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ServerError::Listen { what, address, source })
}

async fn bind_imds(
    base: Option<SocketAddr>,
    topology: &Topology,
    ids: &[InstanceId],
) -> Result<Vec<(InstanceId, TcpListener)>, ServerError> {
    let Some(base) = base else { return Ok(Vec::new()) };
    let mut listeners = Vec::new();
    for (index, (id, instance)) in ids.iter().zip(&topology.instances).enumerate() {
        let own = instance.value.imds_port.as_ref().map(|port| port.value);
        let port = own.or_else(|| nth_port(base.port(), index));
        let port = port.ok_or_else(|| ServerError::NoPort(id.clone()))?;
        listeners.push((id.clone(), bind("IMDS", SocketAddr::new(base.ip(), port)).await?));
    }
    Ok(listeners)
}

/// `base` plus `index`, or 0 if `base` is 0. `None` if that exceeds the highest port.
fn nth_port(base: u16, index: usize) -> Option<u16> {
    match base {
        0 => Some(0),
        base => base.checked_add(u16::try_from(index).ok()?),
    }
}

async fn start_fabric(
    topology: &Topology,
    ids: &[InstanceId],
    model: &mut Model,
    clock: &Clock,
) -> Result<FabricSync, ServerError> {
    let known = "Topology::check accepted the name";
    let name = |name: &Spanned<String>| name.value.parse::<NetnsName>().expect(known);
    let instances = ids.iter().zip(&topology.instances);
    let netns = instances.filter_map(|(id, instance)| {
        let netns = instance.value.netns.as_ref().map(name)?;
        Some((id.clone(), netns))
    });
    let config = match &topology.fabric_netns {
        Some(netns) => FabricConfig { netns: name(netns) },
        None => FabricConfig::default(),
    };
    let outside = outside_netns(&config.netns).expect(known);
    let fabric_sync = FabricSync::new(Fabric::start(config).await?, netns.collect(), outside);
    match fabric_sync.sync(|| model.fabric(clock.now())).await {
        Ok(_report) => Ok(fabric_sync),
        Err(error) => {
            fabric_sync.stop().await?;
            Err(error.into())
        }
    }
}

async fn listen_in_fabric(
    fabric_sync: &FabricSync,
    api: &Router,
    imds: &Arc<Imds>,
) -> Result<Vec<(TcpListener, Router)>, ServerError> {
    let metadata = imds::router(Arc::clone(imds), Audience::BySource);
    let served = [
        (SocketAddr::new(IN_FABRIC, EC2_PORT_IN_FABRIC), api),
        (SocketAddr::new(IN_FABRIC_V6, EC2_PORT_IN_FABRIC), api),
        (SocketAddr::new(IN_FABRIC, IMDS_PORT), &metadata),
        (SocketAddr::new(IN_FABRIC_V6, IMDS_PORT), &metadata),
    ];
    let mut listeners = Vec::new();
    for (address, router) in served {
        listeners.push((fabric_sync.listen(address).await?, router.clone()));
    }
    Ok(listeners)
}

fn fabric_endpoints(fabric_sync: &FabricSync, leads_out: bool) -> FabricEndpoints {
    let netns =
        fabric_sync.netns().into_iter().map(|(id, name)| (id.to_string(), name.to_string()));
    FabricEndpoints {
        ec2: format!("http://{IN_FABRIC}:{EC2_PORT_IN_FABRIC}"),
        imds: format!("http://{IN_FABRIC}"),
        netns: netns.collect(),
        outside: leads_out.then(|| OutsideEndpoint {
            netns: fabric_sync.outside().to_string(),
            addresses: [OUTSIDE_V4.addr().into(), OUTSIDE_V6.into()],
            port: outside::PORT,
        }),
    }
}

fn url(listener: &TcpListener) -> String {
    let address = listener.local_addr().expect("a bound socket has an address");
    format!("http://{address}")
}

#[cfg(test)]
mod tests {
    use super::nth_port;

    #[test]
    fn imds_ports_count_up() {
        assert_eq!(nth_port(1338, 0), Some(1338));
        assert_eq!(nth_port(1338, 2), Some(1340));
        assert_eq!(nth_port(0, 2), Some(0));
        assert_eq!(nth_port(65_535, 1), None);
    }
}
