//! Resource discoveries, what they find, and the organisation's administrator, on the wire.

use address_plan::request::{
    Action, AssociateIpamResourceDiscovery, CreateIpamResourceDiscovery,
    DeleteIpamResourceDiscovery, DescribeIpamResourceDiscoveries,
    DescribeIpamResourceDiscoveryAssociations, DisableIpamOrganizationAdminAccount,
    DisassociateIpamResourceDiscovery, EnableIpamOrganizationAdminAccount,
    GetIpamDiscoveredAccounts, GetIpamDiscoveredResourceCidrs, ModifyIpamResourceDiscovery,
};
use address_plan::response::{Association, DiscoveredAccount, DiscoveredResourceCidr, Discovery};
use ec2_model::ApiError;

use super::resources::resource_tag_set;
use super::{
    Ec2Action, Params, Read, Xml, arn, listing, region_set, regions, tag_set, tag_specifications,
};

impl Read for CreateIpamResourceDiscovery {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            description: params.text("Description"),
            operating_regions: regions(params, "OperatingRegion")?,
            tag_specifications: tag_specifications(params)?,
            client_token: params.text("ClientToken"),
        })
    }
}

impl Read for ModifyIpamResourceDiscovery {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_resource_discovery_id: params.required_as("IpamResourceDiscoveryId")?,
            description: params.text("Description"),
            add_operating_regions: regions(params, "AddOperatingRegion")?,
            remove_operating_regions: regions(params, "RemoveOperatingRegion")?,
        })
    }
}

impl Read for DeleteIpamResourceDiscovery {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let ipam_resource_discovery_id = params.required_as("IpamResourceDiscoveryId")?;
        Ok(Self { ipam_resource_discovery_id })
    }
}

impl Read for DescribeIpamResourceDiscoveries {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let ipam_resource_discovery_ids = params.list("IpamResourceDiscoveryId")?;
        Ok(Self { ipam_resource_discovery_ids, listing: listing(params)? })
    }
}

impl Read for AssociateIpamResourceDiscovery {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_id: params.required_as("IpamId")?,
            ipam_resource_discovery_id: params.required_as("IpamResourceDiscoveryId")?,
            tag_specifications: tag_specifications(params)?,
            client_token: params.text("ClientToken"),
        })
    }
}

impl Read for DisassociateIpamResourceDiscovery {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let id = params.required_as("IpamResourceDiscoveryAssociationId")?;
        Ok(Self { ipam_resource_discovery_association_id: id })
    }
}

impl Read for DescribeIpamResourceDiscoveryAssociations {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let ids = params.list("IpamResourceDiscoveryAssociationId")?;
        Ok(Self { ipam_resource_discovery_association_ids: ids, listing: listing(params)? })
    }
}

impl Read for GetIpamDiscoveredAccounts {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_resource_discovery_id: params.required_as("IpamResourceDiscoveryId")?,
            discovery_region: params.required_as("DiscoveryRegion")?,
            listing: listing(params)?,
        })
    }
}

impl Read for GetIpamDiscoveredResourceCidrs {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_resource_discovery_id: params.required_as("IpamResourceDiscoveryId")?,
            resource_region: params.required_as("ResourceRegion")?,
            listing: listing(params)?,
        })
    }
}

impl Read for EnableIpamOrganizationAdminAccount {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let delegated_admin_account_id = params.required_as("DelegatedAdminAccountId")?;
        Ok(Self { delegated_admin_account_id })
    }
}

impl Read for DisableIpamOrganizationAdminAccount {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let delegated_admin_account_id = params.required_as("DelegatedAdminAccountId")?;
        Ok(Self { delegated_admin_account_id })
    }
}

pub(super) fn discovery(xml: &mut Xml, discovery: &Discovery) {
    let kind = "ipam-resource-discovery";
    xml.text("ownerId", &discovery.owner);
    xml.text("ipamResourceDiscoveryId", &discovery.id);
    xml.text("ipamResourceDiscoveryArn", arn(&discovery.owner, kind, discovery.id.as_str()));
    xml.text("ipamResourceDiscoveryRegion", &discovery.region);
    xml.optional("description", discovery.description.as_ref());
    region_set(xml, &discovery.operating_regions);
    xml.text("isDefault", discovery.is_default);
    xml.text("state", discovery.state.as_str());
    tag_set(xml, &discovery.tags);
}

/// `state` of an association in the answer to a call. Only DisassociateIpamResourceDiscovery answers
/// with an association that is on its way out.
pub(super) fn state_after(action: Ec2Action) -> &'static str {
    match action == Ec2Action::Plan(Action::DisassociateIpamResourceDiscovery) {
        true => "disassociate-in-progress",
        false => "associate-complete",
    }
}

pub(super) fn association(xml: &mut Xml, association: &Association, state: &str) {
    let kind = "ipam-resource-discovery-association";
    let own_arn = arn(&association.owner, kind, association.id.as_str());
    xml.text("ownerId", &association.owner);
    xml.text("ipamResourceDiscoveryAssociationId", &association.id);
    xml.text("ipamResourceDiscoveryAssociationArn", own_arn);
    xml.text("ipamResourceDiscoveryId", &association.discovery);
    xml.text("ipamId", &association.ipam);
    xml.text("ipamArn", arn(&association.owner, "ipam", association.ipam.as_str()));
    xml.text("ipamRegion", &association.region);
    xml.text("isDefault", association.is_default);
    xml.text("resourceDiscoveryStatus", "active");
    xml.text("state", state);
    tag_set(xml, &association.tags);
}

pub(super) fn account(xml: &mut Xml, found: &DiscoveredAccount) {
    xml.text("accountId", &found.account);
    xml.text("discoveryRegion", &found.region);
    xml.text("lastAttemptedDiscoveryTime", found.sampled_at);
    xml.text("lastSuccessfulDiscoveryTime", found.sampled_at);
}

pub(super) fn resource_cidr(xml: &mut Xml, found: &DiscoveredResourceCidr) {
    xml.text("ipamResourceDiscoveryId", &found.discovery);
    xml.text("resourceRegion", &found.region);
    xml.text("resourceId", &found.resource);
    xml.text("resourceOwnerId", &found.owner);
    xml.text("resourceCidr", found.cidr);
    xml.text("resourceType", found.kind.as_str());
    resource_tag_set(xml, &found.tags);
    xml.optional("ipUsage", found.usage);
    xml.optional("vpcId", found.vpc.as_ref());
    xml.text("sampleTime", found.sampled_at);
    xml.optional("availabilityZoneId", found.zone_id.as_ref());
}
