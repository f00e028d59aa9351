//! What goes into the engine and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use mac::MacAddr;

use crate::block::{Block, Family};
use crate::call::{CallError, CallId, CallOutput, Ec2Call};
use crate::eni_config::EniConfigAnswer;
use crate::id::{AttachmentKey, EniId, Network, Pod, SecurityGroupId};
use crate::kernel_report::{KernelReport, PodLink};
use crate::policy::{Limits, Policy, SourcePorts};
pub use crate::reason::Reason;
use crate::record::{Assignment, Change};
use crate::time::Timestamp;

/// The number of a request to the engine; the caller uses each number once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The place of an [`Effect::Save`] in the order of all saves.
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
        /// Whether the caller can set up a node-local address beside the others.
        node_local: NodeLocal,
        /// When the caller gives up; the reply comes before that.
        deadline: Timestamp,
    },
    /// The caller of an [`Event::Add`] has gone away; nothing is to be kept for it.
    Cancel {
        /// Names the request; it may be unknown or answered.
        request: RequestId,
    },
    /// A pod's interface has gone.
    Del {
        /// Names the reply.
        request: RequestId,
        /// Whose interface.
        key: AttachmentKey,
    },
    /// In one network only these attachments are alive.
    Gc {
        /// Names the reply.
        request: RequestId,
        /// The network.
        network: Network,
        /// (container id, interface name) of each living attachment.
        valid: BTreeSet<(String, String)>,
        /// The same for each attachment whose Add has a caller that has not hung up. The runtime may not list
        /// it yet.
        adding: BTreeSet<(String, String)>,
    },
    /// A call has ended.
    CallDone {
        /// The call.
        id: CallId,
        /// How.
        result: Result<CallOutput, CallError>,
    },
    /// The state of an ENI in the kernel.
    EniLink {
        /// The ENI.
        eni: EniId,
        /// Its state.
        link: LinkState,
    },
    /// The kernel has been read; about every minute, after [`Effect::ReadKernel`], and before anything else at the
    /// start.
    Kernel(KernelReport),
    /// The kernel could not be read when an [`Event::Kernel`] was due. The text names the step and the cause.
    KernelUnread(String),
    /// The kernel has lost a rule, a route or a link of a pod, or may have.
    PodPartLost,
    /// The metadata service has been read; about every minute, or not at all. It shows these ENIs on this
    /// instance, ours or not.
    Hint(BTreeMap<EniId, MetadataEni>),
    /// The VPC's IPv4 ranges, from the metadata service; at the start and twice a minute.
    VpcRanges(BTreeSet<Ipv4Net>),
    /// The cluster has said which ENIConfig this node uses, and what it says; at the start an answer that an earlier
    /// run has kept. It has no effect without [`Placement::ByEniConfig`](crate::policy::Placement).
    EniConfig(EniConfigAnswer),
    /// Whether the node is cordoned, so that no new pod is scheduled on it, in the API server's answer. A node counts as
    /// schedulable until there is one.
    Cordoned(bool),
    /// The API server shows these pods on this node, and shows that they need an address and have not started. They are
    /// demand that comes soon; the engine bounds for how long it believes so. The newest news replaces the one before.
    PodsExpected(BTreeSet<Pod>),
    /// The user has changed the policy. It holds from now on.
    Policy(Policy),
    /// EC2's limits have changed. They hold from now on.
    Limits(Limits),
    /// The save is durable, or could not be made so.
    Saved {
        /// The save.
        seq: SaveSeq,
        /// The result; the message names the file and the fault.
        result: Result<(), String>,
    },
    /// Time has passed; sent when [`wake_at`](crate::Engine::wake_at) is reached.
    Tick,
}

/// Whether an Add may be granted a node-local address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeLocal {
    /// If the policy has one for the pod.
    Taken,
    /// The caller is an older plugin, or asks for a further interface of a pod.
    NotTaken,
}

/// An ENI as the metadata service shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataEni {
    /// Its IPv4 addresses and prefixes, with or without its own address.
    pub blocks: BTreeSet<Block>,
    /// Its security groups; empty if the service shows none.
    pub security_groups: BTreeSet<SecurityGroupId>,
}

/// The kernel's side of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Link up, addresses, routes and rules verified.
    Ready,
    /// The device has not appeared yet.
    Absent,
    /// It could not be set up; the text names the step and the cause.
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
        /// Why it is made, for the log.
        why: Reason,
    },
    /// Read the answer to this describe from the metadata service, in place of EC2, then send [`Event::CallDone`].
    ReadMetadata {
        /// Its number.
        id: CallId,
        /// [`Ec2Call::DescribeEnis`] or [`Ec2Call::DescribeSubnets`].
        call: Ec2Call,
    },
    /// Make the host network match, then send an [`Event::EniLink`] for each of its ENIs.
    SyncHost(HostPicture),
    /// Take down these links of pods that have ended, each with the address that it is routed to. What
    /// fails comes again after the next [`Event::Kernel`].
    TakeDown(BTreeMap<IpAddr, PodLink>),
    /// Read the kernel now and send an [`Event::Kernel`]: an address is about to serve again.
    ReadKernel,
    /// Put back what the kernel lacks of these pods: link up, route and rules. It may lack nothing.
    RestorePods(BTreeMap<AttachmentKey, Assignment>),
    /// Remove these addresses from the host, each from the named link, which is the device of an ENI of ours. They
    /// are pods' addresses, and another program has put them there.
    RemoveHostAddresses(BTreeMap<IpAddr, String>),
    /// Make the kernel forget the connections of these addresses, whose pods have ended. Clients that wait
    /// for such a pod must not reach the next one.
    ForgetConnections(BTreeSet<IpAddr>),
}

/// The whole wanted host network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPicture {
    /// Hardware address of the primary ENI.
    pub primary_mac: MacAddr,
    /// The MTU of all ENIs, in bytes.
    pub mtu: u16,
    /// The families of pods' addresses; never empty.
    pub families: BTreeSet<Family>,
    /// How pods' packets are translated, and which way answers take.
    pub nat: HostNat,
    /// How pods reach the family that their VPC addresses are not of.
    pub egress: HostEgress,
    /// How many neighbours the kernel must be able to keep, in the family of pods.
    pub neighbours: u32,
    /// Our attached ENIs, the primary one included, ascending by id. Empty until EC2 or the record shows
    /// any.
    pub enis: Vec<HostEni>,
}

/// How node-local addresses are translated; they are never reached from other pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEgress {
    /// The families that have any, by the policy or on a running pod.
    pub families: BTreeSet<Family>,
    /// How source ports are chosen.
    pub ports: SourcePorts,
}

/// How pods' packets are translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostNat {
    /// Not at all: pods have no IPv4 addresses.
    Absent,
    /// Not known yet, for this reason. The kernel keeps what it has, and no ENI is ready: pods on it might reach nothing
    /// outside the VPC.
    Unknown(&'static str),
    /// So.
    Wanted(Nat),
}

/// The wanted translation of pods' IPv4 packets, and the way of their answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// With what the names of pods' host links start.
    pub pod_links: String,
    /// The bits that mark connections which leave by the primary ENI.
    pub mark: NonZeroU32,
    /// How packets leave the VPC; `None` if something outside translates them.
    pub source: Option<SourceNat>,
    /// Whether answers to connections to the primary ENI's addresses leave by it.
    pub node_ports: bool,
    /// Ranges that all pods reach by the main route table.
    pub by_main_table: BTreeSet<Ipv4Net>,
}

/// How packets of pods leave the VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceNat {
    /// The source address that they get: the primary ENI's own.
    pub address: Ipv4Addr,
    /// How their source ports are chosen.
    pub ports: SourcePorts,
    /// The ranges to which they keep their addresses: those of the VPC and those that the user excludes. Never empty.
    pub untranslated: BTreeSet<Ipv4Net>,
}

/// An attached ENI as the host network needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEni {
    /// The ENI.
    pub eni: EniId,
    /// Its hardware address, by which its device is found.
    pub mac: MacAddr,
    /// Its place on the instance, from which its route table follows; 0 on card 0 is the primary, whatever index
    /// EC2 shows.
    pub device_index: u16,
    /// Its network card.
    pub network_card: u16,
    /// Its own address.
    pub primary_address: IpAddr,
    /// The range of its subnet.
    pub subnet_cidr: IpNet,
}

/// The reply to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To Add: the address, on record.
    Granted(Assignment),
    /// To Add: no address, and nothing kept. To Del and Gc: the record could not be written.
    Refused(Refusal),
    /// To Del: what the attachment held; `None` if the record has nothing for it.
    Released(Option<Assignment>),
    /// To Gc: what was released.
    Collected(Vec<(AttachmentKey, Assignment)>),
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, for machines.
    pub code: RefusalCode,
    /// For people: the shortage, where (subnet and counts), and what to do.
    pub message: String,
    /// When trying again makes sense; `None` if nothing is on its way.
    pub retry_after: Option<Duration>,
}

/// The causes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCode {
    /// EC2 has not described the ENIs yet.
    Starting,
    /// Requested addresses have not come within the caller's patience.
    Attaching,
    /// No usable subnet has a free address.
    SubnetExhausted,
    /// No usable subnet has a free /28.
    SubnetFragmented,
    /// All ENIs that the instance or `MAX_ENI` allows are attached and full.
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
    /// EC2 refuses until somebody changes a quota, a tag, a group or a subnet.
    Ec2Refuses,
    /// The free addresses wait for a reading of the kernel, which may still route them to the pods before.
    KernelUnread,
    /// The ENIConfig that says where new ENIs go is unknown, missing or unusable.
    EniConfig,
    /// The policy lets nothing be changed at EC2, and what is attached and assigned is in use.
    ProvisioningOff,
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
            RefusalCode::Ec2Refuses => "EC2_REFUSES",
            RefusalCode::KernelUnread => "KERNEL_UNREAD",
            RefusalCode::EniConfig => "ENI_CONFIG",
            RefusalCode::ProvisioningOff => "PROVISIONING_OFF",
        }
    }
}
