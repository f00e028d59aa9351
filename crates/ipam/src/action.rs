//! EC2's actions that the engine uses, as names alone.

/// The actions of EC2 that the engine uses. Throttling and permissions apply to an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// `DescribeNetworkInterfaces`.
    DescribeEnis,
    /// `DescribeSubnets`.
    DescribeSubnets,
    /// `CreateNetworkInterface`.
    CreateEni,
    /// `AttachNetworkInterface`.
    AttachEni,
    /// `ModifyNetworkInterfaceAttribute`.
    SetDeleteOnTermination,
    /// `AssignPrivateIpAddresses`.
    Assign,
    /// `AssignIpv6Addresses`.
    AssignIpv6,
    /// `UnassignPrivateIpAddresses`.
    Unassign,
    /// `UnassignIpv6Addresses`.
    UnassignIpv6,
    /// `DetachNetworkInterface`.
    DetachEni,
    /// `DeleteNetworkInterface`.
    DeleteEni,
    /// `ModifyNetworkInterfaceAttribute` too. It waits for itself alone: a role may permit only one of the two.
    SetSecurityGroups,
}

impl Action {
    /// The action as EC2 and IAM write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Action::DescribeEnis => "DescribeNetworkInterfaces",
            Action::DescribeSubnets => "DescribeSubnets",
            Action::CreateEni => "CreateNetworkInterface",
            Action::AttachEni => "AttachNetworkInterface",
            Action::SetDeleteOnTermination | Action::SetSecurityGroups => {
                "ModifyNetworkInterfaceAttribute"
            }
            Action::Assign => "AssignPrivateIpAddresses",
            Action::AssignIpv6 => "AssignIpv6Addresses",
            Action::Unassign => "UnassignPrivateIpAddresses",
            Action::UnassignIpv6 => "UnassignIpv6Addresses",
            Action::DetachEni => "DetachNetworkInterface",
            Action::DeleteEni => "DeleteNetworkInterface",
        }
    }
}
