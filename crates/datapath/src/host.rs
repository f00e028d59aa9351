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
    /// Whether pods have IPv6 addresses.
    pub ipv6: bool,
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
/// filtering there, for answers to a pod on another ENI may come in by it; forwarding. With pods on
/// IPv6 that is switched on and forwarded too, and the router there is still listened to.
///
/// # Errors
///
/// [`HostSetupError`]; what was done until then stays, and is right.
pub async fn setup(config: &HostConfig) -> Result<Change, HostSetupError> {
    let HostConfig { primary_mac: mac, mtu, ipv6 } = *config;
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
    let ipv6_sysctls = ipv6.then(|| ipv6_sysctls(&primary.name));
    for (key, value) in
        ipv4_sysctls(&primary.name).into_iter().chain(ipv6_sysctls.into_iter().flatten())
    {
        change = change.max(sysctl::set(&key, value).map_err(HostSetupError::Sysctl)?);
    }
    Ok(change)
}

fn ipv4_sysctls(primary: &str) -> [(String, &'static str); 2] {
    [(format!("net/ipv4/conf/{primary}/rp_filter"), "2"), ("net/ipv4/ip_forward".to_owned(), "1")]
}

/// In an order that matters: what starts to forward stops to take a router's word for the default
/// route, and drops the one it has, unless it was told to take it all the same (`accept_ra` 2).
/// Source: the kernel's `Documentation/networking/ip-sysctl.rst`.
fn ipv6_sysctls(primary: &str) -> [(String, &'static str); 5] {
    let off = |of: &str| (format!("net/ipv6/conf/{of}/disable_ipv6"), "0");
    [
        // Writing it sets the two below as well, but nothing is written where nothing differs.
        off("all"),
        // Of the host's ends of pods' links.
        off("default"),
        off(primary),
        (format!("net/ipv6/conf/{primary}/accept_ra"), "2"),
        ("net/ipv6/conf/all/forwarding".to_owned(), "1"),
    ]
}
