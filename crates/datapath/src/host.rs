//! What the node's own network needs before it can carry pods.

use crate::link;
use crate::netlink::{KernelError, Netlink};
use crate::sysctl::{self, SysctlError};
use crate::{Change, MacAddr, Mtu};

/// The node's own network as it shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostConfig {
    /// Hardware address of the primary ENI.
    pub primary_mac: MacAddr,
    /// The primary ENI's MTU.
    pub mtu: Mtu,
}

/// Why the node's own network is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum HostSetupError {
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The links could not be read.
    #[error("list the links")]
    ReadLinks(#[source] KernelError),
    /// No link has the primary ENI's hardware address.
    #[error("no link has hardware address {mac}")]
    NoPrimary {
        /// The hardware address.
        mac: MacAddr,
    },
    /// The MTU could not be set.
    #[error("set the MTU of {name} to {mtu}")]
    SetMtu {
        /// The link's name.
        name: String,
        /// What it should be.
        mtu: Mtu,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// A sysctl could not be set.
    #[error("set a sysctl of the node")]
    Sysctl(#[source] SysctlError),
}

/// Makes the node's own network ready to carry pods: the primary ENI's MTU; loose reverse path
/// filtering there, for answers to a pod on another ENI may come in by it; forwarding.
///
/// # Errors
///
/// [`HostSetupError`]; what was done until then stays, and is right.
pub async fn setup(config: &HostConfig) -> Result<Change, HostSetupError> {
    let HostConfig { primary_mac: mac, mtu } = *config;
    let netlink = Netlink::open().map_err(HostSetupError::Socket)?;
    let primary = link::by_mac(&netlink, mac)
        .await
        .map_err(HostSetupError::ReadLinks)?
        .ok_or(HostSetupError::NoPrimary { mac })?;
    let mut change = Change::Unchanged;
    if primary.mtu != mtu.bytes() {
        link::set_mtu(&netlink, primary.index, mtu)
            .await
            .map_err(|source| HostSetupError::SetMtu { name: primary.name.clone(), mtu, source })?;
        change = Change::Updated;
    }
    let loose = format!("net/ipv4/conf/{}/rp_filter", primary.name);
    for (key, value) in [(loose.as_str(), "2"), ("net/ipv4/ip_forward", "1")] {
        change = change.max(sysctl::set(key, value).map_err(HostSetupError::Sysctl)?);
    }
    Ok(change)
}
