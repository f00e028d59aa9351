//! How one pod stands with the pool, for people: which address it has, or why it waits. And how fresh the engine's
//! knowledge is.

use std::net::IpAddr;

use crate::event::Refusal;
use crate::id::{AttachmentKey, EniId, Pod};
use crate::record::Assignment;
use crate::time::Timestamp;
use crate::view::EniStage;

/// Whose standing is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// The attachments of a pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The attachments of a container whose id is this, or starts with it.
    Container(String),
}

impl Whom {
    /// Whether the attachment `key` of `pod` is meant.
    #[must_use]
    pub fn means(&self, key: &AttachmentKey, pod: &Pod) -> bool {
        match self {
            Whom::Pod { namespace, name } => pod.namespace == *namespace && pod.name == *name,
            Whom::Container(id) => key.container.starts_with(id.as_str()),
        }
    }
}

/// The answer about one pod, and what is under way for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standings {
    /// The pod's attachments: those that wait, then those on their way to the record, then those on record. There are
    /// at most [`Standings::MOST`].
    pub attachments: Vec<Standing>,
    /// The calls under way at EC2, one phrase each; at most [`Standings::MOST`].
    pub in_flight: Vec<String>,
    /// Our ENIs whose addresses cannot be given out yet, or no longer, by id. An instance has few.
    pub unready_enis: Vec<UnreadyEni>,
    /// The refusal that a new Add would get; `None` if the node serves pods.
    pub not_ready: Option<Refusal>,
    /// When the API server first showed that the pod is bound to the node and has not started; `None` if it does not.
    pub expected: Option<Timestamp>,
}

impl Standings {
    /// How many attachments and calls an answer names.
    pub const MOST: usize = 16;
}

/// How one attachment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The attachment.
    pub key: AttachmentKey,
    /// Its pod.
    pub pod: Pod,
    /// How far it has come.
    pub stage: Stage,
}

/// How far an attachment has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Its Add waits for an address.
    Waiting {
        /// When the Add came.
        since: Timestamp,
        /// The number of Adds that get an address first.
        n_ahead: usize,
        /// When the Add is refused if there is no address by then.
        until: Timestamp,
        /// The refusal that it would get now.
        refusal: Refusal,
    },
    /// Its addresses are on their way to the record.
    Recording {
        /// When they were chosen.
        since: Timestamp,
        /// The addresses.
        addresses: Vec<IpAddr>,
    },
    /// It has addresses.
    Holding {
        /// What is on record.
        assignment: Assignment,
        /// What keeps packets from the pod, as far as the engine knows; one phrase each.
        doubts: Vec<String>,
    },
    /// Its release is on its way to the record.
    Releasing {
        /// What is on record.
        assignment: Assignment,
    },
}

/// An ENI of ours whose addresses no new pod gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadyEni {
    /// Its id.
    pub id: EniId,
    /// How far it has come.
    pub stage: EniStage,
    /// Why the host's side of it cannot be set up, if that has failed.
    pub fault: Option<String>,
}

/// When each source of facts was last seen. `None` for one that has not been seen since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// When the last describe of the ENIs with an answer began.
    pub ec2: Option<Timestamp>,
    /// The releases before this time have been compared with the kernel.
    pub kernel: Option<Timestamp>,
    /// Why the kernel could not be read after that; `None` if it could.
    pub kernel_unread: Option<String>,
    /// Whether the container runtime has answered the last time.
    pub is_runtime_seen: bool,
}
