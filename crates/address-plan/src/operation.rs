//! The operations: what each call checks and changes, one file per kind of object.
//!
//! Each operation checks in one order: the named objects exist, the parameters fit together, states
//! allow the change, rules of the pool, limits, room. An operation that returns an error has
//! changed nothing.

mod allocation;
mod describe;
mod discovery;
mod ipam;
mod pool;
mod pool_cidr;
mod resource;
mod scope;
mod transition;

pub use allocation::Wanted;

use ec2_api::ApiError;
use ec2_api::tag::{Tag, Tags, put_tags};

use crate::plan::{AddressPlan, Caller};
use crate::request::{Request, TagSpecification};
use crate::response::{Response, State};

impl AddressPlan {
    /// Executes a request.
    pub(crate) fn operate(
        &mut self,
        caller: &Caller,
        request: &Request,
    ) -> Result<Response, ApiError> {
        match request {
            Request::CreateIpam(r) => self.create_ipam(caller, r),
            Request::ModifyIpam(r) => self.modify_ipam(caller, r),
            Request::DeleteIpam(r) => self.delete_ipam(caller, r),
            Request::DescribeIpams(r) => self.describe_ipams(caller, r),
            Request::CreateIpamScope(r) => self.create_scope(caller, r),
            Request::ModifyIpamScope(r) => self.modify_scope(caller, r),
            Request::DeleteIpamScope(r) => self.delete_scope(caller, r),
            Request::DescribeIpamScopes(r) => self.describe_scopes(caller, r),
            Request::CreateIpamPool(r) => self.create_pool(caller, r),
            Request::ModifyIpamPool(r) => self.modify_pool(caller, r),
            Request::DeleteIpamPool(r) => self.delete_pool(caller, r),
            Request::DescribeIpamPools(r) => self.describe_pools(caller, r),
            Request::ProvisionIpamPoolCidr(r) => self.provision(caller, r),
            Request::DeprovisionIpamPoolCidr(r) => self.deprovision(caller, r),
            Request::GetIpamPoolCidrs(r) => self.get_pool_cidrs(caller, r),
            Request::AllocateIpamPoolCidr(r) => self.allocate(caller, r),
            Request::ModifyIpamPoolAllocation(r) => self.modify_allocation(caller, r),
            Request::ReleaseIpamPoolAllocation(r) => self.release(caller, r),
            Request::GetIpamPoolAllocations(r) => self.get_allocations(caller, r),
            Request::DescribeIpamPoolAllocations(r) => self.describe_allocations(caller, r),
            Request::GetIpamResourceCidrs(r) => self.get_resource_cidrs(caller, r),
            Request::ModifyIpamResourceCidr(r) => self.modify_resource_cidr(caller, r),
            Request::GetIpamAddressHistory(r) => self.get_address_history(caller, r),
            Request::CreateIpamResourceDiscovery(r) => self.create_discovery(caller, r),
            Request::ModifyIpamResourceDiscovery(r) => self.modify_discovery(caller, r),
            Request::DeleteIpamResourceDiscovery(r) => self.delete_discovery(caller, r),
            Request::DescribeIpamResourceDiscoveries(r) => self.describe_discoveries(caller, r),
            Request::AssociateIpamResourceDiscovery(r) => self.associate_discovery(caller, r),
            Request::DisassociateIpamResourceDiscovery(r) => self.disassociate_discovery(caller, r),
            Request::DescribeIpamResourceDiscoveryAssociations(r) => {
                self.describe_associations(caller, r)
            }
            Request::GetIpamDiscoveredAccounts(r) => self.get_discovered_accounts(caller, r),
            Request::GetIpamDiscoveredResourceCidrs(r) => {
                self.get_discovered_resource_cidrs(caller, r)
            }
            Request::EnableIpamOrganizationAdminAccount(r) => self.enable_administrator(caller, r),
            Request::DisableIpamOrganizationAdminAccount(r) => {
                self.disable_administrator(caller, r)
            }
        }
    }
}

/// The tags of a request that creates one kind of object.
fn tags_for(specifications: &[TagSpecification], kind: &str) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for TagSpecification { resource_type, tags: more } in specifications {
        if resource_type != kind {
            let why = "not a valid taggable resource type for this operation.";
            return Err(ApiError::parameter_value(format!("'{resource_type}' is {why}")));
        }
        put_tags(&mut tags, more)?;
    }
    Ok(tags)
}

/// The tags that a pool demands of resources.
fn demanded_tags(tags: &[Tag]) -> Result<Tags, ApiError> {
    let mut demanded = Tags::new();
    put_tags(&mut demanded, tags)?;
    Ok(demanded)
}

/// Refuses a change of an object that is still being changed.
fn check_settled(state: State, id: &str) -> Result<(), ApiError> {
    match state.is_in_progress() {
        false => Ok(()),
        true => {
            let text = format!(
                "The specified action is not valid for {id}. Its state is {}.",
                state.as_str()
            );
            Err(ApiError::new("IncorrectState", text))
        }
    }
}

/// The form of the error is quoted in
/// <https://github.com/hashicorp/terraform-provider-aws/pull/22328>.
fn in_use(id: &str, why: &str) -> ApiError {
    let text = format!("The specified action is not valid for {id}. {why}");
    ApiError::new("DependencyViolation", text)
}

/// The form of the error is quoted in <https://github.com/rebuy-de/aws-nuke/issues/834>.
fn limit_exceeded(things: &str, n: usize, most: usize) -> ApiError {
    let text = format!(
        "You've reached the limit for {things}. You have created {n} {things} and you are limited \
         to {most}."
    );
    ApiError::new("ResourceLimitExceeded", text)
}

/// Quoted for a pool in <https://github.com/aws-ia/terraform-aws-ipam/issues/65>.
fn nothing_to_modify(kind: &str) -> ApiError {
    ApiError::parameter_combination(format!(
        "The request must contain a modification to the {kind}"
    ))
}
