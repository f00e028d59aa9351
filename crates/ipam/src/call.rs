//! Calls to EC2 as data: the request, the answer, the error.
//!
//! The engine returns them, and the program around it makes them. Nothing here knows the SDK.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use mac::MacAddr;
use serde::{Deserialize, Serialize};

pub use crate::action::Action;
use crate::block::{Block, BlockCount, Family};
use crate::connection_tracking::ConnectionTracking;
use crate::id::{EniAttachmentId, EniId, SecurityGroupId, SubnetId};

/// Tag of an ENI that was made for an instance; the value is the instance's id. [`Ec2Call::DescribeEnis`]
/// finds unattached ENIs by it.
pub const INSTANCE_TAG: &str = "node.k8s.amazonaws.com/instance_id";

/// Tag of an ENI that was made for a node of a cluster; the value is the cluster's name.
pub const CLUSTER_TAG: &str = "cluster.k8s.amazonaws.com/name";

/// The most tags of its own that the engine puts on a new ENI, beside those of the user.
pub const MOST_OWN_TAGS: usize = 4;

/// The number of one call of one engine; never used again while the record lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

/// A call to EC2 that changes or reads what this node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ec2Call {
    /// Every ENI attached to this instance, and every unattached one that carries its tag.
    /// Answered by [`CallOutput::Enis`].
    DescribeEnis,
    /// The subnets of this node's VPC and availability zone. Answered by [`CallOutput::Subnets`].
    DescribeSubnets,
    /// The ENIs in this node's VPC that are attached nowhere and carry the tag of `cluster` and that
    /// of some instance. Answered by [`CallOutput::Enis`].
    DescribeUnattached {
        /// The cluster's name.
        cluster: String,
    },
    /// Answered by [`CallOutput::Created`].
    CreateEni {
        /// Where the ENI and all its addresses live.
        subnet: SubnetId,
        /// Its security groups, sorted.
        security_groups: BTreeSet<SecurityGroupId>,
        /// How long it shall remember idle connections.
        #[serde(default, skip_serializing_if = "ConnectionTracking::is_default")]
        connection_tracking: ConnectionTracking,
        /// What it shall carry beside its primary address.
        #[serde(alias = "ask")]
        blocks: BlockCount,
        /// What the console shows; the leak search of other tools reads it.
        description: String,
        /// Tags at creation, so that an ENI is never without its owner's mark.
        tags: BTreeMap<String, String>,
        /// Makes a repeated call answer with the first one's ENI.
        client_token: String,
    },
    /// Answered by [`CallOutput::Attached`].
    AttachEni {
        /// An unattached ENI of ours.
        eni: EniId,
        /// A free device index on network card 0.
        device_index: u16,
    },
    /// Sets `DeleteOnTermination`. Answered by [`CallOutput::Done`].
    SetDeleteOnTermination {
        /// The attached ENI.
        eni: EniId,
        /// Its attachment to this instance.
        attachment: EniAttachmentId,
    },
    /// Answered by [`CallOutput::Assigned`].
    Assign {
        /// An ENI attached to this instance.
        eni: EniId,
        /// At least one.
        #[serde(alias = "ask")]
        blocks: BlockCount,
    },
    /// Answered by [`CallOutput::Done`].
    Unassign {
        /// An ENI attached to this instance.
        eni: EniId,
        /// The blocks that go back, all of one kind, never empty.
        blocks: BTreeSet<Block>,
    },
    /// Answered by [`CallOutput::Done`]; the ENI is gone from the instance some seconds later.
    DetachEni {
        /// The ENI.
        eni: EniId,
        /// Its attachment to this instance.
        attachment: EniAttachmentId,
    },
    /// Answered by [`CallOutput::Done`].
    DeleteEni {
        /// An unattached ENI of ours.
        eni: EniId,
    },
    /// Replaces the security groups. Answered by [`CallOutput::Done`].
    SetSecurityGroups {
        /// An ENI of ours, attached or not.
        eni: EniId,
        /// All that it shall have, never empty.
        security_groups: BTreeSet<SecurityGroupId>,
    },
}

/// What EC2 answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallOutput {
    /// Answer to [`Ec2Call::DescribeEnis`] and [`Ec2Call::DescribeUnattached`].
    Enis(Vec<EniFacts>),
    /// Answer to [`Ec2Call::DescribeSubnets`].
    Subnets(Vec<SubnetFacts>),
    /// Answer to [`Ec2Call::CreateEni`].
    Created(EniFacts),
    /// Answer to [`Ec2Call::AttachEni`].
    Attached(EniAttachmentId),
    /// Answer to [`Ec2Call::Assign`]: the blocks that this call added.
    Assigned(BTreeSet<Block>),
    /// The call had its effect.
    Done,
}

/// An ENI as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniFacts {
    /// Its id.
    pub id: EniId,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Where it lives.
    pub subnet: SubnetId,
    /// Its security groups in EC2's present answer. They may change at any time, so they go on no record.
    #[serde(skip)]
    pub security_groups: BTreeSet<SecurityGroupId>,
    /// How long it remembers idle connections, in EC2's present answer. On no record either.
    #[serde(skip)]
    pub connection_tracking: ConnectionTracking,
    /// Its own address, never a pod's: IPv4, or IPv6 in a subnet without IPv4; unspecified if it has none. Without
    /// IPv4 its kind is [`EniKind::Other`].
    pub primary_address: IpAddr,
    /// Secondary IPv4 addresses, IPv4 prefixes and IPv6 prefixes. Its single IPv6 addresses belong to the
    /// node, as its primary address does.
    pub blocks: BTreeSet<Block>,
    /// The kind of ENI.
    pub kind: EniKind,
    /// Its attachment to an instance.
    pub attachment: Option<EniAttachment>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// `interfaceType`, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EniKind {
    /// An ordinary ENI.
    Interface,
    /// Anything else (trunk, branch, EFA, a load balancer's, without IPv4 …): never ours to manage.
    Other,
}

/// An ENI's attachment to this instance, as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniAttachment {
    /// The id that detaching needs.
    pub id: EniAttachmentId,
    /// Its place. The primary ENI usually has 0 on card 0, and 1 on some managed instances.
    pub device_index: u16,
    /// 0 unless the instance type has several cards.
    pub network_card: u16,
    /// How far it has come.
    pub status: AttachmentStatus,
    /// Whether the ENI dies with its instance.
    pub delete_on_termination: bool,
}

/// `attachment.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentStatus {
    /// On its way in.
    Attaching,
    /// There.
    Attached,
    /// On its way out, or out.
    Detaching,
}

/// A subnet as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetFacts {
    /// Its id.
    pub id: SubnetId,
    /// Its IPv4 range, or the IPv6 range of a subnet without IPv4.
    pub cidr: IpNet,
    /// `AvailableIpAddressCount`: single addresses, whether or not a /28 of them is left. `None` in the metadata service's
    /// answer.
    pub free_addresses: Option<u32>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// Why a call failed, as far as what follows depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallErrorKind {
    /// `RequestLimitExceeded` and its kin: no effect, try later.
    Throttled,
    /// The subnet has too few free addresses (`InsufficientFreeAddressesInSubnet`).
    SubnetExhausted,
    /// The subnet has no free aligned /28 (`InsufficientCidrBlocks`).
    SubnetFragmented,
    /// The ENI carries all it can (`PrivateIpAddressLimitExceeded`).
    AddressLimit,
    /// The instance carries all the ENIs it can (`AttachmentLimitExceeded`).
    EniLimit,
    /// The device index is taken.
    DeviceIndexTaken,
    /// The ENI or attachment does not exist, or not yet.
    NotFound,
    /// The ENI is attached, so it cannot be deleted or attached again.
    InUse,
    /// IAM refuses (`UnauthorizedOperation`), or the credentials are not valid.
    AccessDenied,
    /// There are no credentials, so the request was not sent. They may come later: their source may only
    /// be unreachable.
    NoCredentials,
    /// The request may have had its effect or not: time-out, lost connection, 5xx.
    OutcomeUnknown,
    /// EC2 refuses until somebody changes something: a quota, a tag, a group or subnet that is gone. It had no
    /// effect.
    Lasting,
    /// Any other refusal; it had no effect.
    Rejected,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CallError {
    /// Its kind.
    pub kind: CallErrorKind,
    /// EC2's code, or a word for a failure before EC2's answer.
    pub code: String,
    /// EC2's message.
    pub message: String,
}

impl Ec2Call {
    /// Whether it changes nothing.
    #[must_use]
    pub fn reads(&self) -> bool {
        matches!(self.action(), Action::DescribeEnis | Action::DescribeSubnets)
    }

    /// Which action it is.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Ec2Call::DescribeEnis | Ec2Call::DescribeUnattached { .. } => Action::DescribeEnis,
            Ec2Call::DescribeSubnets => Action::DescribeSubnets,
            Ec2Call::CreateEni { .. } => Action::CreateEni,
            Ec2Call::AttachEni { .. } => Action::AttachEni,
            Ec2Call::SetDeleteOnTermination { .. } => Action::SetDeleteOnTermination,
            Ec2Call::Assign { blocks, .. } => blocks.kind.assign_action(),
            Ec2Call::Unassign { blocks, .. }
                if blocks.iter().all(|block| block.family() == Family::V6) =>
            {
                Action::UnassignIpv6
            }
            Ec2Call::Unassign { .. } => Action::Unassign,
            Ec2Call::DetachEni { .. } => Action::DetachEni,
            Ec2Call::DeleteEni { .. } => Action::DeleteEni,
            Ec2Call::SetSecurityGroups { .. } => Action::SetSecurityGroups,
        }
    }

    /// The ENI that it changes; `None` for a creation and for a describe.
    #[must_use]
    pub fn eni(&self) -> Option<&EniId> {
        match self {
            Ec2Call::DescribeEnis
            | Ec2Call::DescribeSubnets
            | Ec2Call::DescribeUnattached { .. }
            | Ec2Call::CreateEni { .. } => None,
            Ec2Call::AttachEni { eni, .. }
            | Ec2Call::SetDeleteOnTermination { eni, .. }
            | Ec2Call::Assign { eni, .. }
            | Ec2Call::Unassign { eni, .. }
            | Ec2Call::DetachEni { eni, .. }
            | Ec2Call::DeleteEni { eni }
            | Ec2Call::SetSecurityGroups { eni, .. } => Some(eni),
        }
    }
}

/// One phrase for people: the action and what it is about.
impl fmt::Display for Ec2Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.action().as_str())?;
        match self {
            Ec2Call::DescribeEnis | Ec2Call::DescribeSubnets => Ok(()),
            Ec2Call::DescribeUnattached { cluster } => write!(f, " that {cluster} has left behind"),
            Ec2Call::CreateEni { subnet, blocks, .. } => {
                write!(f, " in {subnet} with {blocks}")
            }
            Ec2Call::AttachEni { eni, device_index } => write!(f, " {eni} at index {device_index}"),
            Ec2Call::SetDeleteOnTermination { eni, .. }
            | Ec2Call::DetachEni { eni, .. }
            | Ec2Call::DeleteEni { eni } => write!(f, " {eni}"),
            Ec2Call::Assign { eni, blocks } => write!(f, " {blocks} to {eni}"),
            Ec2Call::Unassign { eni, blocks } => write!(f, " {} blocks of {eni}", blocks.len()),
            Ec2Call::SetSecurityGroups { eni, security_groups } => {
                write!(f, " {eni} with {}", GroupList(security_groups))
            }
        }
    }
}

/// Security groups for people: `sg-1, sg-2`.
pub(crate) struct GroupList<'a>(pub(crate) &'a BTreeSet<SecurityGroupId>);

impl fmt::Display for GroupList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, group) in self.0.iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{group}")?;
        }
        Ok(())
    }
}

impl EniFacts {
    /// Whether it is the primary ENI of the instance whose metadata name `primary_mac`. Its device index does not
    /// tell: on some managed instances the primary ENI has index 1.
    #[must_use]
    pub fn is_primary(&self, primary_mac: MacAddr) -> bool {
        self.mac == primary_mac && self.attachment.is_some()
    }
}

impl SubnetFacts {
    /// Whether its addresses are of IPv6 alone. An ENI there is no use to pods on IPv4.
    #[must_use]
    pub fn is_ipv6_only(&self) -> bool {
        matches!(self.cidr, IpNet::V6(_))
    }
}
