//! What the node needs before it can carry pods: the primary ENI's MTU, and sysctls.

use std::error::Error;
use std::fmt;

use super::{Families, HostPicture};
use crate::link::{self, Link};
use crate::netlink::{KernelError, Netlink};
use crate::sysctl::{self, SysctlError};
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
    /// The links could not be read. Nothing else was tried.
    #[error("list the links")]
    ListLinks(#[source] KernelError),
    /// No link has the primary ENI's hardware address. Nothing else was tried.
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

/// Sets the primary ENI's MTU and the node's sysctls.
///
/// Reverse path filtering is loose on the primary ENI: answers to a pod on another ENI may come in
/// there.
pub(super) async fn sync(netlink: &Netlink, wanted: &HostPicture) -> Result<Applied, NodeError> {
    let HostPicture { primary_mac, mtu, families, enis: _ } = *wanted;
    let primary = match primary(netlink, primary_mac).await {
        Ok(primary) => primary,
        Err(fault) => return Err(NodeError { faults: vec![fault] }),
    };
    let mut parts = vec![set_mtu(netlink, &primary, mtu).await];
    parts.extend(ipv4_sysctls(&primary.name).map(|(key, value)| set(&key, value)));
    match families {
        Families::Ipv4 => {}
        Families::Ipv6 => parts.push(set_in_order(&ipv6_sysctls(&primary.name))),
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

/// Sets one after the other up to the first fault.
fn set_in_order(sysctls: &[(String, &'static str)]) -> Result<Applied, NodeFault> {
    sysctls
        .iter()
        .try_fold(Applied::Unchanged, |applied, (key, value)| Ok(applied.max(set(key, value)?)))
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
