//! Amazon VPC IPAM on the wire: a reader for each request, and a renderer for each answer.
//!
//! Names are those of the EC2 service model. The address plan decides.

mod discoveries;
mod ipams;
mod pools;
mod resources;

use address_plan::id::{Account, Region};
use address_plan::request::{
    Action, AllocateIpamPoolCidr, AssociateIpamResourceDiscovery, CreateIpam, CreateIpamPool,
    CreateIpamResourceDiscovery, CreateIpamScope, DeleteIpam, DeleteIpamPool,
    DeleteIpamResourceDiscovery, DeleteIpamScope, DeprovisionIpamPoolCidr,
    DescribeIpamPoolAllocations, DescribeIpamPools, DescribeIpamResourceDiscoveries,
    DescribeIpamResourceDiscoveryAssociations, DescribeIpamScopes, DescribeIpams,
    DisableIpamOrganizationAdminAccount, DisassociateIpamResourceDiscovery,
    EnableIpamOrganizationAdminAccount, GetIpamAddressHistory, GetIpamDiscoveredAccounts,
    GetIpamDiscoveredResourceCidrs, GetIpamPoolAllocations, GetIpamPoolCidrs, GetIpamResourceCidrs,
    ModifyIpam, ModifyIpamPool, ModifyIpamPoolAllocation, ModifyIpamResourceCidr,
    ModifyIpamResourceDiscovery, ModifyIpamScope, ProvisionIpamPoolCidr, ReleaseIpamPoolAllocation,
    Request, TagSpecification,
};
use address_plan::response::Response;
use ec2_model::ApiError;
use ec2_model::request::{Action as Ec2Action, PlanRequest, Request as Ec2Request, Tag};

use super::{Params, Read, Xml, dry_run, listing, page, tag_set, tags};

/// Reads the request for `action`, including all its parameters.
pub(super) fn read(action: Action, params: &mut Params) -> Result<Ec2Request, ApiError> {
    let dry_run = dry_run(params)?;
    let request = match action {
        Action::CreateIpam => CreateIpam::read(params)?.into(),
        Action::ModifyIpam => ModifyIpam::read(params)?.into(),
        Action::DeleteIpam => DeleteIpam::read(params)?.into(),
        Action::DescribeIpams => DescribeIpams::read(params)?.into(),
        Action::CreateIpamScope => CreateIpamScope::read(params)?.into(),
        Action::ModifyIpamScope => ModifyIpamScope::read(params)?.into(),
        Action::DeleteIpamScope => DeleteIpamScope::read(params)?.into(),
        Action::DescribeIpamScopes => DescribeIpamScopes::read(params)?.into(),
        Action::CreateIpamPool => CreateIpamPool::read(params)?.into(),
        Action::ModifyIpamPool => ModifyIpamPool::read(params)?.into(),
        Action::DeleteIpamPool => DeleteIpamPool::read(params)?.into(),
        Action::DescribeIpamPools => DescribeIpamPools::read(params)?.into(),
        Action::ProvisionIpamPoolCidr => ProvisionIpamPoolCidr::read(params)?.into(),
        Action::DeprovisionIpamPoolCidr => DeprovisionIpamPoolCidr::read(params)?.into(),
        Action::GetIpamPoolCidrs => GetIpamPoolCidrs::read(params)?.into(),
        Action::AllocateIpamPoolCidr => AllocateIpamPoolCidr::read(params)?.into(),
        Action::ModifyIpamPoolAllocation => ModifyIpamPoolAllocation::read(params)?.into(),
        Action::ReleaseIpamPoolAllocation => ReleaseIpamPoolAllocation::read(params)?.into(),
        Action::GetIpamPoolAllocations => GetIpamPoolAllocations::read(params)?.into(),
        Action::DescribeIpamPoolAllocations => DescribeIpamPoolAllocations::read(params)?.into(),
        Action::GetIpamResourceCidrs => GetIpamResourceCidrs::read(params)?.into(),
        Action::ModifyIpamResourceCidr => ModifyIpamResourceCidr::read(params)?.into(),
        Action::GetIpamAddressHistory => GetIpamAddressHistory::read(params)?.into(),
        Action::CreateIpamResourceDiscovery => CreateIpamResourceDiscovery::read(params)?.into(),
        Action::ModifyIpamResourceDiscovery => ModifyIpamResourceDiscovery::read(params)?.into(),
        Action::DeleteIpamResourceDiscovery => DeleteIpamResourceDiscovery::read(params)?.into(),
        Action::DescribeIpamResourceDiscoveries => {
            DescribeIpamResourceDiscoveries::read(params)?.into()
        }
        Action::AssociateIpamResourceDiscovery => {
            AssociateIpamResourceDiscovery::read(params)?.into()
        }
        Action::DisassociateIpamResourceDiscovery => {
            DisassociateIpamResourceDiscovery::read(params)?.into()
        }
        Action::DescribeIpamResourceDiscoveryAssociations => {
            DescribeIpamResourceDiscoveryAssociations::read(params)?.into()
        }
        Action::GetIpamDiscoveredAccounts => GetIpamDiscoveredAccounts::read(params)?.into(),
        Action::GetIpamDiscoveredResourceCidrs => {
            GetIpamDiscoveredResourceCidrs::read(params)?.into()
        }
        Action::EnableIpamOrganizationAdminAccount => {
            EnableIpamOrganizationAdminAccount::read(params)?.into()
        }
        Action::DisableIpamOrganizationAdminAccount => {
            DisableIpamOrganizationAdminAccount::read(params)?.into()
        }
    };
    params.finish()?;
    let request: Request = request;
    Ok(PlanRequest { request, dry_run }.into())
}

/// Writes the content of the answer's root element, except the request id.
pub(super) fn render(xml: &mut Xml, action: Ec2Action, response: &Response) {
    match response {
        Response::Ipam(ipam) => xml.node("ipam", |xml| ipams::ipam(xml, ipam)),
        Response::Ipams(found) => page(xml, "ipamSet", found, ipams::ipam),
        Response::Scope(scope) => xml.node("ipamScope", |xml| ipams::scope(xml, scope)),
        Response::Scopes(found) => page(xml, "ipamScopeSet", found, ipams::scope),
        Response::Pool(pool) => xml.node("ipamPool", |xml| pools::pool(xml, pool)),
        Response::Pools(found) => page(xml, "ipamPoolSet", found, pools::pool),
        Response::PoolCidr(cidr) => xml.node("ipamPoolCidr", |xml| pools::cidr(xml, cidr)),
        Response::PoolCidrs(found) => page(xml, "ipamPoolCidrSet", found, pools::cidr),
        Response::Allocation(one) => {
            xml.node("ipamPoolAllocation", |xml| pools::allocation(xml, one));
        }
        Response::Preview(cidr) => xml.node("ipamPoolAllocation", |xml| xml.text("cidr", cidr)),
        Response::Success => xml.text("success", true),
        Response::Allocations(found) => {
            page(xml, "ipamPoolAllocationSet", found, pools::allocation);
        }
        Response::ResourceCidr(one) => {
            xml.node("ipamResourceCidr", |xml| resources::resource_cidr(xml, one));
        }
        Response::ResourceCidrs(found) => {
            page(xml, "ipamResourceCidrSet", found, resources::resource_cidr);
        }
        Response::AddressHistory(found) => {
            page(xml, "historyRecordSet", found, resources::history_record);
        }
        Response::Discovery(one) => {
            xml.node("ipamResourceDiscovery", |xml| discoveries::discovery(xml, one));
        }
        Response::Discoveries(found) => {
            page(xml, "ipamResourceDiscoverySet", found, discoveries::discovery);
        }
        Response::Association(one) => xml.node("ipamResourceDiscoveryAssociation", |xml| {
            discoveries::association(xml, one, discoveries::state_after(action));
        }),
        Response::Associations(found) => {
            let state = discoveries::state_after(action);
            page(xml, "ipamResourceDiscoveryAssociationSet", found, |xml, one| {
                discoveries::association(xml, one, state);
            });
        }
        Response::DiscoveredAccounts(found) => {
            page(xml, "ipamDiscoveredAccountSet", found, discoveries::account);
        }
        Response::DiscoveredResourceCidrs(found) => {
            page(xml, "ipamDiscoveredResourceCidrSet", found, discoveries::resource_cidr);
        }
    }
}

fn tag_specifications(params: &mut Params) -> Result<Vec<TagSpecification>, ApiError> {
    params.items("TagSpecification", |specification| {
        Ok(TagSpecification {
            resource_type: specification.required("ResourceType")?,
            tags: tags(specification)?,
        })
    })
}

/// Tags in a list of this name.
fn tags_named(params: &mut Params, name: &str) -> Result<Vec<Tag>, ApiError> {
    params.items(name, |tag| Ok(Tag { key: tag.required("Key")?, value: tag.text("Value") }))
}

/// Regions in a list of this name.
fn regions(params: &mut Params, name: &str) -> Result<Vec<Region>, ApiError> {
    params.items(name, |region| region.required_as("RegionName"))
}

fn region_set<'a>(xml: &mut Xml, regions: impl IntoIterator<Item = &'a Region>) {
    xml.set("operatingRegionSet", regions, |xml, region| xml.text("regionName", region));
}

/// The ARN of an IPAM's object. It names no Region.
fn arn(owner: &Account, kind: &str, id: &str) -> String {
    format!("arn:aws:ec2::{owner}:{kind}/{id}")
}
