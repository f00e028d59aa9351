//! Applies the network that the model wants to the fabric in the kernel.
//!
//! This module knows the network namespace of each instance. It must not know how the kernel is
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ec2_model::fabric::{Fabric as Wanted, FabricEni};
use ec2_model::id::InstanceId;
use ipnet::{IpNet, Ipv4Net};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::fabric::{
    AttachedEni, Fabric, Instance, ListenError, NetnsName, Report, StopError, SyncError,
    VpcSnapshot,
};

/// A running fabric, and the namespaces of the instances.
#[derive(Debug)]
pub struct FabricSync {
    /// `None` after it was stopped.
    fabric: Mutex<Option<Fabric>>,
    netns: BTreeMap<InstanceId, NetnsName>,
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
    pub fn new(fabric: Fabric, netns: BTreeMap<InstanceId, NetnsName>) -> Self {
        Self { fabric: Mutex::new(Some(fabric)), netns }
    }

    /// Makes the kernel match `wanted`. It is called under the lock, so that of two concurrent
    /// calls the later one applies the later state.
    ///
    /// # Errors
    /// If a change failed. All other changes were made.
    pub async fn sync(&self, wanted: impl FnOnce() -> Wanted + Send) -> Result<Report, SyncError> {
        match self.fabric.lock().await.as_mut() {
            Some(fabric) => fabric.sync(&snapshot(&wanted(), &self.netns)).await,
            None => Ok(Report::default()),
        }
    }

    /// The namespace of each instance that has one.
    #[must_use]
    pub fn netns(&self) -> &BTreeMap<InstanceId, NetnsName> {
        &self.netns
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

fn snapshot(wanted: &Wanted, netns: &BTreeMap<InstanceId, NetnsName>) -> VpcSnapshot {
    let vpcs = wanted.instances.iter().flat_map(|instance| &instance.vpc_cidrs);
    let instances = wanted.instances.iter().filter_map(|instance| {
        let enis = instance.enis.iter().map(attached).collect();
        Some(Instance { netns: netns.get(&instance.id)?.clone(), enis })
    });
    VpcSnapshot { cidrs: vpcs.copied().collect(), instances: instances.collect() }
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
