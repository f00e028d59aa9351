//! Resources that an IPAM sees, and their history, on the wire.

use address_plan::request::{
    GetIpamAddressHistory, GetIpamResourceCidrs, ModifyIpamResourceCidr, ResourceKind,
};
use address_plan::response::{HistoryRecord, ResourceCidr};
use ec2_model::ApiError;
use ec2_model::request::{Listing, Tag};
use ec2_model::response::Tags;

use super::{Params, Read, Xml, listing};

impl Read for GetIpamResourceCidrs {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let value = params.text("ResourceTag.Value");
        let key = params.text("ResourceTag.Key");
        if key.is_none() && value.is_some() {
            return Err(params.missing("ResourceTag.Key"));
        }
        Ok(Self {
            ipam_scope_id: params.required_as("IpamScopeId")?,
            ipam_pool_id: params.parsed("IpamPoolId")?,
            resource_id: params.parsed("ResourceId")?,
            resource_type: params.parsed("ResourceType")?,
            resource_tag: key.map(|key| Tag { key, value }),
            resource_owner: params.parsed("ResourceOwner")?,
            listing: listing(params)?,
        })
    }
}

impl Read for ModifyIpamResourceCidr {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let monitored = params.flag("Monitored")?;
        Ok(Self {
            resource_id: params.required_as("ResourceId")?,
            resource_cidr: params.required_address("ResourceCidr")?,
            resource_region: params.required_as("ResourceRegion")?,
            current_ipam_scope_id: params.required_as("CurrentIpamScopeId")?,
            destination_ipam_scope_id: params.parsed("DestinationIpamScopeId")?,
            monitored: monitored.ok_or_else(|| params.missing("Monitored"))?,
        })
    }
}

impl Read for GetIpamAddressHistory {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            cidr: params.required_address("Cidr")?,
            ipam_scope_id: params.required_as("IpamScopeId")?,
            vpc_id: params.parsed("VpcId")?,
            start_time: params.parsed("StartTime")?,
            end_time: params.parsed("EndTime")?,
            listing: Listing {
                filters: Vec::new(),
                max_results: params.number("MaxResults")?,
                next_token: params.text("NextToken"),
            },
        })
    }
}

/// `resourceName` and `resourceTagSet`
fn resource_tags(xml: &mut Xml, tags: &Tags) {
    xml.optional("resourceName", tags.get("Name"));
    resource_tag_set(xml, tags);
}

pub(super) fn resource_tag_set(xml: &mut Xml, tags: &Tags) {
    xml.set("resourceTagSet", tags, |xml, (key, value)| {
        xml.text("key", key);
        xml.text("value", value);
    });
}

pub(super) fn resource_cidr(xml: &mut Xml, found: &ResourceCidr) {
    xml.text("ipamId", &found.ipam);
    xml.text("ipamScopeId", &found.scope);
    xml.optional("ipamPoolId", found.pool.as_ref());
    xml.text("resourceRegion", &found.region);
    xml.text("resourceOwnerId", &found.owner);
    xml.text("resourceId", &found.resource);
    xml.text("resourceCidr", found.cidr);
    xml.text("resourceType", found.kind.as_str());
    resource_tags(xml, &found.tags);
    xml.optional("ipUsage", found.usage);
    xml.text("complianceStatus", found.compliance.as_str());
    xml.text("managementState", found.management.as_str());
    xml.text("overlapStatus", found.overlap.as_str());
    xml.optional("vpcId", found.vpc.as_ref());
    xml.optional("availabilityZoneId", found.zone_id.as_ref());
}

/// Another enumeration than elsewhere: here an ENI has its long name.
const fn history_type(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Eni => "network-interface",
        ResourceKind::Vpc | ResourceKind::Subnet | ResourceKind::Eip => kind.as_str(),
    }
}

pub(super) fn history_record(xml: &mut Xml, record: &HistoryRecord) {
    xml.text("resourceOwnerId", &record.owner);
    xml.text("resourceRegion", &record.region);
    xml.text("resourceType", history_type(record.kind));
    xml.text("resourceId", &record.resource);
    xml.text("resourceCidr", record.cidr);
    xml.optional("resourceName", record.name.as_ref());
    xml.text("resourceComplianceStatus", record.compliance.as_str());
    xml.text("resourceOverlapStatus", record.overlap.as_str());
    xml.optional("vpcId", record.vpc.as_ref());
    xml.text("sampledStartTime", record.start);
    xml.optional("sampledEndTime", record.end);
}
