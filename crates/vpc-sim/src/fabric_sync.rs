//! Applies the network that the model wants to the fabric in the kernel.
//!
//! This module knows the network namespace of each instance. It must not know how the kernel is
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};

use ec2_model::fabric::{Fabric as Wanted, FabricEni, FabricRoute};
use ec2_model::id::{InstanceId, SubnetId};
use ipnet::{IpNet, Ipv4Net};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::fabric::{
    AttachedEni, Fabric, Instance, ListenError, NetnsName, Outside, Report, Routing, StopError,
    SyncError, VpcSnapshot,
};
use crate::topology::outside_netns;

/// A running fabric, and the namespaces of the instances.
#[derive(Debug)]
pub struct FabricSync {
    /// `None` after it was stopped.
    fabric: Mutex<Option<Fabric>>,
    netns: StdMutex<BTreeMap<InstanceId, NetnsName>>,
    /// The namespace of the outside, if a route leads there.
    outside: NetnsName,
}

/// Why an instance cannot get this namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The instance has another one, which may hold what a node has made.
    #[error("{instance} has the namespace {netns}")]
    HasOne {
        /// The instance.
        instance: InstanceId,
        /// Its namespace.
        netns: NetnsName,
    },
    /// It belongs to another instance, or to the fabric itself.
    #[error("the namespace {0} is in use")]
    InUse(NetnsName),
}

/// Why a listener in the fabric could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum FabricSocketError {
    /// The fabric was stopped.
    #[error("the fabric was stopped")]
    Stopped,
    /// The fabric refused.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The tokio runtime refused the socket.
    #[error("hand a socket of the fabric to the runtime")]
    Runtime(#[from] std::io::Error),
}

impl FabricSync {
    /// Syncs `fabric` for the instances in `netns`. Other instances get no devices.
    #[must_use]
    pub fn new(fabric: Fabric, netns: BTreeMap<InstanceId, NetnsName>, outside: NetnsName) -> Self {
        Self { fabric: Mutex::new(Some(fabric)), netns: StdMutex::new(netns), outside }
    }

    /// Gives an instance its namespace. Its devices appear there at the next [`Self::sync`].
    ///
    /// # Errors
    /// If the instance has another one, or if the namespace is in use.
    pub fn place(&self, instance: InstanceId, netns: NetnsName) -> Result<(), PlaceError> {
        let mut placed = self.placed();
        match placed.get(&instance) {
            Some(has) if *has == netns => return Ok(()),
            Some(has) => return Err(PlaceError::HasOne { instance, netns: has.clone() }),
            None => {}
        }
        let is_fabric = outside_netns(&netns).is_ok_and(|outside| outside == self.outside);
        if is_fabric || netns == self.outside || placed.values().any(|taken| *taken == netns) {
            return Err(PlaceError::InUse(netns));
        }
        placed.insert(instance, netns);
        Ok(())
    }

    /// Makes the kernel match `wanted`. It is called under the lock, so that of two concurrent
    /// calls the later one applies the later state.
    ///
    /// # Errors
    /// If a change failed. All other changes were made.
    pub async fn sync(&self, wanted: impl FnOnce() -> Wanted + Send) -> Result<Report, SyncError> {
        match self.fabric.lock().await.as_mut() {
            Some(fabric) => fabric.sync(&self.snapshot(&wanted())).await,
            None => Ok(Report::default()),
        }
    }

    /// The namespace of each instance that has one.
    #[must_use]
    pub fn netns(&self) -> BTreeMap<InstanceId, NetnsName> {
        self.placed().clone()
    }

    fn placed(&self) -> MutexGuard<'_, BTreeMap<InstanceId, NetnsName>> {
        self.netns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The namespace of the outside, if a route leads there.
    #[must_use]
    pub fn outside(&self) -> &NetnsName {
        &self.outside
    }

    /// Sockets of TCP and UDP on a port of the outside.
    ///
    /// # Errors
    /// If the fabric was stopped, or if there is no outside.
    pub async fn outside_sockets(
        &self,
        port: u16,
    ) -> Result<(std::net::TcpListener, std::net::UdpSocket), FabricSocketError> {
        let fabric = self.fabric.lock().await;
        let fabric = fabric.as_ref().ok_or(FabricSocketError::Stopped)?;
        Ok(fabric.outside_sockets(&self.outside, port)?)
    }

    /// A listener on `address` inside the fabric.
    ///
    /// # Errors
    /// If the fabric was stopped or cannot be entered, or if the address is not its own.
    pub async fn listen(&self, address: SocketAddr) -> Result<TcpListener, FabricSocketError> {
        let fabric = self.fabric.lock().await;
        let fabric = fabric.as_ref().ok_or(FabricSocketError::Stopped)?;
        let listener = fabric.tcp_listener(address)?;
        listener.set_nonblocking(true)?;
        Ok(TcpListener::from_std(listener)?)
    }

    /// Removes all that the fabric made in the kernel. A second call does nothing.
    ///
    /// # Errors
    /// If something is left. The rest was removed.
    pub async fn stop(&self) -> Result<(), StopError> {
        match self.fabric.lock().await.take() {
            Some(fabric) => fabric.stop().await,
            None => Ok(()),
        }
    }
}

impl FabricSync {
    fn snapshot(&self, wanted: &Wanted) -> VpcSnapshot {
        let placed = self.placed();
        let instances = wanted.instances.iter().filter_map(|instance| {
            let enis = instance.enis.iter().map(attached).collect();
            Some(Instance { netns: placed.get(&instance.id)?.clone(), enis })
        });
        VpcSnapshot {
            cidrs: wanted.vpcs.iter().flat_map(|vpc| &vpc.cidrs).copied().collect(),
            instances: instances.collect(),
            routing: routing(wanted, &self.outside),
        }
    }
}

fn routing(wanted: &Wanted, netns: &NetnsName) -> Routing {
    let mut routing = Routing::default();
    let mut outside = Outside {
        netns: netns.clone(),
        leaving: BTreeMap::new(),
        reachable: BTreeMap::new(),
        open: BTreeSet::new(),
    };
    for vpc in &wanted.vpcs {
        routing.pass_within(&vpc.cidrs);
        for subnet in &vpc.subnets {
            for (destination, route) in &subnet.routes {
                let same = |net: &&IpNet| net.addr().is_ipv4() == destination.addr().is_ipv4();
                let Some(from) = subnet.cidrs.iter().find(same) else { continue };
                match (route, from) {
                    (FabricRoute::Peering, _) => {
                        routing.passes.insert((*from, *destination));
                    }
                    (FabricRoute::InternetGateway, IpNet::V4(_)) => {
                        open_ipv4(&mut outside, wanted, &subnet.id);
                    }
                    (FabricRoute::InternetGateway, IpNet::V6(from)) => {
                        outside.open.insert(*from);
                    }
                    (FabricRoute::NatGateway { public }, IpNet::V4(from)) => {
                        outside.leaving.insert(*from, *public);
                    }
                    (FabricRoute::NatGateway { .. }, IpNet::V6(_)) => {}
                }
            }
        }
    }
    routing.outside = leads_out(wanted).then_some(outside);
    routing
}

/// Whether a subnet has a route to the outside.
pub(crate) fn leads_out(wanted: &Wanted) -> bool {
    let routes = wanted.vpcs.iter().flat_map(|vpc| &vpc.subnets).flat_map(|it| it.routes.values());
    routes.into_iter().any(|route| match route {
        FabricRoute::InternetGateway | FabricRoute::NatGateway { .. } => true,
        FabricRoute::Peering => false,
    })
}

/// The internet gateway translates the private addresses that have a public one.
fn open_ipv4(outside: &mut Outside, wanted: &Wanted, subnet: &SubnetId) {
    let enis = wanted.instances.iter().flat_map(|instance| &instance.enis);
    for (private, public) in enis.filter(|eni| eni.subnet_id == *subnet).flat_map(|it| &it.public) {
        outside.leaving.insert((*private).into(), *public);
        outside.reachable.insert(*public, *private);
    }
}

fn attached(eni: &FabricEni) -> AttachedEni {
    AttachedEni {
        id: eni.id.to_string(),
        mac: eni.mac.octets(),
        network_card: eni.network_card,
        device_index: eni.device_index,
        is_primary: eni.is_primary,
        ipv4: eni
            .primary
            .zip(eni.subnet_cidr)
            .map(|(primary, subnet)| Ipv4Net::new_assert(primary, subnet.prefix_len())),
        assigned: assigned(eni),
        in_ipv6_subnet: eni.subnet_ipv6_cidr.is_some(),
        source_dest_check: eni.source_dest_check,
    }
}

fn assigned(eni: &FabricEni) -> BTreeSet<IpNet> {
    let ipv4 = eni.secondaries.iter().copied().map(IpAddr::V4);
    let ipv6 = eni.ipv6_addresses.iter().copied().map(IpAddr::V6);
    let ipv4_prefixes = eni.prefixes.iter().copied().map(IpNet::V4);
    let ipv6_prefixes = eni.ipv6_prefixes.iter().copied().map(IpNet::V6);
    ipv4.chain(ipv6).map(IpNet::from).chain(ipv4_prefixes).chain(ipv6_prefixes).collect()
}
