//! What the node needs before it can carry pods: the primary ENI's MTU, and sysctls.

use std::error::Error;
use std::fmt;

use ipnet::IpNet;

use super::{Families, HostPicture};
use crate::link::{self, Link};
use crate::netlink::{KernelError, Netlink};
use crate::sysctl::{self, SysctlError, SysctlReadError};
use crate::{Applied, MacAddr, Mtu};

/// The node cannot carry pods yet. What could be set was set.
#[derive(Debug)]
pub struct NodeError {
    /// Each fault; never empty.
    pub faults: Vec<NodeFault>,
}

impl fmt::Display for NodeError {
    /// Has the text of every fault, since a chain of sources holds one only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.faults.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
            let mut next = fault.source();
            while let Some(source) = next {
                write!(f, ": {source}")?;
                next = source.source();
            }
        }
        Ok(())
    }
}

impl Error for NodeError {}

/// A fault in setting up the node.
#[derive(Debug, thiserror::Error)]
pub enum NodeFault {
    /// The links could not be read, so the primary ENI's own steps were not tried.
    #[error("list the links")]
    ListLinks(#[source] KernelError),
    /// No link has the primary ENI's hardware address, so its own steps were not tried.
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
    /// A sysctl could not be read.
    #[error("read a sysctl of the node")]
    ReadSysctl(#[source] SysctlReadError),
}

/// Sets the primary ENI's MTU and the node's sysctls. Every step is tried, also after another one has failed.
pub(super) async fn sync(netlink: &Netlink, wanted: &HostPicture) -> Result<Applied, NodeError> {
    let mut parts = vec![set("net/ipv4/ip_forward", "1")];
    let primary = match primary(netlink, wanted.primary_mac).await {
        Ok(primary) => Some(primary),
        Err(fault) => {
            parts.push(Err(fault));
            None
        }
    };
    if let Some(primary) = &primary {
        parts.push(set_mtu(netlink, primary, wanted.mtu).await);
        parts.push(loosen_reverse_path_filter(&primary.name));
    }
    let has_ipv6 = match wanted.families {
        Families::Ipv4 => wanted.egress.ranges.iter().any(|range| matches!(range, IpNet::V6(_))),
        Families::Ipv6 => true,
    };
    if has_ipv6 {
        parts.extend(set_up_ipv6(primary.as_ref()));
    }
    let mut applied = Applied::Unchanged;
    let mut faults = Vec::new();
    for part in parts {
        match part {
            Ok(part) => applied = applied.max(part),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(applied) } else { Err(NodeError { faults }) }
}

async fn primary(netlink: &Netlink, mac: MacAddr) -> Result<Link, NodeFault> {
    let found = link::by_mac(netlink, mac).await.map_err(NodeFault::ListLinks)?;
    found.ok_or(NodeFault::NoPrimary { mac })
}

async fn set_mtu(netlink: &Netlink, primary: &Link, mtu: Mtu) -> Result<Applied, NodeFault> {
    if primary.mtu == mtu.bytes() {
        return Ok(Applied::Unchanged);
    }
    link::set_mtu(netlink, primary.index, mtu).await.map_err(|source| NodeFault::SetMtu {
        name: primary.name.clone(),
        mtu,
        source,
    })?;
    Ok(Applied::Updated)
}

fn set(key: &str, value: &str) -> Result<Applied, NodeFault> {
    sysctl::set(key, value).map_err(NodeFault::Sysctl)
}

/// Strict reverse path filtering on the primary ENI becomes loose: answers to a pod on another ENI may come in
/// there. The kernel uses the greater of the link's value and that of all links. Source: the kernel's
/// `Documentation/networking/ip-sysctl.rst`.
fn loosen_reverse_path_filter(primary: &str) -> Result<Applied, NodeFault> {
    let own = format!("net/ipv4/conf/{primary}/rp_filter");
    let read = |key: &str| sysctl::get(key).map_err(NodeFault::ReadSysctl);
    let in_force = read("net/ipv4/conf/all/rp_filter")?.max(read(&own)?);
    if in_force == "1" { set(&own, "2") } else { Ok(Applied::Unchanged) }
}

/// A node that starts to forward ignores router advertisements and drops the default route that it learnt from
/// one, unless `accept_ra` is 2 by then. So it forwards only once that is set. Source: as above.
fn set_up_ipv6(primary: Option<&Link>) -> Vec<Result<Applied, NodeFault>> {
    let enable = |scope: &str| set(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "0");
    // A write for all links changes the other two as well, but happens only where this one differs. New links
    // such as the host ends of pods have the default.
    let mut parts = vec![enable("all"), enable("default")];
    if let Some(Link { name, .. }) = primary {
        parts.push(enable(name));
        let accepts = set(&format!("net/ipv6/conf/{name}/accept_ra"), "2");
        if accepts.is_ok() {
            parts.push(set("net/ipv6/conf/all/forwarding", "1"));
        }
        parts.push(accepts);
    }
    parts
}
