//! The steps of making a pod's link that can fail.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::netlink::KernelError;
use crate::netns::NetnsError;
use crate::pod::ParentError;
use crate::sysctl::SysctlError;
use crate::{InterfaceName, Neighbour, Owner, Route, Rule};

/// Why a pod's link could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AddPodError {
    /// No address was given.
    #[error("pod link {host_name} has no address")]
    NoAddress {
        /// Name of the host's end.
        host_name: InterfaceName,
    },
    /// No pod can have this address: it is unspecified, loopback, multicast, broadcast or link-local.
    #[error("{address} cannot be a pod's address")]
    UnusableAddress {
        /// The address.
        address: IpAddr,
    },
    /// The pod's namespace cannot be used.
    #[error("use the pod's network namespace")]
    Netns(#[source] NetnsError),
    /// The pod's namespace is the node's own. Nothing was changed.
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
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The host's end of a pod's interface could not be looked up.
    #[error("look up the host's end of {name}")]
    ReadPeer {
        /// The pod's interface.
        name: String,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The pod has an interface of this name already. Nothing was changed.
    #[error("interface {ifname} exists already in {}", netns.display())]
    IfnameExists {
        /// Its name.
        ifname: InterfaceName,
        /// Path of the pod's namespace.
        netns: PathBuf,
    },
    /// The pod has this attachment's interface already. Nothing was changed.
    #[error(
        "interface {ifname} exists already in {}: another ADD of this attachment has made it",
        netns.display()
    )]
    MadeAlready {
        /// Its name.
        ifname: InterfaceName,
        /// Path of the pod's namespace.
        netns: PathBuf,
    },
    /// The node has a link of this name in use: it is not a veth, or its other end is in the same
    /// pod's namespace. Nothing was changed.
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
        /// The kernel's answer.
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
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The device of the address's ENI, or what a child of it needs, was not found. Nothing was changed.
    #[error(transparent)]
    Parent(#[from] ParentError),
    /// The pod's namespace has no number by which the node would find the child again. Nothing was changed.
    #[error("give the pod's network namespace a number")]
    Number(#[source] KernelError),
    /// The kernel has no `ipvlan`. Nothing was changed.
    #[error("this kernel has no ipvlan")]
    NoIpvlan(#[source] KernelError),
    /// The child could not be created.
    #[error("create {ifname} as an ipvlan child of {parent}")]
    CreateChild {
        /// The pod's interface.
        ifname: InterfaceName,
        /// The ENI's device.
        parent: String,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The child did not get its name and its mark.
    #[error("name the ipvlan child {ifname} and mark it as {owner}")]
    NameChild {
        /// The pod's interface.
        ifname: InterfaceName,
        /// The mark.
        owner: Owner,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// A link that was just created is gone.
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
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// A link in the pod's namespace could not be set up.
    #[error("set {name} up in the pod's namespace")]
    SetUp {
        /// Its name.
        name: String,
        /// The kernel's answer.
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
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The kernel did not tell whether an address is in use.
    #[error("look up the pod's address {address}")]
    ReadAddress {
        /// The address.
        address: IpAddr,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The kernel did not bring an IPv6 address into use in time.
    #[error("{address} was added but is not in use after {} s", within.as_secs())]
    NotUsable {
        /// The address.
        address: IpAddr,
        /// How long the wait was.
        within: Duration,
    },
    /// The pod's routes could not be listed.
    #[error("list the pod's routes")]
    ReadRoutes(#[source] KernelError),
    /// A route could not be added, in the namespace of the device.
    #[error("add route {route} dev {device}")]
    AddRoute {
        /// The route.
        route: Route,
        /// One of the ends.
        device: InterfaceName,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// A neighbour entry could not be set, in the namespace of the device.
    #[error("set neighbour {neighbour} dev {device}")]
    SetNeighbour {
        /// The entry.
        neighbour: Neighbour,
        /// One of the ends.
        device: InterfaceName,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// Rules that an earlier pod left for an address could not be removed.
    #[error("remove earlier rules for {address}")]
    RemoveRules {
        /// The address.
        address: IpAddr,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// A rule could not be added.
    #[error("add rule {rule}")]
    AddRule {
        /// The rule.
        rule: Rule,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
}
