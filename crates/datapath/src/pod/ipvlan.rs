//! A pod's interface that is an `ipvlan` child of its ENI's device. The node has no link, route or rule for it.
//!
//! ```text
//! l2:   10.0.2.20/24 dev eth0 ; 10.0.2.0/24 dev eth0 scope link ; default via 10.0.2.1 dev eth0
//! l3s:  10.0.0.20/32 dev eth0 ; default dev eth0 scope link
//! ```
//!
//! Subnet and router of l2 are those of the ENI's device and route table. An l3s child sends by the node's own routes,
//! so its addresses must be on the primary ENI: the main table leads there, without a rule.
//!
//! The child exists in the pod's namespace alone, and goes with it. The node finds it by the numbers that the kernel
//! gives to namespaces, see [`crate::nsid`]. Its alias is the owner's mark.

mod add;
mod check;
pub(super) mod children;
mod objects;
mod parent;

use netlink_packet_route::link::IpVlanMode;

pub use self::add::{ChildState, MadeChild, make_child};
pub use self::check::check_child;
pub use self::parent::ParentError;

/// How a child sends. All children of one device have one mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpvlanMode {
    /// Frames, past the node's routes and netfilter.
    L2,
    /// Packets, by the node's routes and through its netfilter.
    L3s,
}

impl IpvlanMode {
    /// As the kernel has it.
    fn kernels(self) -> IpVlanMode {
        match self {
            Self::L2 => IpVlanMode::L2,
            Self::L3s => IpVlanMode::L3S,
        }
    }
}
