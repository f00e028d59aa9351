//! The state changes of the model that happen without a call.

use crate::id::{AttachmentId, EniId, InstanceId, VpcCidrAssociationId, VpcId};

/// One scheduled state change. It does nothing if its resource no longer exists by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transition {
    /// A new ENI is no longer pending.
    EniAvailable(EniId),
    /// An attachment is complete.
    Attached(AttachmentId),
    /// An attachment ends.
    Detached(AttachmentId),
    /// A block of a VPC can be used.
    Associated(VpcId, VpcCidrAssociationId),
    /// A block of a VPC is gone.
    Disassociated(VpcId, VpcCidrAssociationId),
    /// An instance is up.
    Running(InstanceId),
    /// An instance is down.
    Terminated(InstanceId),
    /// DescribeInstances no longer lists an instance.
    Forgotten(InstanceId),
    /// IMDS adds or removes an ENI.
    ShowInterface(InstanceId, EniId),
    /// IMDS updates the addresses and groups of an ENI.
    ShowAddresses(InstanceId, EniId),
}
