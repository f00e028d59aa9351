//! IPAMs and scopes on the wire.

use address_plan::request::{
    CreateIpam, CreateIpamScope, DeleteIpam, DeleteIpamScope, DescribeIpamScopes, DescribeIpams,
    ModifyIpam, ModifyIpamScope,
};
use address_plan::response::{Ipam, Scope};
use ec2_model::ApiError;

use super::{Params, Read, Xml, arn, listing, region_set, regions, tag_set, tag_specifications};

impl Read for CreateIpam {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            description: params.text("Description"),
            operating_regions: regions(params, "OperatingRegion")?,
            tag_specifications: tag_specifications(params)?,
            client_token: params.text("ClientToken"),
            tier: params.parsed("Tier")?,
            enable_private_gua: params.flag("EnablePrivateGua")?.unwrap_or_default(),
            metered_account: params.parsed("MeteredAccount")?,
        })
    }
}

impl Read for ModifyIpam {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_id: params.required_as("IpamId")?,
            description: params.text("Description"),
            add_operating_regions: regions(params, "AddOperatingRegion")?,
            remove_operating_regions: regions(params, "RemoveOperatingRegion")?,
            tier: params.parsed("Tier")?,
            enable_private_gua: params.flag("EnablePrivateGua")?,
            metered_account: params.parsed("MeteredAccount")?,
        })
    }
}

impl Read for DeleteIpam {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_id: params.required_as("IpamId")?,
            cascade: params.flag("Cascade")?.unwrap_or_default(),
        })
    }
}

impl Read for DescribeIpams {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { ipam_ids: params.list("IpamId")?, listing: listing(params)? })
    }
}

impl Read for CreateIpamScope {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_id: params.required_as("IpamId")?,
            description: params.text("Description"),
            tag_specifications: tag_specifications(params)?,
            client_token: params.text("ClientToken"),
        })
    }
}

impl Read for ModifyIpamScope {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            ipam_scope_id: params.required_as("IpamScopeId")?,
            description: params.text("Description"),
        })
    }
}

impl Read for DeleteIpamScope {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { ipam_scope_id: params.required_as("IpamScopeId")? })
    }
}

impl Read for DescribeIpamScopes {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { ipam_scope_ids: params.list("IpamScopeId")?, listing: listing(params)? })
    }
}

pub(super) fn ipam(xml: &mut Xml, ipam: &Ipam) {
    xml.text("ownerId", &ipam.owner);
    xml.text("ipamId", &ipam.id);
    xml.text("ipamArn", arn(&ipam.owner, "ipam", ipam.id.as_str()));
    xml.text("ipamRegion", &ipam.region);
    xml.text("publicDefaultScopeId", &ipam.public_scope);
    xml.text("privateDefaultScopeId", &ipam.private_scope);
    xml.text("scopeCount", ipam.n_scopes);
    xml.optional("description", ipam.description.as_ref());
    region_set(xml, &ipam.operating_regions);
    xml.text("state", ipam.state.as_str());
    tag_set(xml, &ipam.tags);
    xml.text("defaultResourceDiscoveryId", &ipam.default_discovery);
    xml.text("defaultResourceDiscoveryAssociationId", &ipam.default_association);
    xml.text("resourceDiscoveryAssociationCount", ipam.n_associations);
    xml.text("tier", ipam.tier.as_str());
    xml.text("enablePrivateGua", ipam.enable_private_gua);
    xml.text("meteredAccount", ipam.metered_account.as_str());
}

pub(super) fn scope(xml: &mut Xml, scope: &Scope) {
    xml.text("ownerId", &scope.owner);
    xml.text("ipamScopeId", &scope.id);
    xml.text("ipamScopeArn", arn(&scope.owner, "ipam-scope", scope.id.as_str()));
    xml.text("ipamArn", arn(&scope.owner, "ipam", scope.ipam.as_str()));
    xml.text("ipamRegion", &scope.region);
    xml.text("ipamScopeType", scope.scope_type.as_str());
    xml.text("isDefault", scope.is_default);
    xml.optional("description", scope.description.as_ref());
    xml.text("poolCount", scope.n_pools);
    xml.text("state", scope.state.as_str());
    tag_set(xml, &scope.tags);
}
