//! Pools, their CIDRs and their allocations on the wire.

use address_plan::request::{
    AllocateIpamPoolCidr, CreateIpamPool, DeleteIpamPool, DeprovisionIpamPoolCidr,
    DescribeIpamPoolAllocations, DescribeIpamPools, GetIpamPoolAllocations, GetIpamPoolCidrs,
    ModifyIpamPool, ModifyIpamPoolAllocation, ProvisionIpamPoolCidr, ReleaseIpamPoolAllocation,
    SourceResource,
};
use address_plan::response::{Allocation, Pool, PoolCidr, PoolCidrState, ScopeType};
use address_plan::rules::Lengths;
use ec2_model::ApiError;

use super::{Params, Read, Xml, arn, listing, tag_set, tag_specifications, tags_named};

impl Read for CreateIpamPool {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        // Clients send the text `None` for a pool without a locale, as the API shows it.
        let locale = params.text("Locale").filter(|locale| locale != "None");
        Ok(Self {
            ipam_scope_id: params.required_as("IpamScopeId")?,
            address_family: params.required_as("AddressFamily")?,
            locale: locale.map(|locale| locale.parse()).transpose()?,
            source_ipam_pool_id: params.parsed("SourceIpamPoolId")?,
            source_resource: source_resource(params)?,
            description: params.text("Description"),
            auto_import: params.flag("AutoImport")?.unwrap_or_default(),
            publicly_advertisable: params.flag("PubliclyAdvertisable")?,
            lengths: lengths(params)?,
            allocation_resource_tags: tags_named(params, "AllocationResourceTag")?,
            aws_service: params.parsed("AwsService")?,
            public_ip_source: params.parsed("PublicIpSource")?,
            tag_specifications: tag_specifications(params)?,
            client_token: params.text("ClientToken"),
        })
    }
}

fn source_resource(params: &mut Params) -> Result<Option<SourceResource>, ApiError> {
    let kind = params.text("SourceResource.ResourceType");
    if let Some(other) = kind.as_deref().filter(|kind| *kind != "vpc") {
        let why = "It must be vpc.";
        return Err(ApiError::invalid_value(other, "SourceResource.ResourceType", why));
    }
    let id = params.parsed("SourceResource.ResourceId")?;
    let region = params.parsed("SourceResource.ResourceRegion")?;
    let owner = params.parsed("SourceResource.ResourceOwner")?;
    match (id, region, owner, kind) {
        (None, None, None, None) => Ok(None),
        (Some(resource_id), Some(resource_region), Some(resource_owner), Some(_)) => {
            Ok(Some(SourceResource { resource_id, resource_region, resource_owner }))
        }
        (id, region, owner, _) => Err(params.missing(match (id, region, owner) {
            (None, _, _) => "SourceResource.ResourceId",
            (_, None, _) => "SourceResource.ResourceRegion",
            (_, _, None) => "SourceResource.ResourceOwner",
            (Some(_), Some(_), Some(_)) => "SourceResource.ResourceType",
        })),
    }
}

fn lengths(params: &mut Params) -> Result<Lengths<i32>, ApiError> {
    Ok(Lengths {
        min: params.number("AllocationMinNetmaskLength")?,
        max: params.number("AllocationMaxNetmaskLength")?,
        default: params.number("AllocationDefaultNetmaskLength")?,
    })
}

impl Read for ModifyIpamPool {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let clear = params.flag("ClearAllocationDefaultNetmaskLength")?;
        Ok(Self {
            ipam_pool_id: params.required_as("IpamPoolId")?,
            description: params.text("Description"),
            auto_import: params.flag("AutoImport")?,
            lengths: lengths(params)?,
            clear_default_netmask_length: clear.unwrap_or_default(),
            add_allocation_resource_tags: tags_named(params, "AddAllocationResourceTag")?,
            remove_allocation_resource_tags: tags_named(params, "RemoveAllocationResourceTag")?,
        })
    }
}

impl Read for DeleteIpamPool {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_pool_id: params.required_as("IpamPoolId")?,
            cascade: params.flag("Cascade")?.unwrap_or_default(),
        })
    }
}

impl Read for DescribeIpamPools {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { ipam_pool_ids: params.list("IpamPoolId")?, listing: listing(params)? })
    }
}

impl Read for ProvisionIpamPoolCidr {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let message = params.text("CidrAuthorizationContext.Message");
        let signature = params.text("CidrAuthorizationContext.Signature");
        Ok(Self {
            ipam_pool_id: params.required_as("IpamPoolId")?,
            cidr: params.address("Cidr")?,
            netmask_length: params.number("NetmaskLength")?,
            authorized: message.is_some() && signature.is_some(),
            client_token: params.text("ClientToken"),
        })
    }
}

impl Read for DeprovisionIpamPoolCidr {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { ipam_pool_id: params.required_as("IpamPoolId")?, cidr: params.address("Cidr")? })
    }
}

impl Read for GetIpamPoolCidrs {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { ipam_pool_id: params.required_as("IpamPoolId")?, listing: listing(params)? })
    }
}

impl Read for AllocateIpamPoolCidr {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_pool_id: params.required_as("IpamPoolId")?,
            cidr: params.address("Cidr")?,
            netmask_length: params.number("NetmaskLength")?,
            description: params.text("Description"),
            preview_next_cidr: params.flag("PreviewNextCidr")?.unwrap_or_default(),
            allowed_cidrs: params.addresses("AllowedCidr")?,
            disallowed_cidrs: params.addresses("DisallowedCidr")?,
            tag_specifications: tag_specifications(params)?,
            client_token: params.text("ClientToken"),
        })
    }
}

impl Read for ModifyIpamPoolAllocation {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_pool_allocation_id: params.required_as("IpamPoolAllocationId")?,
            description: params.text("Description"),
        })
    }
}

impl Read for ReleaseIpamPoolAllocation {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_pool_id: params.required_as("IpamPoolId")?,
            cidr: params.required_address("Cidr")?,
            ipam_pool_allocation_id: params.required_as("IpamPoolAllocationId")?,
        })
    }
}

impl Read for GetIpamPoolAllocations {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_pool_id: params.required_as("IpamPoolId")?,
            ipam_pool_allocation_id: params.parsed("IpamPoolAllocationId")?,
            listing: listing(params)?,
        })
    }
}

impl Read for DescribeIpamPoolAllocations {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_pool_allocation_ids: params.list("IpamPoolAllocationId")?,
            listing: listing(params)?,
        })
    }
}

pub(super) fn pool(xml: &mut Xml, pool: &Pool) {
    xml.text("ownerId", &pool.owner);
    xml.text("ipamPoolId", &pool.id);
    xml.optional("sourceIpamPoolId", pool.source.pool());
    xml.text("ipamPoolArn", arn(&pool.owner, "ipam-pool", pool.id.as_str()));
    xml.text("ipamScopeArn", arn(&pool.owner, "ipam-scope", pool.scope.as_str()));
    let scope_type = if pool.public.is_some() { ScopeType::Public } else { ScopeType::Private };
    xml.text("ipamScopeType", scope_type.as_str());
    xml.text("ipamArn", arn(&pool.owner, "ipam", pool.ipam.as_str()));
    xml.text("ipamRegion", &pool.region);
    xml.text("locale", pool.locale.as_ref().map_or("None", |locale| locale.as_str()));
    xml.text("poolDepth", pool.depth);
    xml.text("state", pool.state.as_str());
    xml.optional("description", pool.description.as_ref());
    xml.text("autoImport", pool.auto_import);
    xml.text("addressFamily", pool.family.as_str());
    let Lengths { min, max, default } = pool.rules.lengths();
    xml.optional("allocationMinNetmaskLength", min);
    xml.optional("allocationMaxNetmaskLength", max);
    xml.optional("allocationDefaultNetmaskLength", default);
    xml.set("allocationResourceTagSet", pool.rules.tags(), |xml, (key, value)| {
        xml.text("key", key);
        xml.text("value", value);
    });
    if let Some(public) = pool.public {
        xml.optional("publiclyAdvertisable", public.publicly_advertisable);
        xml.optional("awsService", public.aws_service.map(|service| service.as_str()));
        xml.text("publicIpSource", public.public_ip_source.as_str());
    }
    if let Some(resource) = pool.source.resource() {
        xml.node("sourceResource", |xml| {
            xml.text("resourceId", &resource.resource_id);
            xml.text("resourceType", "vpc");
            xml.text("resourceRegion", &resource.resource_region);
            xml.text("resourceOwner", &resource.resource_owner);
        });
    }
    tag_set(xml, &pool.tags);
}

pub(super) fn cidr(xml: &mut Xml, cidr: &PoolCidr) {
    xml.optional("cidr", cidr.cidr);
    xml.text("state", cidr.state.as_str());
    match &cidr.state {
        PoolCidrState::FailedProvision(code, message) => xml.node("failureReason", |xml| {
            xml.text("code", code.as_str());
            xml.text("message", message);
        }),
        PoolCidrState::FailedDeprovision(message) => {
            xml.node("failureReason", |xml| xml.text("message", message));
        }
        PoolCidrState::PendingProvision
        | PoolCidrState::Provisioned
        | PoolCidrState::PendingDeprovision => {}
    }
    xml.text("ipamPoolCidrId", &cidr.id);
    xml.optional("netmaskLength", cidr.netmask_length);
}

pub(super) fn allocation(xml: &mut Xml, allocation: &Allocation) {
    xml.text("cidr", allocation.cidr);
    xml.text("ipamPoolAllocationId", &allocation.id);
    xml.optional("description", allocation.description.as_ref());
    xml.optional("resourceId", allocation.holder.id());
    xml.text("resourceType", allocation.holder.kind());
    xml.text("resourceRegion", &allocation.region);
    xml.text("resourceOwner", &allocation.owner);
    tag_set(xml, &allocation.tags);
}
