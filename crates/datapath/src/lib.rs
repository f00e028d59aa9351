//! Makes the kernel match a description: a pod's link, an ENI's addresses, routes and rules, the
//! host's sysctls.
//!
//! Every verb takes the whole wanted picture, reads what the kernel has, and changes what differs.
//! All of them work in the network namespace of the calling thread; nothing is remembered between
//! two calls. Nothing here knows pools, EC2, the variables of CNI or gRPC.

mod address;
pub mod connections;
pub mod eni;
pub mod host;
mod link;
pub mod links;
mod name;
mod neighbour;
mod netlink;
pub mod netns;
pub mod pod;
mod route;
mod rule;
mod sysctl;
mod table;

pub use crate::name::{InterfaceName, Mtu, MtuError, NameError, Owner, OwnerError, host_veth_name};
pub use crate::neighbour::Neighbour;
pub use crate::netlink::KernelError;
pub use crate::route::Route;
pub use crate::rule::Rule;
pub use crate::sysctl::SysctlError;
pub use crate::table::RouteTable;
pub use mac::{MacAddr, ParseMacError};

/// What an idempotent verb did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The kernel matched already.
    Unchanged,
    /// Something of it was there and was changed.
    Updated,
    /// Nothing of it was there.
    Added,
}

/// What a removal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It was there, and no longer is.
    Removed,
    /// It was not there.
    Absent,
    /// It is there, but belongs to someone else.
    NotOurs,
}
