//! What the kernel says of the pods on this node, beside our record and EC2 the third witness; and what
//! the container runtime does, where it can be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::id::AttachmentKey;
use crate::time::Timestamp;

/// The pods' links at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// When the reading began: what the record has learnt since, the kernel may not show yet.
    pub begun: Timestamp,
    /// The link that each address is routed to, whoever made it.
    pub links: BTreeMap<IpAddr, SeenLink>,
    /// Attachments on record that have neither a link nor a network namespace.
    pub vanished: BTreeSet<AttachmentKey>,
    /// The ids of the sandboxes that the container runtime has, in whatever state; `None` if it could not
    /// be asked.
    pub listed: Option<BTreeSet<String>>,
}

/// The host's end of a pod's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLink {
    /// Its name.
    pub name: String,
    /// Whose it says it is, see [`AttachmentKey::mark`]; `None` if it does not say.
    pub mark: Option<String>,
}
