//! The API's answers as plain data. A server renders them to its wire format.
//!
//! Lists are ascending by id, or by CIDR, unless the field says otherwise.

use std::collections::BTreeSet;

use ec2_api::page::Page;
use ec2_api::tag::Tags;
use ec2_api::{ApiError, SimTime};
use ipnet::IpNet;

use crate::block::Family;
use crate::id::{
    Account, AllocationId, AssociationId, DiscoveryId, IpamId, PoolCidrId, PoolId, Region,
    ResourceId, ScopeId,
};
use crate::request::{
    AwsService, MeteredAccount, PublicIpSource, ResourceKind, SourceResource, Tier, named,
};
use crate::rules::Rules;
use std::str::FromStr;

/// The answer to a successful call.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// CreateIpam, ModifyIpam, DeleteIpam
    Ipam(Ipam),
    /// DescribeIpams
    Ipams(Page<Ipam>),
    /// CreateIpamScope, ModifyIpamScope, DeleteIpamScope
    Scope(Scope),
    /// DescribeIpamScopes
    Scopes(Page<Scope>),
    /// CreateIpamPool, ModifyIpamPool, DeleteIpamPool
    Pool(Pool),
    /// DescribeIpamPools
    Pools(Page<Pool>),
    /// ProvisionIpamPoolCidr, DeprovisionIpamPoolCidr
    PoolCidr(PoolCidr),
    /// GetIpamPoolCidrs
    PoolCidrs(Page<PoolCidr>),
    /// AllocateIpamPoolCidr, ModifyIpamPoolAllocation
    Allocation(Allocation),
    /// AllocateIpamPoolCidr with `PreviewNextCidr`
    Preview(IpNet),
    /// ReleaseIpamPoolAllocation, and the two operations for the organisation's administrator
    Success,
    /// GetIpamPoolAllocations, DescribeIpamPoolAllocations
    Allocations(Page<Allocation>),
    /// ModifyIpamResourceCidr
    ResourceCidr(ResourceCidr),
    /// GetIpamResourceCidrs
    ResourceCidrs(Page<ResourceCidr>),
    /// GetIpamAddressHistory: ascending by start.
    AddressHistory(Page<HistoryRecord>),
    /// CreateIpamResourceDiscovery, ModifyIpamResourceDiscovery, DeleteIpamResourceDiscovery
    Discovery(Discovery),
    /// DescribeIpamResourceDiscoveries
    Discoveries(Page<Discovery>),
    /// AssociateIpamResourceDiscovery, DisassociateIpamResourceDiscovery
    Association(Association),
    /// DescribeIpamResourceDiscoveryAssociations
    Associations(Page<Association>),
    /// GetIpamDiscoveredAccounts
    DiscoveredAccounts(Page<DiscoveredAccount>),
    /// GetIpamDiscoveredResourceCidrs
    DiscoveredResourceCidrs(Page<DiscoveredResourceCidr>),
}

named!(
    /// `State` of an IPAM, scope, pool or discovery. The model has no failures of these, and no
    /// isolation.
    State, "state", {
        /// Being created.
        CreateInProgress = "create-in-progress",
        /// Created.
        CreateComplete = "create-complete",
        /// Being changed.
        ModifyInProgress = "modify-in-progress",
        /// Changed.
        ModifyComplete = "modify-complete",
        /// Being deleted. After it the object is gone.
        DeleteInProgress = "delete-in-progress",
    }
);

impl State {
    /// Whether an operation is under way, so that the next one must wait.
    #[must_use]
    pub const fn is_in_progress(self) -> bool {
        match self {
            Self::CreateInProgress | Self::ModifyInProgress | Self::DeleteInProgress => true,
            Self::CreateComplete | Self::ModifyComplete => false,
        }
    }

    /// What follows when the operation is done. `None` if the object is gone then.
    #[must_use]
    pub(crate) const fn completed(self) -> Option<Self> {
        match self {
            Self::CreateInProgress | Self::CreateComplete => Some(Self::CreateComplete),
            Self::ModifyInProgress | Self::ModifyComplete => Some(Self::ModifyComplete),
            Self::DeleteInProgress => None,
        }
    }
}

/// An IPAM.
#[derive(Debug, Clone, PartialEq)]
pub struct Ipam {
    /// `ipamId`
    pub id: IpamId,
    /// `ownerId`
    pub owner: Account,
    /// `ipamRegion`: the home Region.
    pub region: Region,
    /// `operatingRegionSet`, with the home Region.
    pub operating_regions: BTreeSet<Region>,
    /// `publicDefaultScopeId`
    pub public_scope: ScopeId,
    /// `privateDefaultScopeId`
    pub private_scope: ScopeId,
    /// `scopeCount`
    pub n_scopes: usize,
    /// `defaultResourceDiscoveryId`
    pub default_discovery: DiscoveryId,
    /// `defaultResourceDiscoveryAssociationId`
    pub default_association: AssociationId,
    /// `resourceDiscoveryAssociationCount`, with the default one.
    pub n_associations: usize,
    /// `description`
    pub description: Option<String>,
    /// `tier`
    pub tier: Tier,
    /// `enablePrivateGua`
    pub enable_private_gua: bool,
    /// `meteredAccount`
    pub metered_account: MeteredAccount,
    /// `state`
    pub state: State,
    /// `tagSet`
    pub tags: Tags,
}

/// `ipamScopeType`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScopeType {
    /// Addresses that the Internet may see.
    Public,
    /// All others.
    Private,
}

impl ScopeType {
    /// The API's name of the type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }
}

/// A scope.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// `ipamScopeId`
    pub id: ScopeId,
    /// The IPAM, for `ipamArn`.
    pub ipam: IpamId,
    /// `ownerId`
    pub owner: Account,
    /// `ipamRegion`
    pub region: Region,
    /// `ipamScopeType`
    pub scope_type: ScopeType,
    /// `isDefault`
    pub is_default: bool,
    /// `poolCount`
    pub n_pools: usize,
    /// `description`
    pub description: Option<String>,
    /// `state`
    pub state: State,
    /// `tagSet`
    pub tags: Tags,
}

/// Where a pool's CIDRs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Whoever plans names them: a top-level pool.
    Plan,
    /// Another pool.
    Pool(PoolId),
    /// The space of a VPC, which itself has an allocation of the pool.
    Resource {
        /// `sourceIpamPoolId`
        pool: PoolId,
        /// `sourceResource`
        resource: SourceResource,
    },
}

impl Source {
    /// `sourceIpamPoolId`
    #[must_use]
    pub const fn pool(&self) -> Option<&PoolId> {
        match self {
            Self::Plan => None,
            Self::Pool(pool) | Self::Resource { pool, .. } => Some(pool),
        }
    }

    /// `sourceResource`
    #[must_use]
    pub const fn resource(&self) -> Option<&SourceResource> {
        match self {
            Self::Plan | Self::Pool(_) => None,
            Self::Resource { resource, .. } => Some(resource),
        }
    }
}

/// What only pools of the public scope have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicPool {
    /// `awsService`
    pub aws_service: Option<AwsService>,
    /// `publicIpSource`
    pub public_ip_source: PublicIpSource,
    /// `publiclyAdvertisable`: IPv6 ranges that the customer brings.
    pub publicly_advertisable: Option<bool>,
}

/// A pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// `ipamPoolId`
    pub id: PoolId,
    /// The IPAM, for `ipamArn`.
    pub ipam: IpamId,
    /// The scope, for `ipamScopeArn`.
    pub scope: ScopeId,
    /// `ownerId`
    pub owner: Account,
    /// `ipamRegion`
    pub region: Region,
    /// `sourceIpamPoolId` and `sourceResource`
    pub source: Source,
    /// What a pool of the public scope has beside; `None` in private scopes.
    pub public: Option<PublicPool>,
    /// `addressFamily`
    pub family: Family,
    /// `locale`; the API shows `None` if absent.
    pub locale: Option<Region>,
    /// `poolDepth`, from 1.
    pub depth: usize,
    /// `description`
    pub description: Option<String>,
    /// `autoImport`
    pub auto_import: bool,
    /// `allocationMinNetmaskLength` and its siblings, `allocationResourceTagSet`
    pub rules: Rules,
    /// `state`
    pub state: State,
    /// `tagSet`
    pub tags: Tags,
}

/// `failureReason.code` of a pool CIDR
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureCode {
    /// The range, or a range of this length, cannot be had.
    CidrNotAvailable,
    /// The pool has as many CIDRs as it may have.
    LimitExceeded,
}

impl FailureCode {
    /// The API's name of the code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CidrNotAvailable => "cidr-not-available",
            Self::LimitExceeded => "limit-exceeded",
        }
    }
}

/// `state` of a pool CIDR, with what belongs to it. After `pending-deprovision` the CIDR is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolCidrState {
    /// `pending-provision`
    PendingProvision,
    /// `provisioned`
    Provisioned,
    /// `failed-provision`
    FailedProvision(FailureCode, String),
    /// `pending-deprovision`
    PendingDeprovision,
    /// `failed-deprovision`. The CIDR still serves.
    FailedDeprovision(String),
}

impl PoolCidrState {
    /// The API's name of the state.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::PendingProvision => "pending-provision",
            Self::Provisioned => "provisioned",
            Self::FailedProvision(..) => "failed-provision",
            Self::PendingDeprovision => "pending-deprovision",
            Self::FailedDeprovision(_) => "failed-deprovision",
        }
    }
}

/// A CIDR of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolCidr {
    /// `ipamPoolCidrId`
    pub id: PoolCidrId,
    /// `cidr`. `None` if no range of the length could be had.
    pub cidr: Option<IpNet>,
    /// `netmaskLength`, if the request named it.
    pub netmask_length: Option<u8>,
    /// `state` and `failureReason`
    pub state: PoolCidrState,
}

/// What holds an allocation: `resourceType` and `resourceId`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// `custom`: made by hand.
    Custom,
    /// `ipam-pool`: provisioned to a pool below.
    Pool(PoolId),
    /// `vpc`
    Vpc(ResourceId),
    /// `subnet`
    Subnet(ResourceId),
    /// `eip`
    Eip(ResourceId),
}

impl Holder {
    /// `resourceType`
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Custom => "custom",
            Self::Pool(_) => "ipam-pool",
            Self::Vpc(_) => "vpc",
            Self::Subnet(_) => "subnet",
            Self::Eip(_) => "eip",
        }
    }

    /// The resource in a Region, if one holds it.
    #[must_use]
    pub const fn resource(&self) -> Option<&ResourceId> {
        match self {
            Self::Custom | Self::Pool(_) => None,
            Self::Vpc(id) | Self::Subnet(id) | Self::Eip(id) => Some(id),
        }
    }

    /// `resourceId`
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Custom => None,
            Self::Pool(id) => Some(id.as_str()),
            Self::Vpc(id) | Self::Subnet(id) | Self::Eip(id) => Some(id.as_str()),
        }
    }
}

/// An allocation of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// `ipamPoolAllocationId`
    pub id: AllocationId,
    /// `cidr`
    pub cidr: IpNet,
    /// `resourceType` and `resourceId`
    pub holder: Holder,
    /// `resourceRegion`
    pub region: Region,
    /// `resourceOwner`
    pub owner: Account,
    /// `description`
    pub description: Option<String>,
    /// `tagSet`
    pub tags: Tags,
    /// When it was made. The API does not show it.
    pub made_at: SimTime,
}

/// `managementState`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ManagementState {
    /// The resource has an allocation of a pool.
    Managed,
    /// It is seen, and in no pool.
    Unmanaged,
    /// Its monitoring is switched off.
    Ignored,
}

impl ManagementState {
    /// The API's name of the state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Managed => "managed",
            Self::Unmanaged => "unmanaged",
            Self::Ignored => "ignored",
        }
    }
}

/// `complianceStatus`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ComplianceStatus {
    /// It obeys the rules of its pool.
    Compliant,
    /// It breaks a rule of its pool.
    Noncompliant,
    /// It is in no pool.
    Unmanaged,
    /// Its monitoring is switched off.
    Ignored,
}

impl ComplianceStatus {
    /// The API's name of the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compliant => "compliant",
            Self::Noncompliant => "noncompliant",
            Self::Unmanaged => "unmanaged",
            Self::Ignored => "ignored",
        }
    }
}

/// `overlapStatus`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverlapStatus {
    /// Another network of the scope has a part of it.
    Overlapping,
    /// No other network of the scope has a part of it.
    Nonoverlapping,
    /// Its monitoring is switched off.
    Ignored,
}

impl OverlapStatus {
    /// The API's name of the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overlapping => "overlapping",
            Self::Nonoverlapping => "nonoverlapping",
            Self::Ignored => "ignored",
        }
    }
}

/// One CIDR of a resource, as an IPAM sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceCidr {
    /// `ipamId`
    pub ipam: IpamId,
    /// `ipamScopeId`
    pub scope: ScopeId,
    /// `ipamPoolId`, if it is managed.
    pub pool: Option<PoolId>,
    /// `resourceRegion`
    pub region: Region,
    /// `resourceOwnerId`
    pub owner: Account,
    /// `resourceId`
    pub resource: ResourceId,
    /// `resourceType`
    pub kind: ResourceKind,
    /// `resourceCidr`
    pub cidr: IpNet,
    /// `resourceTagSet`. `resourceName` is the tag `Name`.
    pub tags: Tags,
    /// `ipUsage`, from 0 to 1: of a VPC, the share of its space in subnets. Of a subnet, the share
    /// of its addresses in use. `None` for IPv6 and for other resources.
    pub usage: Option<f64>,
    /// `complianceStatus`
    pub compliance: ComplianceStatus,
    /// `managementState`
    pub management: ManagementState,
    /// `overlapStatus`
    pub overlap: OverlapStatus,
    /// `vpcId`
    pub vpc: Option<ResourceId>,
    /// `availabilityZoneId`
    pub zone_id: Option<String>,
}

/// What used a CIDR for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRecord {
    /// `resourceOwnerId`
    pub owner: Account,
    /// `resourceRegion`
    pub region: Region,
    /// `resourceType`
    pub kind: ResourceKind,
    /// `resourceId`
    pub resource: ResourceId,
    /// `resourceCidr`
    pub cidr: IpNet,
    /// `resourceName`: the tag `Name`.
    pub name: Option<String>,
    /// `resourceComplianceStatus`
    pub compliance: ComplianceStatus,
    /// `resourceOverlapStatus`
    pub overlap: OverlapStatus,
    /// `vpcId`
    pub vpc: Option<ResourceId>,
    /// `sampledStartTime`
    pub start: SimTime,
    /// `sampledEndTime`; `None` if it is so still.
    pub end: Option<SimTime>,
}

/// A resource discovery.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovery {
    /// `ipamResourceDiscoveryId`
    pub id: DiscoveryId,
    /// `ownerId`
    pub owner: Account,
    /// `ipamResourceDiscoveryRegion`
    pub region: Region,
    /// `operatingRegionSet`
    pub operating_regions: BTreeSet<Region>,
    /// `isDefault`: it belongs to an IPAM and goes with it.
    pub is_default: bool,
    /// `description`
    pub description: Option<String>,
    /// `state`
    pub state: State,
    /// `tagSet`
    pub tags: Tags,
}

/// The association of a discovery with an IPAM.
#[derive(Debug, Clone, PartialEq)]
pub struct Association {
    /// `ipamResourceDiscoveryAssociationId`
    pub id: AssociationId,
    /// `ownerId`: of the IPAM.
    pub owner: Account,
    /// `ipamId`
    pub ipam: IpamId,
    /// `ipamRegion`
    pub region: Region,
    /// `ipamResourceDiscoveryId`
    pub discovery: DiscoveryId,
    /// `isDefault`
    pub is_default: bool,
    /// `tagSet`
    pub tags: Tags,
}

/// An account in which a discovery looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredAccount {
    /// `accountId`
    pub account: Account,
    /// `discoveryRegion`
    pub region: Region,
    /// `lastSuccessfulDiscoveryTime`
    pub sampled_at: SimTime,
}

/// A CIDR that a discovery found.
#[derive(Debug, Clone, PartialEq)]
pub struct DiscoveredResourceCidr {
    /// `ipamResourceDiscoveryId`
    pub discovery: DiscoveryId,
    /// `resourceRegion`
    pub region: Region,
    /// `resourceOwnerId`
    pub owner: Account,
    /// `resourceId`
    pub resource: ResourceId,
    /// `resourceType`
    pub kind: ResourceKind,
    /// `resourceCidr`
    pub cidr: IpNet,
    /// `resourceTagSet`
    pub tags: Tags,
    /// `ipUsage`
    pub usage: Option<f64>,
    /// `vpcId`
    pub vpc: Option<ResourceId>,
    /// `availabilityZoneId`
    pub zone_id: Option<String>,
    /// `sampleTime`
    pub sampled_at: SimTime,
}
