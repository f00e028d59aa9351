//! A pod's link to its node is a veth pair. The pod's addresses and routes are on one end; the node's
//! routes and rules for these addresses are on the other.
//!
//! ```text
//! host: 512: from all to 10.0.2.20 lookup main     1536: from 10.0.2.20 lookup 2
//!       10.0.2.20 dev enicc21c2d7785 scope link
//! pod:  default via 169.254.1.1 dev eth0 ; 169.254.1.1 dev eth0 scope link
//!       169.254.1.1 lladdr <host end> PERMANENT
//! ```
//!
//! A pod may have a node-local address beside, of the family that its other addresses are not of. It is on the same
//! link, with a default route of its own in the pod. The node has a route to it and no rule, since it never leaves by
//! another ENI than the primary.
//!
//! No interface has the gateway's address: the permanent neighbour entry leads to the host end. All
//! verbs take the calling thread's namespace for the node's.
//!
//! A further interface of the pod leaves the default route of another one alone. Only packets from its
//! own addresses leave by it:
//!
//! ```text
//! pod:  1536: from 10.0.2.21 lookup 20003
//!       default via 169.254.1.1 dev net1 table 20003 ; 169.254.1.1 dev net1 table 20003 scope link
//! ```
//!
//! Instead of a pair, the pod may have an `ipvlan` child of the ENI's device, see [`make_child`].

mod add;
mod check;
mod del;
mod host_links;
mod ipvlan;
mod loopback;
mod objects;
mod restore;

use std::net::IpAddr;
use std::path::PathBuf;

pub use self::add::{AddPodError, MadeLink, make, waits_for_removal};
pub use self::check::{CheckError, check};
pub use self::del::{DelPodError, DelPodFailure, del};
pub use self::host_links::{HostLink, HostLinksError, host_links};
pub use self::ipvlan::{ChildState, IpvlanMode, MadeChild, ParentError, check_child, make_child};
pub use self::loopback::{LoopbackError, loopback_is_up, raise_loopback};
pub use self::objects::gateways;
pub use self::restore::{Damage, PodStep, RestoreError, Restored, RunningPod};
use crate::netlink::{KernelError, Netlink};
use crate::rule::{self, Selector};
use crate::{InterfaceName, MacAddr, Mtu, Owner, Removal, Route, RouteTable};

/// An address of a pod, with the table by which its packets leave the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodAddress {
    /// The address. On the link it is a /32 or /128.
    pub address: IpAddr,
    /// The table of the ENI that carries it.
    pub table: RouteTable,
}

/// Which of the pod's interfaces a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// The first one. The pod's default route must be by this link.
    First,
    /// A further one. If the pod has a default route, that stays.
    Further,
}

/// Where the pod's routes by a link are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodRoutes {
    /// In the main table, the default route among them.
    Main,
    /// In a table of the link, for packets from the link's own addresses.
    BySource,
}

/// IPv6 in a pod's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodIpv6 {
    /// As the runtime has set it.
    AsItIs,
    /// Switched off.
    Off,
}

/// A link to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// Name of the pod's end.
    pub ifname: InterfaceName,
    /// Which of the pod's interfaces that is.
    pub rank: Rank,
    /// Name of the host's end, see [`crate::host_veth_name`].
    pub host_name: InterfaceName,
    /// The link's owner; two sandboxes must differ in it, also two of one pod.
    pub owner: Owner,
    /// MTU of both ends.
    pub mtu: Mtu,
    /// Those of the VPC; at least one.
    pub addresses: Vec<PodAddress>,
    /// The pod's node-local address.
    pub node_local: Option<IpAddr>,
}

/// One end of a link, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEnd {
    /// Its name.
    pub name: InterfaceName,
    /// Its hardware address.
    pub mac: MacAddr,
    /// In bytes.
    pub mtu: u32,
}

/// A link that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLinkState {
    /// The node's end.
    pub host: LinkEnd,
    /// The pod's end.
    pub pod: LinkEnd,
    /// The routes in the pod's namespace, in the order of their addition. They may be in the main table
    /// or in one of the link's own, see [`PodRoutes`].
    pub routes: Vec<Route>,
}

/// A link to compare with what was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodExpectation {
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// Name of the pod's end.
    pub ifname: InterfaceName,
    /// Name of the host's end.
    pub host_name: InterfaceName,
    /// The link's owner. A link without a mark passes, since amazon-vpc-cni-k8s sets none.
    pub owner: Owner,
    /// Hardware address of the pod's end, if it was recorded.
    pub mac: Option<MacAddr>,
    /// MTU of both ends in bytes, if it was recorded.
    pub mtu: Option<u32>,
    /// The pod's addresses of the VPC.
    pub addresses: Vec<PodAddress>,
    /// The pod's node-local address, if it is on record.
    pub node_local: Option<IpAddr>,
    /// Where the pod's routes by the link were made.
    pub routes: PodRoutes,
    /// What was made of IPv6.
    pub ipv6: PodIpv6,
}

/// A link to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRemoval {
    /// Name of the host's end, which counts if no link has the owner's mark.
    pub host_name: InterfaceName,
    /// The link's owner. A link with another mark stays, and so do its addresses.
    pub owner: Owner,
    /// The pod's addresses. If empty, the addresses that are routed to the host's end.
    pub addresses: Vec<IpAddr>,
    /// Path of the pod's network namespace, if the link may have rules there. It may be gone.
    pub netns: Option<PathBuf>,
    /// When the link itself goes.
    pub goes: Goes,
}

/// When a link goes whose pod has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// Before [`del`] returns, together with all links that wait for removal.
    Now,
    /// It waits for removal when [`del`] returns, see [`crate::retired`]. Whoever says so knows that
    /// somebody sweeps.
    Later,
}

/// What [`del`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRemoved {
    /// The link, which may still wait for removal.
    pub link: Removal,
    /// Each address, with what was done to its routes and rules.
    pub addresses: Vec<(IpAddr, Removal)>,
}

/// In the pod's namespace, removes the rules by which packets from `address` leave by their own link.
async fn remove_source_rules(pod: &Netlink, address: IpAddr) -> Result<usize, KernelError> {
    rule::remove_all(pod, rule::FROM_POD, Selector::From(address)).await
}

/// Removes the rules for a pod's address, whatever table they name. Returns how many there were.
async fn remove_rules(netlink: &Netlink, address: IpAddr) -> Result<usize, KernelError> {
    let to = rule::remove_all(netlink, rule::TO_POD, Selector::To(address)).await?;
    let from = rule::remove_all(netlink, rule::FROM_POD, Selector::From(address)).await?;
    Ok(to + from)
}
