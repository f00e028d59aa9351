//! Decoded requests: one struct per operation, and one closed enum over them.
//!
//! A struct has exactly the parameters that the model supports. A decoder must refuse all others. A
//! bad single value (an id, a CIDR) fails when it is parsed. The model refuses bad combinations of
//! values. `DryRun` is part of [`crate::Caller`], since every operation has it.

use std::str::FromStr;

use ec2_api::page::Listing;
use ec2_api::tag::Tag;
use ec2_api::{ApiError, SimTime};
use ipnet::IpNet;

use crate::block::Family;
use crate::id::{
    Account, AllocationId, AssociationId, DiscoveryId, IpamId, PoolId, Region, ResourceId, ScopeId,
};
use crate::rules::Lengths;

ec2_api::operations!(
    CreateIpam,
    ModifyIpam,
    DeleteIpam,
    DescribeIpams,
    CreateIpamScope,
    ModifyIpamScope,
    DeleteIpamScope,
    DescribeIpamScopes,
    CreateIpamPool,
    ModifyIpamPool,
    DeleteIpamPool,
    DescribeIpamPools,
    ProvisionIpamPoolCidr,
    DeprovisionIpamPoolCidr,
    GetIpamPoolCidrs,
    AllocateIpamPoolCidr,
    ModifyIpamPoolAllocation,
    ReleaseIpamPoolAllocation,
    GetIpamPoolAllocations,
    DescribeIpamPoolAllocations,
    GetIpamResourceCidrs,
    ModifyIpamResourceCidr,
    GetIpamAddressHistory,
    CreateIpamResourceDiscovery,
    ModifyIpamResourceDiscovery,
    DeleteIpamResourceDiscovery,
    DescribeIpamResourceDiscoveries,
    AssociateIpamResourceDiscovery,
    DisassociateIpamResourceDiscovery,
    DescribeIpamResourceDiscoveryAssociations,
    GetIpamDiscoveredAccounts,
    GetIpamDiscoveredResourceCidrs,
    EnableIpamOrganizationAdminAccount,
    DisableIpamOrganizationAdminAccount,
);

impl Request {
    /// `ClientToken`, for the operations that have one.
    #[must_use]
    pub fn client_token(&self) -> Option<&str> {
        match self {
            Self::CreateIpam(it) => it.client_token.as_deref(),
            Self::CreateIpamScope(it) => it.client_token.as_deref(),
            Self::CreateIpamPool(it) => it.client_token.as_deref(),
            Self::ProvisionIpamPoolCidr(it) => it.client_token.as_deref(),
            Self::AllocateIpamPoolCidr(it) => it.client_token.as_deref(),
            Self::CreateIpamResourceDiscovery(it) => it.client_token.as_deref(),
            Self::AssociateIpamResourceDiscovery(it) => it.client_token.as_deref(),
            Self::ModifyIpam(_)
            | Self::DeleteIpam(_)
            | Self::DescribeIpams(_)
            | Self::ModifyIpamScope(_)
            | Self::DeleteIpamScope(_)
            | Self::DescribeIpamScopes(_)
            | Self::ModifyIpamPool(_)
            | Self::DeleteIpamPool(_)
            | Self::DescribeIpamPools(_)
            | Self::DeprovisionIpamPoolCidr(_)
            | Self::GetIpamPoolCidrs(_)
            | Self::ModifyIpamPoolAllocation(_)
            | Self::ReleaseIpamPoolAllocation(_)
            | Self::GetIpamPoolAllocations(_)
            | Self::DescribeIpamPoolAllocations(_)
            | Self::GetIpamResourceCidrs(_)
            | Self::ModifyIpamResourceCidr(_)
            | Self::GetIpamAddressHistory(_)
            | Self::ModifyIpamResourceDiscovery(_)
            | Self::DeleteIpamResourceDiscovery(_)
            | Self::DescribeIpamResourceDiscoveries(_)
            | Self::DisassociateIpamResourceDiscovery(_)
            | Self::DescribeIpamResourceDiscoveryAssociations(_)
            | Self::GetIpamDiscoveredAccounts(_)
            | Self::GetIpamDiscoveredResourceCidrs(_)
            | Self::EnableIpamOrganizationAdminAccount(_)
            | Self::DisableIpamOrganizationAdminAccount(_) => None,
        }
    }
}

/// Declares an enum whose values have names in the API.
macro_rules! named {
    (
        $(#[$doc:meta])* $name:ident, $parameter:literal,
        { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The API's name of the value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl FromStr for $name {
            type Err = ApiError;

            fn from_str(text: &str) -> Result<Self, ApiError> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(ApiError::invalid_value(text, $parameter, "")),
                }
            }
        }
    };
}
pub(crate) use named;

named!(
    /// `Tier`
    Tier, "tier", {
        /// One account, one Region, no private IPv4 pools.
        Free = "free",
        /// Everything, billed by active address.
        Advanced = "advanced",
    }
);
named!(
    /// `MeteredAccount`: who pays for active addresses.
    MeteredAccount, "meteredAccount", {
        /// The owner of the IPAM.
        IpamOwner = "ipam-owner",
        /// The owner of each resource.
        ResourceOwner = "resource-owner",
    }
);
named!(
    /// `AwsService`, for pools in the public scope.
    AwsService, "awsService", {
        /// Elastic IP addresses and VPCs.
        Ec2 = "ec2",
        /// Anycast addresses.
        GlobalServices = "global-services",
    }
);
named!(
    /// `PublicIpSource`, for pools in the public scope.
    PublicIpSource, "publicIpSource", {
        /// Amazon provides the addresses.
        Amazon = "amazon",
        /// The customer brings the addresses.
        Byoip = "byoip",
    }
);
named!(
    /// `ResourceType` of a resource that a discovery finds. The model has no public IPv4 pools, IPv6
    /// pools and anycast lists.
    ResourceKind, "resourceType", {
        /// A VPC.
        Vpc = "vpc",
        /// A subnet.
        Subnet = "subnet",
        /// An Elastic IP address.
        Eip = "eip",
        /// A network interface.
        Eni = "eni",
    }
);

/// `TagSpecification.N`: tags of what the call creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSpecification {
    /// `ResourceType`: `ipam`, `ipam-scope`, …
    pub resource_type: String,
    /// `Tag.N`
    pub tags: Vec<Tag>,
}

/// Creates an IPAM with two scopes and a resource discovery.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateIpam {
    /// `Description`
    pub description: Option<String>,
    /// `OperatingRegion.N.RegionName`. The home Region belongs to it whether named or not.
    pub operating_regions: Vec<Region>,
    /// `TagSpecification.N`, for `ipam`
    pub tag_specifications: Vec<TagSpecification>,
    /// `ClientToken`
    pub client_token: Option<String>,
    /// `Tier`; advanced if absent.
    pub tier: Option<Tier>,
    /// `EnablePrivateGua`: own public IPv6 ranges may be used in private scopes.
    pub enable_private_gua: bool,
    /// `MeteredAccount`; the owner if absent.
    pub metered_account: Option<MeteredAccount>,
}

/// Changes an IPAM. What is absent stays.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifyIpam {
    /// `IpamId`
    pub ipam_id: IpamId,
    /// `Description`
    pub description: Option<String>,
    /// `AddOperatingRegion.N.RegionName`
    pub add_operating_regions: Vec<Region>,
    /// `RemoveOperatingRegion.N.RegionName`
    pub remove_operating_regions: Vec<Region>,
    /// `Tier`
    pub tier: Option<Tier>,
    /// `EnablePrivateGua`
    pub enable_private_gua: Option<bool>,
    /// `MeteredAccount`
    pub metered_account: Option<MeteredAccount>,
}

/// Deletes an IPAM.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteIpam {
    /// `IpamId`
    pub ipam_id: IpamId,
    /// `Cascade`: deletes private scopes and pools too.
    pub cascade: bool,
}

/// Lists IPAMs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeIpams {
    /// `IpamId.N`
    pub ipam_ids: Vec<IpamId>,
    /// Filters and paging.
    pub listing: Listing,
}

/// Creates a private scope.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateIpamScope {
    /// `IpamId`
    pub ipam_id: IpamId,
    /// `Description`
    pub description: Option<String>,
    /// `TagSpecification.N`, for `ipam-scope`
    pub tag_specifications: Vec<TagSpecification>,
    /// `ClientToken`
    pub client_token: Option<String>,
}

/// Changes the description of a scope.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifyIpamScope {
    /// `IpamScopeId`
    pub ipam_scope_id: ScopeId,
    /// `Description`
    pub description: Option<String>,
}

/// Deletes a scope.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteIpamScope {
    /// `IpamScopeId`
    pub ipam_scope_id: ScopeId,
}

/// Lists scopes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeIpamScopes {
    /// `IpamScopeId.N`
    pub ipam_scope_ids: Vec<ScopeId>,
    /// Filters and paging.
    pub listing: Listing,
}

/// `SourceResource`: the VPC whose space a resource planning pool divides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceResource {
    /// `ResourceId`. The only `ResourceType` is `vpc`.
    pub resource_id: ResourceId,
    /// `ResourceRegion`
    pub resource_region: Region,
    /// `ResourceOwner`
    pub resource_owner: Account,
}

/// Creates a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateIpamPool {
    /// `IpamScopeId`
    pub ipam_scope_id: ScopeId,
    /// `AddressFamily`
    pub address_family: Family,
    /// `Locale`. The text `None` counts as absent.
    pub locale: Option<Region>,
    /// `SourceIpamPoolId`
    pub source_ipam_pool_id: Option<PoolId>,
    /// `SourceResource`
    pub source_resource: Option<SourceResource>,
    /// `Description`
    pub description: Option<String>,
    /// `AutoImport`
    pub auto_import: bool,
    /// `PubliclyAdvertisable`
    pub publicly_advertisable: Option<bool>,
    /// `AllocationMinNetmaskLength` and its siblings
    pub lengths: Lengths<i32>,
    /// `AllocationResourceTag.N`
    pub allocation_resource_tags: Vec<Tag>,
    /// `AwsService`
    pub aws_service: Option<AwsService>,
    /// `PublicIpSource`
    pub public_ip_source: Option<PublicIpSource>,
    /// `TagSpecification.N`, for `ipam-pool`
    pub tag_specifications: Vec<TagSpecification>,
    /// `ClientToken`
    pub client_token: Option<String>,
}

impl CreateIpamPool {
    /// A request with the required parameters only.
    #[must_use]
    pub fn new(ipam_scope_id: ScopeId, address_family: Family) -> Self {
        Self {
            ipam_scope_id,
            address_family,
            locale: None,
            source_ipam_pool_id: None,
            source_resource: None,
            description: None,
            auto_import: false,
            publicly_advertisable: None,
            lengths: Lengths::default(),
            allocation_resource_tags: Vec::new(),
            aws_service: None,
            public_ip_source: None,
            tag_specifications: Vec::new(),
            client_token: None,
        }
    }
}

/// Changes a pool. What is absent stays. There is no locale, family or source to change.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifyIpamPool {
    /// `IpamPoolId`
    pub ipam_pool_id: PoolId,
    /// `Description`
    pub description: Option<String>,
    /// `AutoImport`
    pub auto_import: Option<bool>,
    /// `AllocationMinNetmaskLength` and its siblings
    pub lengths: Lengths<i32>,
    /// `ClearAllocationDefaultNetmaskLength`
    pub clear_default_netmask_length: bool,
    /// `AddAllocationResourceTag.N`
    pub add_allocation_resource_tags: Vec<Tag>,
    /// `RemoveAllocationResourceTag.N`
    pub remove_allocation_resource_tags: Vec<Tag>,
}

impl ModifyIpamPool {
    /// A request that changes nothing, which the API refuses.
    #[must_use]
    pub fn new(ipam_pool_id: PoolId) -> Self {
        Self {
            ipam_pool_id,
            description: None,
            auto_import: None,
            lengths: Lengths::default(),
            clear_default_netmask_length: false,
            add_allocation_resource_tags: Vec::new(),
            remove_allocation_resource_tags: Vec::new(),
        }
    }
}

/// Deletes a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteIpamPool {
    /// `IpamPoolId`
    pub ipam_pool_id: PoolId,
    /// `Cascade`: deletes its CIDRs, allocations and pools too.
    pub cascade: bool,
}

/// Lists pools.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeIpamPools {
    /// `IpamPoolId.N`
    pub ipam_pool_ids: Vec<PoolId>,
    /// Filters and paging.
    pub listing: Listing,
}

/// Puts a CIDR into a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct ProvisionIpamPoolCidr {
    /// `IpamPoolId`
    pub ipam_pool_id: PoolId,
    /// `Cidr`
    pub cidr: Option<IpNet>,
    /// `NetmaskLength`: out of the source pool.
    pub netmask_length: Option<i32>,
    /// Whether `CidrAuthorizationContext` is there, which proves the ownership of a public range.
    pub authorized: bool,
    /// `ClientToken`
    pub client_token: Option<String>,
}

/// Takes a CIDR out of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct DeprovisionIpamPoolCidr {
    /// `IpamPoolId`
    pub ipam_pool_id: PoolId,
    /// `Cidr`
    pub cidr: Option<IpNet>,
}

/// Lists the CIDRs of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct GetIpamPoolCidrs {
    /// `IpamPoolId`
    pub ipam_pool_id: PoolId,
    /// Filters and paging.
    pub listing: Listing,
}

/// Allocates a range of a pool by hand.
#[derive(Debug, Clone, PartialEq)]
pub struct AllocateIpamPoolCidr {
    /// `IpamPoolId`
    pub ipam_pool_id: PoolId,
    /// `Cidr`
    pub cidr: Option<IpNet>,
    /// `NetmaskLength`
    pub netmask_length: Option<i32>,
    /// `Description`
    pub description: Option<String>,
    /// `PreviewNextCidr`: says what would come next, and takes nothing.
    pub preview_next_cidr: bool,
    /// `AllowedCidr.N`
    pub allowed_cidrs: Vec<IpNet>,
    /// `DisallowedCidr.N`
    pub disallowed_cidrs: Vec<IpNet>,
    /// `TagSpecification.N`, for `ipam-pool-allocation`
    pub tag_specifications: Vec<TagSpecification>,
    /// `ClientToken`
    pub client_token: Option<String>,
}

impl AllocateIpamPoolCidr {
    /// A request for a range of the pool's default length.
    #[must_use]
    pub fn new(ipam_pool_id: PoolId) -> Self {
        Self {
            ipam_pool_id,
            cidr: None,
            netmask_length: None,
            description: None,
            preview_next_cidr: false,
            allowed_cidrs: Vec::new(),
            disallowed_cidrs: Vec::new(),
            tag_specifications: Vec::new(),
            client_token: None,
        }
    }
}

/// Changes the description of an allocation.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifyIpamPoolAllocation {
    /// `IpamPoolAllocationId`
    pub ipam_pool_allocation_id: AllocationId,
    /// `Description`
    pub description: Option<String>,
}

/// Releases an allocation made by hand. All three parameters must agree.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseIpamPoolAllocation {
    /// `IpamPoolId`
    pub ipam_pool_id: PoolId,
    /// `Cidr`
    pub cidr: IpNet,
    /// `IpamPoolAllocationId`
    pub ipam_pool_allocation_id: AllocationId,
}

/// Lists the allocations of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct GetIpamPoolAllocations {
    /// `IpamPoolId`
    pub ipam_pool_id: PoolId,
    /// `IpamPoolAllocationId`
    pub ipam_pool_allocation_id: Option<AllocationId>,
    /// Filters and paging. A page has 1,000 to 100,000 items.
    pub listing: Listing,
}

/// Lists the allocations that the caller owns, of all pools.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeIpamPoolAllocations {
    /// `IpamPoolAllocationId.N`
    pub ipam_pool_allocation_ids: Vec<AllocationId>,
    /// Filters and paging. A page has 1,000 to 100,000 items.
    pub listing: Listing,
}

/// Lists the CIDRs of resources in a scope, with their statuses.
#[derive(Debug, Clone, PartialEq)]
pub struct GetIpamResourceCidrs {
    /// `IpamScopeId`
    pub ipam_scope_id: ScopeId,
    /// `IpamPoolId`
    pub ipam_pool_id: Option<PoolId>,
    /// `ResourceId`
    pub resource_id: Option<ResourceId>,
    /// `ResourceType`
    pub resource_type: Option<ResourceKind>,
    /// `ResourceTag`
    pub resource_tag: Option<Tag>,
    /// `ResourceOwner`
    pub resource_owner: Option<Account>,
    /// Filters and paging.
    pub listing: Listing,
}

impl GetIpamResourceCidrs {
    /// Everything in a scope.
    #[must_use]
    pub fn new(ipam_scope_id: ScopeId) -> Self {
        Self {
            ipam_scope_id,
            ipam_pool_id: None,
            resource_id: None,
            resource_type: None,
            resource_tag: None,
            resource_owner: None,
            listing: Listing::default(),
        }
    }
}

/// Moves a resource's CIDR to another scope, or starts or stops its monitoring.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifyIpamResourceCidr {
    /// `ResourceId`
    pub resource_id: ResourceId,
    /// `ResourceCidr`
    pub resource_cidr: IpNet,
    /// `ResourceRegion`
    pub resource_region: Region,
    /// `CurrentIpamScopeId`
    pub current_ipam_scope_id: ScopeId,
    /// `DestinationIpamScopeId`
    pub destination_ipam_scope_id: Option<ScopeId>,
    /// `Monitored`
    pub monitored: bool,
}

/// What used a CIDR, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct GetIpamAddressHistory {
    /// `Cidr`: compared exactly.
    pub cidr: IpNet,
    /// `IpamScopeId`
    pub ipam_scope_id: ScopeId,
    /// `VpcId`
    pub vpc_id: Option<ResourceId>,
    /// `StartTime`
    pub start_time: Option<SimTime>,
    /// `EndTime`
    pub end_time: Option<SimTime>,
    /// Paging. There are no filters.
    pub listing: Listing,
}

/// Creates a resource discovery that another account's IPAM may use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateIpamResourceDiscovery {
    /// `Description`
    pub description: Option<String>,
    /// `OperatingRegion.N.RegionName`
    pub operating_regions: Vec<Region>,
    /// `TagSpecification.N`, for `ipam-resource-discovery`
    pub tag_specifications: Vec<TagSpecification>,
    /// `ClientToken`
    pub client_token: Option<String>,
}

/// Changes a resource discovery.
#[derive(Debug, Clone, PartialEq)]
pub struct ModifyIpamResourceDiscovery {
    /// `IpamResourceDiscoveryId`
    pub ipam_resource_discovery_id: DiscoveryId,
    /// `Description`
    pub description: Option<String>,
    /// `AddOperatingRegion.N.RegionName`
    pub add_operating_regions: Vec<Region>,
    /// `RemoveOperatingRegion.N.RegionName`
    pub remove_operating_regions: Vec<Region>,
}

/// Deletes a resource discovery.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteIpamResourceDiscovery {
    /// `IpamResourceDiscoveryId`
    pub ipam_resource_discovery_id: DiscoveryId,
}

/// Lists resource discoveries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeIpamResourceDiscoveries {
    /// `IpamResourceDiscoveryId.N`
    pub ipam_resource_discovery_ids: Vec<DiscoveryId>,
    /// Filters and paging.
    pub listing: Listing,
}

/// Makes an IPAM see what a resource discovery finds.
#[derive(Debug, Clone, PartialEq)]
pub struct AssociateIpamResourceDiscovery {
    /// `IpamId`
    pub ipam_id: IpamId,
    /// `IpamResourceDiscoveryId`
    pub ipam_resource_discovery_id: DiscoveryId,
    /// `TagSpecification.N`, for `ipam-resource-discovery-association`
    pub tag_specifications: Vec<TagSpecification>,
    /// `ClientToken`
    pub client_token: Option<String>,
}

/// Ends an association.
#[derive(Debug, Clone, PartialEq)]
pub struct DisassociateIpamResourceDiscovery {
    /// `IpamResourceDiscoveryAssociationId`
    pub ipam_resource_discovery_association_id: AssociationId,
}

/// Lists associations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DescribeIpamResourceDiscoveryAssociations {
    /// `IpamResourceDiscoveryAssociationId.N`
    pub ipam_resource_discovery_association_ids: Vec<AssociationId>,
    /// Filters and paging.
    pub listing: Listing,
}

/// The accounts in which a discovery looks, and when it last did.
#[derive(Debug, Clone, PartialEq)]
pub struct GetIpamDiscoveredAccounts {
    /// `IpamResourceDiscoveryId`
    pub ipam_resource_discovery_id: DiscoveryId,
    /// `DiscoveryRegion`
    pub discovery_region: Region,
    /// Filters and paging.
    pub listing: Listing,
}

/// The CIDRs of resources that a discovery found in a Region.
#[derive(Debug, Clone, PartialEq)]
pub struct GetIpamDiscoveredResourceCidrs {
    /// `IpamResourceDiscoveryId`
    pub ipam_resource_discovery_id: DiscoveryId,
    /// `ResourceRegion`
    pub resource_region: Region,
    /// Filters and paging.
    pub listing: Listing,
}

/// Lets an account's IPAM see all accounts of the organisation. The management account calls it.
#[derive(Debug, Clone, PartialEq)]
pub struct EnableIpamOrganizationAdminAccount {
    /// `DelegatedAdminAccountId`
    pub delegated_admin_account_id: Account,
}

/// Takes that back.
#[derive(Debug, Clone, PartialEq)]
pub struct DisableIpamOrganizationAdminAccount {
    /// `DelegatedAdminAccountId`
    pub delegated_admin_account_id: Account,
}
