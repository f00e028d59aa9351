//! What goes into the engine and what comes out: the whole of its interface to the world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::block::Block;
use crate::call::{CallError, CallId, CallOutput, Ec2Call};
use crate::id::{AttachmentKey, EniId, Pod};
use crate::record::{Assignment, Change};
use crate::sighting::Sighting;
use crate::time::Timestamp;

/// One request to the engine; the caller numbers them and never twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The place of a [`Effect::Save`] in the order of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaveSeq(pub u64);

/// Something has happened. The only way to change an engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A pod's interface wants an address.
    Add {
        /// Names the reply.
        request: RequestId,
        /// Whose interface.
        key: AttachmentKey,
        /// The pod.
        pod: Pod,
        /// The pod's network namespace.
        netns: String,
        /// When the caller will have gone away; the reply comes before that.
        deadline: Timestamp,
    },
    /// The caller of an [`Event::Add`] has gone away; nothing shall be kept for it.
    Cancel {
        /// Names the request; unknown or answered ones are no matter.
        request: RequestId,
    },
    /// A pod's interface has gone.
    Del {
        /// Names the reply.
        request: RequestId,
        /// Whose interface.
        key: AttachmentKey,
    },
    /// Of one network, only these attachments are alive.
    Gc {
        /// Names the reply.
        request: RequestId,
        /// The network's name.
        network: String,
        /// (container id, interface name) of each living attachment.
        valid: BTreeSet<(String, String)>,
    },
    /// A call has ended.
    CallDone {
        /// The call.
        id: CallId,
        /// How.
        result: Result<CallOutput, CallError>,
    },
    /// The kernel's side of an ENI has been made to match, or could not be.
    EniLink {
        /// The ENI.
        eni: EniId,
        /// How it stands.
        link: LinkState,
    },
    /// The kernel has been read; about every minute, and before anything else at the start.
    Seen(Sighting),
    /// The metadata service has been read; about every minute, or not at all. Of each ENI that it
    /// shows on this instance, whoever's, the addresses and prefixes: with or without its own.
    Hint(BTreeMap<EniId, BTreeSet<Block>>),
    /// The save is durable, or could not be made so.
    Saved {
        /// The save.
        seq: SaveSeq,
        /// How it went; the message names the file and the fault.
        result: Result<(), String>,
    },
    /// Time has passed; sent when [`wake_at`](crate::Engine::wake_at) is reached.
    Tick,
}

/// The kernel's side of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Link up, addresses, routes and rules verified.
    Ready,
    /// The device has not appeared yet.
    Absent,
    /// It could not be set up; the text says what and why.
    Failed(String),
}

/// Something to do, in this order. The engine never waits for it; the result comes as an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make these changes durable, all or none, then send [`Event::Saved`]. The next one comes
    /// only after that.
    Save {
        /// Its number, one more than the last one's.
        seq: SaveSeq,
        /// Never empty.
        changes: Vec<Change>,
    },
    /// Answer a request.
    Reply {
        /// The request; each gets exactly one reply, but for cancelled ones.
        request: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Call EC2, then send [`Event::CallDone`].
    Call {
        /// Its number.
        id: CallId,
        /// The call.
        call: Ec2Call,
    },
    /// Make the kernel's side of exactly these ENIs match, then send an [`Event::EniLink`] for
    /// each of them.
    SyncHost(Vec<HostEni>),
}

/// What the host's network needs to know of an attached ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEni {
    /// The ENI.
    pub eni: EniId,
    /// By which its device is found.
    pub mac: String,
    /// Its place on the instance; 0 on card 0 is the primary.
    pub device_index: u16,
    /// Its network card.
    pub network_card: u16,
    /// Its own address.
    pub primary_address: Ipv4Addr,
    /// The range of its subnet.
    pub subnet_cidr: Ipv4Net,
}

/// The reply to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To Add: the address, on record.
    Granted(Assignment),
    /// To Add: no address, and nothing kept. To Del and Gc: the record could not be written.
    Refused(Refusal),
    /// To Del: what the attachment held; `None` if nothing is recorded for it.
    Released(Option<Assignment>),
    /// To Gc: what was released.
    Collected(Vec<(AttachmentKey, Assignment)>),
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, for machines.
    pub code: RefusalCode,
    /// For people: what is short, where (subnet and counts), and what to do.
    pub message: String,
    /// When trying again makes sense; `None` if nothing is on its way.
    pub retry_after: Option<Duration>,
}

/// The causes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCode {
    /// The daemon does not yet know what it holds.
    Starting,
    /// Capacity was asked for and has not come within the caller's patience.
    Attaching,
    /// No usable subnet has a free address.
    SubnetExhausted,
    /// No usable subnet has a free /28.
    SubnetFragmented,
    /// All ENIs that the instance (or `MAX_ENI`) allows are attached and full.
    EniLimit,
    /// EC2 takes no further address on the ENIs there are.
    AddressLimit,
    /// Every free address has been released too recently.
    AllCooling,
    /// EC2 throttles this account.
    Throttled,
    /// IAM refuses a call.
    AccessDenied,
    /// The node already has as many addresses as it may have pods.
    MaxPods,
    /// EC2 refuses or cannot be reached, in a way not named above.
    Ec2Failing,
    /// The ENI is attached but the kernel's side of it cannot be set up.
    LinkFailing,
    /// The record could not be written.
    StateUnwritable,
}

impl RefusalCode {
    /// The code as plugins, logs and documents write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalCode::Starting => "STARTING",
            RefusalCode::Attaching => "ATTACHING",
            RefusalCode::SubnetExhausted => "SUBNET_EXHAUSTED",
            RefusalCode::SubnetFragmented => "SUBNET_FRAGMENTED",
            RefusalCode::EniLimit => "ENI_LIMIT",
            RefusalCode::AddressLimit => "ADDRESS_LIMIT",
            RefusalCode::AllCooling => "ALL_COOLING",
            RefusalCode::Throttled => "THROTTLED",
            RefusalCode::AccessDenied => "ACCESS_DENIED",
            RefusalCode::MaxPods => "MAX_PODS",
            RefusalCode::Ec2Failing => "EC2_FAILING",
            RefusalCode::LinkFailing => "LINK_FAILING",
            RefusalCode::StateUnwritable => "STATE_UNWRITABLE",
        }
    }
}
