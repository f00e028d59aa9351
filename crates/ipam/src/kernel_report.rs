//! What the kernel shows of the pods on this node, beside our record and EC2's answer; and which sandboxes
//! the container runtime lists, where it can be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mac::MacAddr;

use crate::id::AttachmentKey;
use crate::time::Timestamp;

/// The pods' links at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelReport {
    /// When the kernel was first read for it. The kernel may not show yet what is on record since.
    pub begun: Timestamp,
    /// The link that each address is routed to, whoever made it.
    pub links: BTreeMap<IpAddr, PodLink>,
    /// The addresses that the host itself has, each with its link. Packets to them never reach a pod.
    pub host_addresses: BTreeMap<IpAddr, AddressedLink>,
    /// Attachments on record that have neither a link nor a network namespace.
    pub vanished: BTreeSet<AttachmentKey>,
    /// The ids of the sandboxes that the container runtime has, in whatever state; `None` if the runtime
    /// did not answer.
    pub listed: Option<BTreeSet<String>>,
}

/// The link that has an address of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressedLink {
    /// Its name.
    pub name: String,
    /// Its hardware address. It is an ENI's if the link is that ENI's device.
    pub mac: MacAddr,
}

/// The host's end of a pod's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// Its name.
    pub name: String,
    /// The mark of its attachment, see [`AttachmentKey::mark`]; `None` if it has none.
    pub mark: Option<String>,
}
