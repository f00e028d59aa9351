//! What the node needs before it can carry pods: the primary ENI's MTU, and sysctls.

use super::{Families, HostPicture};
use crate::link;
use crate::netlink::{KernelError, Netlink};
use crate::sysctl::{self, SysctlError};
use crate::{Applied, MacAddr, Mtu};

/// Why the node cannot carry pods yet.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The links could not be read.
    #[error("list the links")]
    ListLinks(#[source] KernelError),
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
        /// The MTU that was tried.
        mtu: Mtu,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// A sysctl could not be set.
    #[error("set a sysctl of the node")]
    Sysctl(#[source] SysctlError),
}

/// Sets the primary ENI's MTU and the node's sysctls, and stops at the first fault.
///
/// Reverse path filtering is loose on the primary ENI: answers to a pod on another ENI may come in
/// there.
pub(super) async fn sync(netlink: &Netlink, wanted: &HostPicture) -> Result<Applied, NodeError> {
    let HostPicture { primary_mac: mac, mtu, families, enis: _ } = *wanted;
    let primary = link::by_mac(netlink, mac)
        .await
        .map_err(NodeError::ListLinks)?
        .ok_or(NodeError::NoPrimary { mac })?;
    let mut applied = Applied::Unchanged;
    if primary.mtu != mtu.bytes() {
        link::set_mtu(netlink, primary.index, mtu).await.map_err(|source| NodeError::SetMtu {
            name: primary.name.clone(),
            mtu,
            source,
        })?;
        applied = Applied::Updated;
    }
    for (key, value) in sysctls(&primary.name, families) {
        applied = applied.max(sysctl::set(&key, value).map_err(NodeError::Sysctl)?);
    }
    Ok(applied)
}

fn sysctls(primary: &str, families: Families) -> Vec<(String, &'static str)> {
    let mut sysctls = ipv4_sysctls(primary).to_vec();
    match families {
        Families::Ipv4 => {}
        Families::Ipv6 => sysctls.extend(ipv6_sysctls(primary)),
    }
    sysctls
}

fn ipv4_sysctls(primary: &str) -> [(String, &'static str); 2] {
    [(format!("net/ipv4/conf/{primary}/rp_filter"), "2"), ("net/ipv4/ip_forward".to_owned(), "1")]
}

/// The order matters. A node that starts to forward ignores router advertisements and drops the
/// default route that it learnt from one, unless `accept_ra` is 2 by then.
/// Source: the kernel's `Documentation/networking/ip-sysctl.rst`.
fn ipv6_sysctls(primary: &str) -> [(String, &'static str); 5] {
    let enable = |scope: &str| (format!("net/ipv6/conf/{scope}/disable_ipv6"), "0");
    [
        // A write to it sets the next two as well, but happens only where this one differs.
        enable("all"),
        // For the host ends of pods' links.
        enable("default"),
        enable(primary),
        (format!("net/ipv6/conf/{primary}/accept_ra"), "2"),
        ("net/ipv6/conf/all/forwarding".to_owned(), "1"),
    ]
}
