//! EC2's answers as plain data. The server renders them to its wire format.
//!
//! Lists are in the order in which they are shown: ascending by id unless the field says otherwise.

use std::net::{Ipv4Addr, Ipv6Addr};

use address_plan::id::PoolId;
use instance_types::InstanceType;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mac::MacAddr;

use crate::connection_tracking::ConnectionTracking;
use crate::id::{
    AddressAssociationId, AllocationId, AttachmentId, CidrReservationId, EniId, InstanceId,
    InternetGatewayId, NatGatewayId, NetworkAclAssociationId, NetworkAclId, PeeringId,
    ReservationId, ResourceId, RouteTableAssociationId, RouteTableId, SecurityGroupId,
    SubnetCidrAssociationId, SubnetId, VpcCidrAssociationId, VpcId,
};
use crate::launch_options::InstanceProfile;
use crate::metadata_options::MetadataOptions;
use crate::request::{InterfaceType, ReservationType, VpcAttribute};
use crate::time::SimTime;
pub use ec2_api::page::Page;
pub use ec2_api::tag::Tags;

/// The answer to a successful call.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// Nothing but success (`<return>true</return>`): Modify…, Detach…, DeleteNetworkInterface,
    /// UnassignPrivateIpAddresses, CreateTags, DeleteTags, DisassociateAddress, DeleteVpc,
    /// DeleteSubnet.
    Done,
    /// DescribeInstances
    Reservations(Page<Reservation>),
    /// DescribeInstanceTypes
    InstanceTypes(Page<&'static InstanceType>),
    /// DescribeSubnets
    Subnets(Page<Subnet>),
    /// DescribeVpcs
    Vpcs(Page<Vpc>),
    /// DescribeSecurityGroups
    SecurityGroups(Page<SecurityGroup>),
    /// DescribeAvailabilityZones
    AvailabilityZones(Vec<AvailabilityZone>),
    /// CreateNetworkInterface
    Created {
        /// The new ENI, still pending.
        network_interface: Box<NetworkInterface>,
        /// The token of the request.
        client_token: Option<String>,
    },
    /// AttachNetworkInterface
    Attached {
        /// The id of the new attachment.
        attachment_id: AttachmentId,
        /// The card that the ENI is attached to.
        network_card_index: u16,
    },
    /// DescribeNetworkInterfaces
    NetworkInterfaces(Page<NetworkInterface>),
    /// AssignPrivateIpAddresses
    AssignedIpv4 {
        /// The ENI.
        network_interface_id: EniId,
        /// Addresses that this call assigned, in the order of assignment.
        addresses: Vec<Ipv4Addr>,
        /// Prefixes that this call assigned, in the order of assignment.
        prefixes: Vec<Ipv4Net>,
    },
    /// AssignIpv6Addresses
    AssignedIpv6 {
        /// The ENI.
        network_interface_id: EniId,
        /// Addresses that this call assigned, in the order of assignment.
        addresses: Vec<Ipv6Addr>,
        /// Prefixes that this call assigned, in the order of assignment.
        prefixes: Vec<Ipv6Net>,
    },
    /// UnassignIpv6Addresses
    UnassignedIpv6 {
        /// The ENI.
        network_interface_id: EniId,
        /// The unassigned addresses.
        addresses: Vec<Ipv6Addr>,
        /// The unassigned prefixes.
        prefixes: Vec<Ipv6Net>,
    },
    /// DescribeTags
    Tags(Page<TagDescription>),
    /// CreateSubnetCidrReservation and DeleteSubnetCidrReservation
    CidrReservation(SubnetCidrReservation),
    /// GetSubnetCidrReservations: both families on one page, to be told apart by `cidr`.
    CidrReservations(Page<SubnetCidrReservation>),
    /// CreateVpc
    Vpc(Vpc),
    /// CreateSubnet
    Subnet(Subnet),
    /// AssociateVpcCidrBlock, DisassociateVpcCidrBlock
    CidrAssociated {
        /// The VPC.
        vpc_id: VpcId,
        /// The block.
        association: VpcCidrAssociation,
    },
    /// DescribeVpcAttribute
    VpcAttribute {
        /// The VPC.
        vpc_id: VpcId,
        /// The attribute.
        attribute: VpcAttribute,
        /// Its value.
        value: bool,
    },
    /// DescribeNetworkAcls
    NetworkAcls(Page<NetworkAcl>),
    /// The operations of Amazon VPC IPAM
    Plan(address_plan::response::Response),
    /// DescribeRouteTables
    RouteTables(Page<RouteTable>),
    /// AllocateAddress
    Allocated {
        /// The new address.
        public_ip: Ipv4Addr,
        /// Its id.
        allocation_id: AllocationId,
    },
    /// AssociateAddress
    AddressAssociated(AddressAssociationId),
    /// RunInstances
    Started(Reservation),
    /// TerminateInstances
    StateChanges(Vec<InstanceStateChange>),
}

/// The instances that one RunInstances call started.
#[derive(Debug, Clone, PartialEq)]
pub struct Reservation {
    /// `reservationId`
    pub id: ReservationId,
    /// `ownerId`
    pub owner_id: String,
    /// `instancesSet`
    pub instances: Vec<Instance>,
}

/// `instanceState`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstanceState {
    /// Being started.
    Pending,
    /// Running.
    Running,
    /// Being terminated.
    ShuttingDown,
    /// Terminated; listed for one hour more.
    Terminated,
}

impl InstanceState {
    /// `name`
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }

    /// `code`
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
        }
    }
}

/// One of TerminateInstances' `instancesSet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceStateChange {
    /// `instanceId`
    pub instance_id: InstanceId,
    /// `previousState`
    pub previous: InstanceState,
    /// `currentState`
    pub current: InstanceState,
}

/// An instance. A terminated one has neither addresses nor network interfaces.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// `instanceId`
    pub id: InstanceId,
    /// `imageId`
    pub image_id: String,
    /// `instanceType`, with what is known of it.
    pub instance_type: &'static InstanceType,
    /// `instanceState`
    pub state: InstanceState,
    /// `launchTime`
    pub launch_time: SimTime,
    /// `placement/availabilityZone`
    pub availability_zone: String,
    /// `subnetId` of the primary ENI.
    pub subnet_id: SubnetId,
    /// `vpcId`
    pub vpc_id: VpcId,
    /// `privateIpAddress`: the primary address of the primary ENI. `None` in an IPv6-only subnet.
    pub private_ip_address: Option<Ipv4Addr>,
    /// `privateDnsName`
    pub private_dns_name: Option<String>,
    /// `ipAddress`: the public address of `private_ip_address`.
    pub public_ip_address: Option<Ipv4Addr>,
    /// `ipv6Address`: the first one of the primary ENI.
    pub ipv6_address: Option<Ipv6Addr>,
    /// `sourceDestCheck` of the primary ENI.
    pub source_dest_check: Option<bool>,
    /// `groupSet` of the primary ENI.
    pub groups: Vec<GroupIdentifier>,
    /// `tagSet`
    pub tags: Tags,
    /// `networkInterfaceSet`, by network card, then device index.
    pub network_interfaces: Vec<NetworkInterface>,
    /// `metadataOptions`
    pub metadata_options: MetadataOptions,
    /// `iamInstanceProfile`
    pub iam_instance_profile: Option<InstanceProfile>,
    /// `clientToken`
    pub client_token: Option<String>,
}

/// The id and name of a security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupIdentifier {
    /// `groupId`
    pub id: SecurityGroupId,
    /// `groupName`
    pub name: String,
}

/// `status` of an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterfaceStatus {
    /// Just created.
    Pending,
    /// Not attached.
    Available,
    /// Being attached.
    Attaching,
    /// Attached.
    InUse,
    /// Being detached.
    Detaching,
}

impl InterfaceStatus {
    /// EC2's name of the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Available => "available",
            Self::Attaching => "attaching",
            Self::InUse => "in-use",
            Self::Detaching => "detaching",
        }
    }
}

/// `attachment/status`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachmentStatus {
    /// Being attached; the device is not there yet.
    Attaching,
    /// Attached; the device is there.
    Attached,
    /// Being detached; the device is still there.
    Detaching,
}

impl AttachmentStatus {
    /// EC2's name of the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
        }
    }
}

/// `attachment` of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `attachmentId`
    pub id: AttachmentId,
    /// `instanceId`
    pub instance_id: InstanceId,
    /// `instanceOwnerId`
    pub instance_owner_id: String,
    /// `deviceIndex`
    pub device_index: u16,
    /// `networkCardIndex`
    pub network_card_index: u16,
    /// `status`
    pub status: AttachmentStatus,
    /// `attachTime`
    pub attach_time: SimTime,
    /// `deleteOnTermination`
    pub delete_on_termination: bool,
    /// `enaQueueCount`, if it is not the instance type's default.
    pub ena_queue_count: Option<u16>,
}

impl Attachment {
    /// The ENI's place on the instance: network card, then device index.
    pub(crate) const fn slot(&self) -> (u16, u16) {
        (self.network_card_index, self.device_index)
    }
}

/// One of `privateIpAddressesSet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateIpAddress {
    /// `privateIpAddress`
    pub address: Ipv4Addr,
    /// `association`, if it has a public address.
    pub association: Option<AddressAssociation>,
    /// `privateDnsName`
    pub private_dns_name: String,
    /// `primary`
    pub primary: bool,
}

/// `association`: the public address of a private one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressAssociation {
    /// `publicIp`
    pub public_ip: Ipv4Addr,
    /// `ipOwnerId`: `amazon` for an address that EC2 gave to a new instance.
    pub owner_id: String,
    /// `associationId`
    pub association_id: AddressAssociationId,
    /// `allocationId` of an Elastic IP address.
    pub allocation_id: Option<AllocationId>,
}

/// An ENI.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkInterface {
    /// `networkInterfaceId`
    pub id: EniId,
    /// `subnetId`
    pub subnet_id: SubnetId,
    /// `vpcId`
    pub vpc_id: VpcId,
    /// `availabilityZone`
    pub availability_zone: String,
    /// `availabilityZoneId`
    pub availability_zone_id: String,
    /// `description`
    pub description: String,
    /// `ownerId`
    pub owner_id: String,
    /// `requesterId`: the account that created it.
    pub requester_id: String,
    /// `requesterManaged`
    pub requester_managed: bool,
    /// `status`
    pub status: InterfaceStatus,
    /// `macAddress`
    pub mac_address: MacAddr,
    /// `privateIpAddress`: the primary. `None` in an IPv6-only subnet.
    pub private_ip_address: Option<Ipv4Addr>,
    /// `privateDnsName` of the primary.
    pub private_dns_name: Option<String>,
    /// `sourceDestCheck`
    pub source_dest_check: bool,
    /// `interfaceType`
    pub interface_type: InterfaceType,
    /// `groupSet`
    pub groups: Vec<GroupIdentifier>,
    /// `attachment`
    pub attachment: Option<Attachment>,
    /// `tagSet`
    pub tags: Tags,
    /// `privateIpAddressesSet`: the primary first, then in the order of assignment.
    pub private_ip_addresses: Vec<PrivateIpAddress>,
    /// `ipv4PrefixSet`, in the order of assignment.
    pub ipv4_prefixes: Vec<Ipv4Net>,
    /// `ipv6AddressesSet`, in the order of assignment.
    pub ipv6_addresses: Vec<Ipv6Addr>,
    /// The one of `ipv6_addresses` that has `isPrimaryIpv6`.
    pub primary_ipv6: Option<Ipv6Addr>,
    /// `ipv6PrefixSet`, in the order of assignment.
    pub ipv6_prefixes: Vec<Ipv6Net>,
    /// `connectionTrackingConfiguration`, if a timeout is not the instance type's default.
    pub connection_tracking: Option<ConnectionTracking>,
}

impl NetworkInterface {
    /// `association`: the public address of the primary address.
    #[must_use]
    pub fn association(&self) -> Option<&AddressAssociation> {
        let primary = self.private_ip_addresses.iter().find(|it| it.primary)?;
        primary.association.as_ref()
    }
}

/// `ipv6CidrBlockAssociationSet` of a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetIpv6Association {
    /// `associationId`
    pub association_id: SubnetCidrAssociationId,
    /// `ipv6CidrBlock`; always associated.
    pub cidr: Ipv6Net,
}

/// A subnet. Its state is always `available`.
#[derive(Debug, Clone, PartialEq)]
pub struct Subnet {
    /// `subnetId`
    pub id: SubnetId,
    /// `subnetArn`
    pub arn: String,
    /// `ownerId`
    pub owner_id: String,
    /// `vpcId`
    pub vpc_id: VpcId,
    /// `cidrBlock`. `None` if the subnet is IPv6 only (`ipv6Native`).
    pub cidr_block: Option<Ipv4Net>,
    /// `ipv6CidrBlockAssociationSet`
    pub ipv6: Option<SubnetIpv6Association>,
    /// `availableIpAddressCount`: IPv4 addresses; 0 in an IPv6-only subnet.
    pub available_ip_address_count: u32,
    /// `availabilityZone`
    pub availability_zone: String,
    /// `availabilityZoneId`
    pub availability_zone_id: String,
    /// `assignIpv6AddressOnCreation`
    pub assign_ipv6_address_on_creation: bool,
    /// `mapPublicIpOnLaunch`
    pub map_public_ip_on_launch: bool,
    /// `tagSet`
    pub tags: Tags,
}

/// `cidrBlockState/state`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CidrState {
    /// Not ready: no subnet can be created in it yet.
    Associating,
    /// Ready.
    Associated,
    /// On its way out. After it the block is gone.
    Disassociating,
}

impl CidrState {
    /// EC2's name of the state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Associating => "associating",
            Self::Associated => "associated",
            Self::Disassociating => "disassociating",
        }
    }
}

/// One of `cidrBlockAssociationSet` or `ipv6CidrBlockAssociationSet` of a VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcCidrAssociation {
    /// `associationId`
    pub id: VpcCidrAssociationId,
    /// `cidrBlock` or `ipv6CidrBlock`
    pub cidr: IpNet,
    /// `cidrBlockState/state` or `ipv6CidrBlockState/state`
    pub state: CidrState,
    /// The pool of Amazon VPC IPAM that gave it. `ipv6Pool` depends on it.
    pub pool: Option<PoolId>,
}

/// What DescribeVpcAttribute shows of a VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VpcAttributes {
    /// `enableDnsSupport`
    pub dns_support: bool,
    /// `enableDnsHostnames`
    pub dns_hostnames: bool,
    /// `enableNetworkAddressUsageMetrics`
    pub network_address_usage_metrics: bool,
}

impl Default for VpcAttributes {
    /// Those of a new VPC that is not the default one.
    fn default() -> Self {
        Self { dns_support: true, dns_hostnames: false, network_address_usage_metrics: false }
    }
}

impl VpcAttributes {
    /// The place of one attribute.
    pub(crate) fn get_mut(&mut self, attribute: VpcAttribute) -> &mut bool {
        match attribute {
            VpcAttribute::DnsSupport => &mut self.dns_support,
            VpcAttribute::DnsHostnames => &mut self.dns_hostnames,
            VpcAttribute::NetworkAddressUsageMetrics => &mut self.network_address_usage_metrics,
        }
    }
}

/// A VPC. Its state is always `available`.
#[derive(Debug, Clone, PartialEq)]
pub struct Vpc {
    /// `vpcId`
    pub id: VpcId,
    /// `ownerId`
    pub owner_id: String,
    /// `cidrBlock`: the primary.
    pub cidr_block: Ipv4Net,
    /// Blocks of both families: the primary IPv4 block first, then in the order of association.
    pub associations: Vec<VpcCidrAssociation>,
    /// `isDefault`
    pub is_default: bool,
    /// DescribeVpcAttribute shows them.
    pub attributes: VpcAttributes,
    /// `tagSet`
    pub tags: Tags,
}

/// The default network ACL of a VPC: it lets everything pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkAcl {
    /// `networkAclId`
    pub id: NetworkAclId,
    /// `vpcId`
    pub vpc_id: VpcId,
    /// `ownerId`
    pub owner_id: String,
    /// Whether the VPC has an IPv6 block, so that there are entries for IPv6.
    pub has_ipv6: bool,
    /// `associationSet`: one for each subnet.
    pub subnets: Vec<(NetworkAclAssociationId, SubnetId)>,
}

/// `routeSet/item`: the member that names the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// `gatewayId`, as `local`: within the VPC.
    Local,
    /// `gatewayId`
    InternetGateway(InternetGatewayId),
    /// `natGatewayId`
    NatGateway(NatGatewayId),
    /// `vpcPeeringConnectionId`
    Peering(PeeringId),
}

/// One of `routeSet`. Its state is always `active`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `destinationCidrBlock` or `destinationIpv6CidrBlock`
    pub destination: IpNet,
    /// Where the packets go.
    pub target: RouteTarget,
}

/// A route table. It has one association: with its subnet, or as the VPC's main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTable {
    /// `routeTableId`
    pub id: RouteTableId,
    /// `vpcId`
    pub vpc_id: VpcId,
    /// `ownerId`
    pub owner_id: String,
    /// `routeTableAssociationId`
    pub association_id: RouteTableAssociationId,
    /// `subnetId`. `None` for the main table.
    pub subnet_id: Option<SubnetId>,
    /// `routeSet`: the local routes, then the others by destination.
    pub routes: Vec<Route>,
}

/// A security group. The model has no rules.
#[derive(Debug, Clone, PartialEq)]
pub struct SecurityGroup {
    /// `groupId`
    pub id: SecurityGroupId,
    /// `groupName`
    pub name: String,
    /// `groupDescription`
    pub description: String,
    /// `ownerId`
    pub owner_id: String,
    /// `vpcId`
    pub vpc_id: VpcId,
    /// `securityGroupArn`
    pub arn: String,
    /// `tagSet`
    pub tags: Tags,
}

/// An availability zone; `zoneState` is `available`, `zoneType` `availability-zone`,
/// `optInStatus` `opt-in-not-required`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvailabilityZone {
    /// `zoneName`
    pub name: String,
    /// `zoneId`
    pub id: String,
    /// `regionName`; also `groupName` and `networkBorderGroup`.
    pub region: String,
}

/// One of DescribeTags' `tagSet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagDescription {
    /// `resourceId`, with its `resourceType`.
    pub resource: ResourceId,
    /// `key`
    pub key: String,
    /// `value`
    pub value: String,
}

/// A reserved range of a subnet.
#[derive(Debug, Clone, PartialEq)]
pub struct SubnetCidrReservation {
    /// `subnetCidrReservationId`
    pub id: CidrReservationId,
    /// `subnetId`
    pub subnet_id: SubnetId,
    /// `cidr`
    pub cidr: IpNet,
    /// `reservationType`
    pub reservation_type: ReservationType,
    /// `ownerId`
    pub owner_id: String,
    /// `description`
    pub description: String,
    /// `tagSet`
    pub tags: Tags,
}
