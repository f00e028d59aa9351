//! Makes the kernel match a description of a pod's link, or of the node's own network.
//!
//! Each verb takes a whole description, reads what the kernel has, and changes what differs. It works
//! in the network namespace of the calling thread, and remembers nothing between two calls. Nothing
//! here knows pools, EC2, the variables of CNI or gRPC.

mod address;
pub mod connections;
pub mod disturbances;
pub mod examine;
pub mod host;
pub mod host_addresses;
mod link;
pub mod links;
mod name;
pub mod nat;
mod neighbour;
pub mod neighbour_limits;
mod netfilter;
mod netlink;
pub mod netns;
mod nsid;
pub mod pod;
pub mod ports;
pub mod retired;
mod route;
mod rule;
pub mod shaping;
mod sysctl;
mod table;

pub use crate::name::{InterfaceName, Mtu, MtuError, NameError, Owner, OwnerError, host_veth_name};
pub use crate::neighbour::Neighbour;
pub use crate::netlink::KernelError;
pub use crate::route::Route;
pub use crate::rule::{ListedRule, Rule};
pub use crate::sysctl::{SysctlError, SysctlReadError};
pub use crate::table::RouteTable;
pub use mac::{MacAddr, ParseMacError};

/// What an idempotent verb changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Applied {
    /// Nothing: the kernel matched already.
    Unchanged,
    /// Some objects were there, and some were changed or added.
    Updated,
    /// No object was there, and all were added.
    Added,
}

/// What a removal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The object was there and was removed.
    Removed,
    /// The object was not there.
    Absent,
    /// The object is there, but belongs to another owner, and stays.
    NotOurs,
}
