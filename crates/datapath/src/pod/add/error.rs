//! Every way in which a pod's link can fail to come about.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::netlink::KernelError;
use crate::netns::NetnsError;
use crate::sysctl::SysctlError;
use crate::{InterfaceName, Neighbour, Owner, Route, Rule};

/// Why a pod has no link now.
#[derive(Debug, thiserror::Error)]
pub enum AddPodError {
    /// A link without an address is of no use.
    #[error("pod link {host_name} has no address")]
    NoAddress {
        /// Name of the host's end.
        host_name: InterfaceName,
    },
    /// No pod can have this address: it is unspecified, loopback, multicast or link-local.
    #[error("{address} cannot be a pod's address")]
    UnusableAddress {
        /// The address.
        address: IpAddr,
    },
    /// The pod's namespace cannot be used.
    #[error("use the pod's network namespace")]
    Netns(#[source] NetnsError),
    /// The pod's namespace is the node's. Nothing was changed.
    #[error("{} is this process's own network namespace", netns.display())]
    OwnNetns {
        /// Path of the namespace.
        netns: PathBuf,
    },
    /// The node's netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// A link could not be looked up.
    #[error("look up link {name}")]
    ReadLink {
        /// Its name.
        name: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The pod has an interface of this name. Nothing was changed.
    #[error("interface {ifname} exists already in {}", netns.display())]
    IfnameExists {
        /// Its name.
        ifname: InterfaceName,
        /// Path of the pod's namespace.
        netns: PathBuf,
    },
    /// The node has a link of this name that is in use: it is no pod link, or it leads to another
    /// interface in the same namespace. Nothing was changed.
    #[error("link {name} exists and is in use")]
    HostNameInUse {
        /// Its name.
        name: InterfaceName,
    },
    /// An earlier sandbox's link of this name could not be deleted.
    #[error("delete link {name}")]
    DeleteLink {
        /// Its name.
        name: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The pair could not be created.
    #[error("create links {host_name} and {ifname}")]
    CreateLink {
        /// The host's end.
        host_name: InterfaceName,
        /// The pod's end.
        ifname: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// A link is not there although it was just created.
    #[error("link {name} vanished while it was set up")]
    Vanished {
        /// Its name.
        name: InterfaceName,
    },
    /// A sysctl of one of the ends could not be set.
    #[error("set a sysctl of the pod's link")]
    Sysctl(#[source] SysctlError),
    /// The host's end could not be marked and set up.
    #[error("mark link {name} as {owner} and set it up")]
    MarkLink {
        /// Its name.
        name: InterfaceName,
        /// The mark.
        owner: Owner,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// A link in the pod's namespace could not be set up.
    #[error("set {name} up in the pod's namespace")]
    SetUp {
        /// Its name.
        name: String,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The pod's end did not get an address.
    #[error("add address {address} to {device}")]
    AddAddress {
        /// The address.
        address: IpNet,
        /// The pod's end.
        device: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// It could not be found out whether an address is in use.
    #[error("look up the pod's address {address}")]
    ReadAddress {
        /// The address.
        address: IpAddr,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The kernel did not bring an IPv6 address into use in time.
    #[error("{address} was added but is not in use after {} s", within.as_secs())]
    NotUsable {
        /// The address.
        address: IpAddr,
        /// How long was waited.
        within: Duration,
    },
    /// A route could not be added, in the namespace of the device.
    #[error("add route {route} dev {device}")]
    AddRoute {
        /// The route.
        route: Route,
        /// One of the ends.
        device: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The hardware address behind an address could not be set, in the namespace of the device.
    #[error("set neighbour {neighbour} dev {device}")]
    SetNeighbour {
        /// The entry.
        neighbour: Neighbour,
        /// One of the ends.
        device: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// Rules that an earlier pod left for an address could not be removed.
    #[error("remove earlier rules for {address}")]
    RemoveRules {
        /// The address.
        address: IpAddr,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// A rule could not be added.
    #[error("add rule {rule}")]
    AddRule {
        /// The rule.
        rule: Rule,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
}
