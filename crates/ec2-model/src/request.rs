//! Decoded requests: one struct per operation, and one closed enum over them.
//!
//! A struct has exactly the parameters that the model supports. The decoder must refuse all others.
//! A bad single value (an id, an address) fails when it is parsed. The model refuses bad
//! combinations of values.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use address_plan::id::PoolId;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::connection_tracking::ConnectionTracking;
use crate::error::ApiError;
use crate::id::{
    AddressAssociationId, AllocationId, AttachmentId, CidrReservationId, EniId, InstanceId,
    NetworkAclId, ResourceId, ResourceType, RouteTableId, SecurityGroupId, SubnetId,
    VpcCidrAssociationId, VpcId,
};
use crate::launch_options::IamInstanceProfile;
use crate::metadata_options::MetadataOptionsRequest;
pub use ec2_api::filter::Filter;
pub use ec2_api::page::Listing;
pub use ec2_api::tag::Tag;

ec2_api::operations!(
    DescribeInstances,
    DescribeInstanceTypes,
    DescribeSubnets,
    DescribeVpcs,
    DescribeSecurityGroups,
    DescribeAvailabilityZones,
    CreateNetworkInterface,
    AttachNetworkInterface,
    ModifyNetworkInterfaceAttribute,
    DetachNetworkInterface,
    DeleteNetworkInterface,
    DescribeNetworkInterfaces,
    AssignPrivateIpAddresses,
    UnassignPrivateIpAddresses,
    AssignIpv6Addresses,
    UnassignIpv6Addresses,
    CreateTags,
    DeleteTags,
    DescribeTags,
    CreateSubnetCidrReservation,
    GetSubnetCidrReservations,
    DeleteSubnetCidrReservation,
    CreateVpc,
    CreateSubnet,
    AssociateVpcCidrBlock,
    RunInstances,
    TerminateInstances,
    DescribeRouteTables,
    AllocateAddress,
    AssociateAddress,
    DisassociateAddress,
    DeleteVpc,
    DeleteSubnet,
    DisassociateVpcCidrBlock,
    DescribeVpcAttribute,
    ModifyVpcAttribute,
    ModifySubnetAttribute,
    DescribeNetworkAcls;
    /// An operation of Amazon VPC IPAM, which the address plan executes.
    Plan(address_plan::request::Action, PlanRequest),
);

impl Action {
    /// Whether calls of this operation change nothing.
    #[must_use]
    pub fn only_reads(self) -> bool {
        let name = self.as_str();
        name.starts_with("Describe") || name.starts_with("Get")
    }
}

/// A request of Amazon VPC IPAM.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRequest {
    /// All parameters but `DryRun`.
    pub request: address_plan::request::Request,
    /// `DryRun`
    pub dry_run: bool,
}

impl PlanRequest {
    /// The operation that it requests.
    #[must_use]
    pub const fn action(&self) -> address_plan::request::Action {
        self.request.action()
    }
}

/// `TagSpecification.N`: tags of what the call creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSpecification {
    /// `ResourceType`
    pub resource_type: ResourceType,
    /// `Tag.N`
    pub tags: Vec<Tag>,
}

/// The four ways to request addresses of one family. A call may use one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<A, P> {
    /// Named addresses.
    pub addresses: Vec<A>,
    /// A number of addresses that EC2 chooses.
    pub address_count: Option<i32>,
    /// Named prefixes without host bits. The model refuses misaligned ones.
    pub prefixes: Vec<P>,
    /// A number of prefixes that EC2 chooses.
    pub prefix_count: Option<i32>,
}

/// Secondary addresses and /28 prefixes.
pub type WantedIpv4 = Wanted<Ipv4Addr, Ipv4Net>;
/// IPv6 addresses and /80 prefixes.
pub type WantedIpv6 = Wanted<Ipv6Addr, Ipv6Net>;

impl<A, P> Default for Wanted<A, P> {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            address_count: None,
            prefixes: Vec::new(),
            prefix_count: None,
        }
    }
}

/// `InterfaceType`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterfaceType {
    /// `interface`
    #[default]
    Interface,
    /// `efa`
    Efa,
    /// `efa-only`: has no address that a pod could use.
    EfaOnly,
    /// `branch`
    Branch,
    /// `trunk`
    Trunk,
}

impl InterfaceType {
    /// EC2's name of the type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Efa => "efa",
            Self::EfaOnly => "efa-only",
            Self::Branch => "branch",
            Self::Trunk => "trunk",
        }
    }
}

impl FromStr for InterfaceType {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        [Self::Interface, Self::Efa, Self::EfaOnly, Self::Branch, Self::Trunk]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| ApiError::invalid_value(text, "interfaceType", ""))
    }
}

/// `ReservationType` of a subnet CIDR reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReservationType {
    /// EC2 takes the prefixes that it chooses from this range.
    Prefix,
    /// Only named addresses and prefixes come from this range.
    Explicit,
}

impl ReservationType {
    /// EC2's name of the type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Explicit => "explicit",
        }
    }
}

impl FromStr for ReservationType {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "prefix" => Ok(Self::Prefix),
            "explicit" => Ok(Self::Explicit),
            _ => Err(ApiError::invalid_value(text, "reservationType", "")),
        }
    }
}

/// Lists instances by reservation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeInstances {
    /// `InstanceId.N`
    pub instance_ids: Vec<InstanceId>,
    /// Filters and paging.
    pub listing: Listing,
    /// `IncludeManagedResources`. No instance of the model is managed by an AWS service.
    pub include_managed_resources: bool,
    /// `DryRun`
    pub dry_run: bool,
}

/// Lists what the instance types can do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeInstanceTypes {
    /// `InstanceType.N`, up to 100.
    pub instance_types: Vec<String>,
    /// Filters and paging.
    pub listing: Listing,
    /// `DryRun`
    pub dry_run: bool,
}

/// Lists subnets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeSubnets {
    /// `SubnetId.N`
    pub subnet_ids: Vec<SubnetId>,
    /// Filters and paging.
    pub listing: Listing,
    /// `DryRun`
    pub dry_run: bool,
}

/// Lists VPCs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeVpcs {
    /// `VpcId.N`
    pub vpc_ids: Vec<VpcId>,
    /// Filters and paging.
    pub listing: Listing,
    /// `DryRun`
    pub dry_run: bool,
}

/// Lists security groups.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeSecurityGroups {
    /// `GroupId.N`
    pub group_ids: Vec<SecurityGroupId>,
    /// `GroupName.N`
    pub group_names: Vec<String>,
    /// Filters and paging.
    pub listing: Listing,
    /// `DryRun`
    pub dry_run: bool,
}

/// Lists availability zones. It has no pages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeAvailabilityZones {
    /// `ZoneName.N`
    pub zone_names: Vec<String>,
    /// `ZoneId.N`
    pub zone_ids: Vec<String>,
    /// `Filter.N`
    pub filters: Vec<Filter>,
    /// `AllAvailabilityZones`. The model has no zone that needs opt-in.
    pub all_availability_zones: bool,
    /// `DryRun`
    pub dry_run: bool,
}

/// One of `PrivateIpAddresses.N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateIpAddressSpecification {
    /// `PrivateIpAddress`
    pub address: Ipv4Addr,
    /// `Primary`
    pub primary: bool,
}

/// Creates an unattached ENI.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateNetworkInterface {
    /// `SubnetId`
    pub subnet_id: SubnetId,
    /// `PrivateIpAddress`: the primary.
    pub private_ip_address: Option<Ipv4Addr>,
    /// `PrivateIpAddresses.N`
    pub private_ip_addresses: Vec<PrivateIpAddressSpecification>,
    /// `SecondaryPrivateIpAddressCount`
    pub secondary_private_ip_address_count: Option<i32>,
    /// `Ipv4Prefix.N.Ipv4Prefix`
    pub ipv4_prefixes: Vec<Ipv4Net>,
    /// `Ipv4PrefixCount`
    pub ipv4_prefix_count: Option<i32>,
    /// `Ipv6Addresses.N.Ipv6Address`, `Ipv6AddressCount`, `Ipv6Prefix.N.Ipv6Prefix`,
    /// `Ipv6PrefixCount`
    pub ipv6: WantedIpv6,
    /// `SecurityGroupId.N`; the default group of the VPC if empty.
    pub groups: Vec<SecurityGroupId>,
    /// `Description`
    pub description: String,
    /// `InterfaceType`
    pub interface_type: InterfaceType,
    /// `ConnectionTrackingSpecification`
    pub connection_tracking: Option<ConnectionTracking>,
    /// `EnablePrimaryIpv6`: the first IPv6 address becomes the primary one.
    pub enable_primary_ipv6: bool,
    /// `TagSpecification.N`
    pub tag_specifications: Vec<TagSpecification>,
    /// `ClientToken`
    pub client_token: Option<String>,
    /// `DryRun`
    pub dry_run: bool,
}

impl CreateNetworkInterface {
    /// A request for an ENI in `subnet_id` with a primary address only.
    #[must_use]
    pub fn in_subnet(subnet_id: SubnetId) -> Self {
        Self {
            subnet_id,
            private_ip_address: None,
            private_ip_addresses: Vec::new(),
            secondary_private_ip_address_count: None,
            ipv4_prefixes: Vec::new(),
            ipv4_prefix_count: None,
            ipv6: Wanted::default(),
            groups: Vec::new(),
            description: String::new(),
            interface_type: InterfaceType::default(),
            connection_tracking: None,
            enable_primary_ipv6: false,
            tag_specifications: Vec::new(),
            client_token: None,
            dry_run: false,
        }
    }
}

/// Attaches an ENI to an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachNetworkInterface {
    /// `NetworkInterfaceId`
    pub network_interface_id: EniId,
    /// `InstanceId`
    pub instance_id: InstanceId,
    /// `DeviceIndex`
    pub device_index: i32,
    /// `NetworkCardIndex`, 0 if absent.
    pub network_card_index: i32,
    /// `EnaQueueCount`. The instance type's default if absent.
    pub ena_queue_count: Option<i32>,
    /// `DryRun`
    pub dry_run: bool,
}

/// `Attachment` of [`ModifyNetworkInterfaceAttribute`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentChange {
    /// `Attachment.AttachmentId`
    pub attachment_id: AttachmentId,
    /// `Attachment.DeleteOnTermination`
    pub delete_on_termination: bool,
}

/// Changes one attribute of an ENI. Exactly one of the options must be given.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifyNetworkInterfaceAttribute {
    /// `NetworkInterfaceId`
    pub network_interface_id: EniId,
    /// `Attachment`
    pub attachment: Option<AttachmentChange>,
    /// `Description.Value`
    pub description: Option<String>,
    /// `SecurityGroupId.N` replaces the groups. Empty means not given.
    pub groups: Vec<SecurityGroupId>,
    /// `SourceDestCheck.Value`
    pub source_dest_check: Option<bool>,
    /// `ConnectionTrackingSpecification`. Timeouts that it does not name keep their values.
    pub connection_tracking: Option<ConnectionTracking>,
    /// `EnablePrimaryIpv6`: makes the first IPv6 address the primary one. It cannot be undone.
    pub enable_primary_ipv6: Option<bool>,
    /// `DryRun`
    pub dry_run: bool,
}

impl ModifyNetworkInterfaceAttribute {
    /// A request that names no attribute yet.
    #[must_use]
    pub fn of(network_interface_id: EniId) -> Self {
        Self {
            network_interface_id,
            attachment: None,
            description: None,
            groups: Vec::new(),
            source_dest_check: None,
            connection_tracking: None,
            enable_primary_ipv6: None,
            dry_run: false,
        }
    }
}

/// Detaches an ENI from its instance.
#[derive(Debug, Clone, PartialEq)]
pub struct DetachNetworkInterface {
    /// `AttachmentId`
    pub attachment_id: AttachmentId,
    /// `Force`: does not wait for the guest.
    pub force: bool,
    /// `DryRun`
    pub dry_run: bool,
}

/// Deletes an unattached ENI.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteNetworkInterface {
    /// `NetworkInterfaceId`
    pub network_interface_id: EniId,
    /// `DryRun`
    pub dry_run: bool,
}

/// Lists ENIs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeNetworkInterfaces {
    /// `NetworkInterfaceId.N`
    pub network_interface_ids: Vec<EniId>,
    /// Filters and paging.
    pub listing: Listing,
    /// `IncludeManagedResources`. No ENI of the model is managed by an AWS service.
    pub include_managed_resources: bool,
    /// `DryRun`
    pub dry_run: bool,
}

/// Assigns more IPv4 addresses or prefixes to an ENI, all of them or none.
#[derive(Debug, Clone, PartialEq)]
pub struct AssignPrivateIpAddresses {
    /// `NetworkInterfaceId`
    pub network_interface_id: EniId,
    /// `PrivateIpAddress.N`, `SecondaryPrivateIpAddressCount`, `Ipv4Prefix.N`, `Ipv4PrefixCount`
    pub wanted: WantedIpv4,
    /// `AllowReassignment`: moves named addresses from other ENIs of the subnet.
    pub allow_reassignment: bool,
}

/// Unassigns IPv4 addresses and prefixes from an ENI.
#[derive(Debug, Clone, PartialEq)]
pub struct UnassignPrivateIpAddresses {
    /// `NetworkInterfaceId`
    pub network_interface_id: EniId,
    /// `PrivateIpAddress.N`
    pub addresses: Vec<Ipv4Addr>,
    /// `Ipv4Prefix.N`
    pub prefixes: Vec<Ipv4Net>,
}

/// Assigns more IPv6 addresses or prefixes to an ENI, all of them or none.
#[derive(Debug, Clone, PartialEq)]
pub struct AssignIpv6Addresses {
    /// `NetworkInterfaceId`
    pub network_interface_id: EniId,
    /// `Ipv6Addresses.N`, `Ipv6AddressCount`, `Ipv6Prefix.N`, `Ipv6PrefixCount`
    pub wanted: WantedIpv6,
}

/// Unassigns IPv6 addresses and prefixes from an ENI.
#[derive(Debug, Clone, PartialEq)]
pub struct UnassignIpv6Addresses {
    /// `NetworkInterfaceId`
    pub network_interface_id: EniId,
    /// `Ipv6Addresses.N`
    pub addresses: Vec<Ipv6Addr>,
    /// `Ipv6Prefix.N`
    pub prefixes: Vec<Ipv6Net>,
}

/// Adds or overwrites tags.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateTags {
    /// `ResourceId.N`, up to 1,000.
    pub resources: Vec<ResourceId>,
    /// `Tag.N`. A tag without a value gets the empty value.
    pub tags: Vec<Tag>,
    /// `DryRun`
    pub dry_run: bool,
}

/// Removes tags, all of them if none is named. If a value is given, only a tag with this value is
/// removed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeleteTags {
    /// `ResourceId.N`, up to 1,000.
    pub resources: Vec<ResourceId>,
    /// `Tag.N`
    pub tags: Vec<Tag>,
    /// `DryRun`
    pub dry_run: bool,
}

/// Lists tags.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeTags {
    /// Filters and paging.
    pub listing: Listing,
    /// `DryRun`
    pub dry_run: bool,
}

/// Reserves a range of a subnet.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSubnetCidrReservation {
    /// `SubnetId`
    pub subnet_id: SubnetId,
    /// `Cidr`
    pub cidr: IpNet,
    /// `ReservationType`
    pub reservation_type: ReservationType,
    /// `Description`
    pub description: String,
    /// `TagSpecification.N`
    pub tag_specifications: Vec<TagSpecification>,
    /// `DryRun`
    pub dry_run: bool,
}

/// Lists the reservations of one subnet.
#[derive(Debug, Clone, PartialEq)]
pub struct GetSubnetCidrReservations {
    /// `SubnetId`
    pub subnet_id: SubnetId,
    /// Filters and paging.
    pub listing: Listing,
    /// `DryRun`
    pub dry_run: bool,
}

/// Removes a reservation. Addresses assigned from it stay assigned.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteSubnetCidrReservation {
    /// `SubnetCidrReservationId`
    pub reservation_id: CidrReservationId,
    /// `DryRun`
    pub dry_run: bool,
}

/// A block that a pool of Amazon VPC IPAM gives: `Ipv4IpamPoolId` and `Ipv4NetmaskLength`, or their
/// IPv6 siblings. A block that the request names must then be free in the pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FromPool {
    /// `…IpamPoolId`
    pub pool: Option<PoolId>,
    /// `…NetmaskLength`. Without it and without a named block, the pool's default.
    pub netmask_length: Option<i32>,
}

/// Creates a VPC with its default security group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateVpc {
    /// `CidrBlock`, /16 to /28. Required unless a pool gives the block.
    pub cidr_block: Option<Ipv4Net>,
    /// `Ipv4IpamPoolId`, `Ipv4NetmaskLength`
    pub ipv4_pool: FromPool,
    /// `AmazonProvidedIpv6CidrBlock`: adds a /56.
    pub amazon_provided_ipv6_cidr_block: bool,
    /// `Ipv6CidrBlock`. It must come from a pool.
    pub ipv6_cidr_block: Option<Ipv6Net>,
    /// `Ipv6IpamPoolId`, `Ipv6NetmaskLength`
    pub ipv6_pool: FromPool,
    /// `TagSpecification.N`
    pub tag_specifications: Vec<TagSpecification>,
    /// `DryRun`
    pub dry_run: bool,
}

/// Creates a subnet.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSubnet {
    /// `VpcId`
    pub vpc_id: VpcId,
    /// `CidrBlock`, /16 to /28; host bits are cleared. Excludes `ipv6_native`.
    pub cidr_block: Option<Ipv4Net>,
    /// `Ipv4IpamPoolId`, `Ipv4NetmaskLength`. Excludes `ipv6_native`.
    pub ipv4_pool: FromPool,
    /// `Ipv6CidrBlock`, a /64.
    pub ipv6_cidr_block: Option<Ipv6Net>,
    /// `Ipv6IpamPoolId`, `Ipv6NetmaskLength`
    pub ipv6_pool: FromPool,
    /// `Ipv6Native`: an IPv6-only subnet.
    pub ipv6_native: bool,
    /// `AvailabilityZone`; the first of the region if neither name nor id is given.
    pub availability_zone: Option<String>,
    /// `AvailabilityZoneId`
    pub availability_zone_id: Option<String>,
    /// `TagSpecification.N`
    pub tag_specifications: Vec<TagSpecification>,
    /// `DryRun`
    pub dry_run: bool,
}

impl CreateSubnet {
    /// A request that names no block yet.
    #[must_use]
    pub fn in_vpc(vpc_id: VpcId) -> Self {
        Self {
            vpc_id,
            cidr_block: None,
            ipv4_pool: FromPool::default(),
            ipv6_cidr_block: None,
            ipv6_pool: FromPool::default(),
            ipv6_native: false,
            availability_zone: None,
            availability_zone_id: None,
            tag_specifications: Vec::new(),
            dry_run: false,
        }
    }
}

/// Adds a CIDR block to a VPC. Exactly one block must be requested.
#[derive(Debug, Clone, PartialEq)]
pub struct AssociateVpcCidrBlock {
    /// `VpcId`
    pub vpc_id: VpcId,
    /// `CidrBlock`
    pub cidr_block: Option<Ipv4Net>,
    /// `Ipv4IpamPoolId`, `Ipv4NetmaskLength`
    pub ipv4_pool: FromPool,
    /// `AmazonProvidedIpv6CidrBlock`
    pub amazon_provided_ipv6_cidr_block: bool,
    /// `Ipv6CidrBlock`. It must come from a pool.
    pub ipv6_cidr_block: Option<Ipv6Net>,
    /// `Ipv6IpamPoolId`, `Ipv6NetmaskLength`
    pub ipv6_pool: FromPool,
}

impl AssociateVpcCidrBlock {
    /// A request that names no block yet.
    #[must_use]
    pub fn with(vpc_id: VpcId) -> Self {
        Self {
            vpc_id,
            cidr_block: None,
            ipv4_pool: FromPool::default(),
            amazon_provided_ipv6_cidr_block: false,
            ipv6_cidr_block: None,
            ipv6_pool: FromPool::default(),
        }
    }
}

/// Takes a block away from a VPC.
#[derive(Debug, Clone, PartialEq)]
pub struct DisassociateVpcCidrBlock {
    /// `AssociationId`
    pub association_id: VpcCidrAssociationId,
}

/// Deletes a VPC with its default security group.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteVpc {
    /// `VpcId`
    pub vpc_id: VpcId,
    /// `DryRun`
    pub dry_run: bool,
}

/// Deletes a subnet with its CIDR reservations.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteSubnet {
    /// `SubnetId`
    pub subnet_id: SubnetId,
    /// `DryRun`
    pub dry_run: bool,
}

/// `Attribute` of a VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VpcAttribute {
    /// `enableDnsSupport`
    DnsSupport,
    /// `enableDnsHostnames`
    DnsHostnames,
    /// `enableNetworkAddressUsageMetrics`
    NetworkAddressUsageMetrics,
}

impl VpcAttribute {
    /// All attributes.
    pub const ALL: [Self; 3] =
        [Self::DnsSupport, Self::DnsHostnames, Self::NetworkAddressUsageMetrics];

    /// EC2's name of the attribute.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DnsSupport => "enableDnsSupport",
            Self::DnsHostnames => "enableDnsHostnames",
            Self::NetworkAddressUsageMetrics => "enableNetworkAddressUsageMetrics",
        }
    }
}

impl FromStr for VpcAttribute {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let found = Self::ALL.into_iter().find(|attribute| attribute.as_str() == text);
        found.ok_or_else(|| ApiError::invalid_value(text, "attribute", ""))
    }
}

/// Shows one attribute of a VPC.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeVpcAttribute {
    /// `VpcId`
    pub vpc_id: VpcId,
    /// `Attribute`
    pub attribute: VpcAttribute,
    /// `DryRun`
    pub dry_run: bool,
}

/// Changes attributes of a VPC. Exactly one must be given.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifyVpcAttribute {
    /// `VpcId`
    pub vpc_id: VpcId,
    /// `EnableDnsSupport.Value` and its siblings
    pub changes: Vec<(VpcAttribute, bool)>,
}

/// Changes one attribute of a subnet. Exactly one must be given.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifySubnetAttribute {
    /// `SubnetId`
    pub subnet_id: SubnetId,
    /// `AssignIpv6AddressOnCreation.Value`
    pub assign_ipv6_address_on_creation: Option<bool>,
    /// `MapPublicIpOnLaunch.Value`
    pub map_public_ip_on_launch: Option<bool>,
}

/// Lists network ACLs. Each VPC has its default one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeNetworkAcls {
    /// `NetworkAclId.N`
    pub network_acl_ids: Vec<NetworkAclId>,
    /// Filters and paging.
    pub listing: Listing,
    /// `DryRun`
    pub dry_run: bool,
}

/// `NetworkInterface.N` of [`RunInstances`]: an existing ENI, or a new one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InstanceNetworkInterface {
    /// `DeviceIndex`
    pub device_index: i32,
    /// `NetworkCardIndex`
    pub network_card_index: i32,
    /// `NetworkInterfaceId` of an existing ENI. Then none of the fields below may be given.
    pub network_interface_id: Option<EniId>,
    /// `SubnetId`
    pub subnet_id: Option<SubnetId>,
    /// `SecurityGroupId.N`
    pub groups: Vec<SecurityGroupId>,
    /// `PrivateIpAddress`: the primary.
    pub private_ip_address: Option<Ipv4Addr>,
    /// `SecondaryPrivateIpAddressCount`
    pub secondary_private_ip_address_count: Option<i32>,
    /// `Ipv4PrefixCount`
    pub ipv4_prefix_count: Option<i32>,
    /// `Ipv6AddressCount`
    pub ipv6_address_count: Option<i32>,
    /// `Ipv6PrefixCount`
    pub ipv6_prefix_count: Option<i32>,
    /// `PrimaryIpv6`: the first IPv6 address becomes the primary one.
    pub primary_ipv6: bool,
    /// `ConnectionTrackingSpecification`
    pub connection_tracking: Option<ConnectionTracking>,
    /// `Description`
    pub description: String,
    /// `EnaQueueCount`, also for an existing ENI.
    pub ena_queue_count: Option<i32>,
    /// `DeleteOnTermination`. If absent, true for a new ENI.
    pub delete_on_termination: Option<bool>,
}

/// Starts instances.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunInstances {
    /// `ImageId`. The model stores it and does not look it up.
    pub image_id: String,
    /// `InstanceType`
    pub instance_type: String,
    /// `MinCount`
    pub min_count: i32,
    /// `MaxCount`
    pub max_count: i32,
    /// `SubnetId`. Excludes `network_interfaces`.
    pub subnet_id: Option<SubnetId>,
    /// `SecurityGroupId.N`. Excludes `network_interfaces`.
    pub groups: Vec<SecurityGroupId>,
    /// `PrivateIpAddress`, for a single instance. Excludes `network_interfaces`.
    pub private_ip_address: Option<Ipv4Addr>,
    /// `Ipv6AddressCount`, `Ipv6Address.N`. Excludes `network_interfaces`.
    pub ipv6: WantedIpv6,
    /// `EnablePrimaryIpv6`. Excludes `network_interfaces`.
    pub enable_primary_ipv6: bool,
    /// `NetworkInterface.N`
    pub network_interfaces: Vec<InstanceNetworkInterface>,
    /// `MetadataOptions`
    pub metadata_options: MetadataOptionsRequest,
    /// `IamInstanceProfile`
    pub iam_instance_profile: Option<IamInstanceProfile>,
    /// `UserData`, in base64.
    pub user_data: Option<String>,
    /// `TagSpecification.N`: for instances and network interfaces.
    pub tag_specifications: Vec<TagSpecification>,
    /// `ClientToken`
    pub client_token: Option<String>,
    /// `DryRun`
    pub dry_run: bool,
}

/// Terminates instances and deletes their ENIs with `DeleteOnTermination`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TerminateInstances {
    /// `InstanceId.N`
    pub instance_ids: Vec<InstanceId>,
    /// `DryRun`
    pub dry_run: bool,
}

/// Lists route tables.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeRouteTables {
    /// `RouteTableId.N`
    pub route_table_ids: Vec<RouteTableId>,
    /// Filters and paging.
    pub listing: Listing,
    /// `DryRun`
    pub dry_run: bool,
}

/// Allocates an Elastic IP address.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AllocateAddress {
    /// `DryRun`
    pub dry_run: bool,
}

/// Associates an Elastic IP address with a private address.
#[derive(Debug, Clone, PartialEq)]
pub struct AssociateAddress {
    /// `AllocationId`
    pub allocation_id: AllocationId,
    /// `NetworkInterfaceId`. Excludes `instance_id`.
    pub network_interface_id: Option<EniId>,
    /// `InstanceId`: its primary ENI.
    pub instance_id: Option<InstanceId>,
    /// `PrivateIpAddress`; the primary one if absent.
    pub private_ip_address: Option<Ipv4Addr>,
    /// `AllowReassociation`: whether the address may have an association already.
    pub allow_reassociation: bool,
    /// `DryRun`
    pub dry_run: bool,
}

/// Ends the association of a public address.
#[derive(Debug, Clone, PartialEq)]
pub struct DisassociateAddress {
    /// `AssociationId`
    pub association_id: AddressAssociationId,
    /// `DryRun`
    pub dry_run: bool,
}

impl Request {
    /// The token that makes a repeated call idempotent, for operations that have one. The address
    /// plan keeps the tokens of its own operations.
    #[must_use]
    pub fn client_token(&self) -> Option<&str> {
        if let Self::CreateNetworkInterface(request) = self {
            request.client_token.as_deref()
        } else if let Self::RunInstances(request) = self {
            request.client_token.as_deref()
        } else {
            None
        }
    }

    /// Whether the client only checks its permission. False for operations without `DryRun`.
    #[must_use]
    pub const fn dry_run(&self) -> bool {
        match self {
            Self::DescribeInstances(r) => r.dry_run,
            Self::DescribeInstanceTypes(r) => r.dry_run,
            Self::DescribeSubnets(r) => r.dry_run,
            Self::DescribeVpcs(r) => r.dry_run,
            Self::DescribeSecurityGroups(r) => r.dry_run,
            Self::DescribeAvailabilityZones(r) => r.dry_run,
            Self::CreateNetworkInterface(r) => r.dry_run,
            Self::AttachNetworkInterface(r) => r.dry_run,
            Self::ModifyNetworkInterfaceAttribute(r) => r.dry_run,
            Self::DetachNetworkInterface(r) => r.dry_run,
            Self::DeleteNetworkInterface(r) => r.dry_run,
            Self::DescribeNetworkInterfaces(r) => r.dry_run,
            Self::CreateTags(r) => r.dry_run,
            Self::DeleteTags(r) => r.dry_run,
            Self::DescribeTags(r) => r.dry_run,
            Self::CreateSubnetCidrReservation(r) => r.dry_run,
            Self::GetSubnetCidrReservations(r) => r.dry_run,
            Self::DeleteSubnetCidrReservation(r) => r.dry_run,
            Self::CreateVpc(r) => r.dry_run,
            Self::CreateSubnet(r) => r.dry_run,
            Self::RunInstances(r) => r.dry_run,
            Self::TerminateInstances(r) => r.dry_run,
            Self::DescribeRouteTables(r) => r.dry_run,
            Self::AllocateAddress(r) => r.dry_run,
            Self::AssociateAddress(r) => r.dry_run,
            Self::DisassociateAddress(r) => r.dry_run,
            Self::DeleteVpc(r) => r.dry_run,
            Self::DeleteSubnet(r) => r.dry_run,
            Self::DescribeVpcAttribute(r) => r.dry_run,
            Self::DescribeNetworkAcls(r) => r.dry_run,
            Self::Plan(r) => r.dry_run,
            Self::AssignPrivateIpAddresses(_)
            | Self::UnassignPrivateIpAddresses(_)
            | Self::AssignIpv6Addresses(_)
            | Self::UnassignIpv6Addresses(_)
            | Self::AssociateVpcCidrBlock(_)
            | Self::DisassociateVpcCidrBlock(_)
            | Self::ModifyVpcAttribute(_)
            | Self::ModifySubnetAttribute(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_parses_from_its_name() {
        for action in Action::all() {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        assert_eq!("DescribeMoons".parse::<Action>().unwrap_err().code, "InvalidAction");
    }
}
