//! Allocations: by hand, for resources, their change and their end.

use ec2_api::tag::Tags;
use ec2_api::{ApiError, SimTime};
use ipnet::IpNet;

use crate::block::{Block, Family};
use crate::id::{AllocationId, PoolId};
use crate::operation::pool_cidr::check_cidr;
use crate::operation::{nothing_to_modify, tags_for};
use crate::plan::{AddressPlan, Caller, Due};
use crate::pool::PoolRecord;
use crate::request::{AllocateIpamPoolCidr, ModifyIpamPoolAllocation, ReleaseIpamPoolAllocation};
use crate::response::{Allocation, Holder, Pool, Response, State};
use crate::rules::netmask;
use crate::space::TakeError;
use crate::store::no_such_allocation;

/// A range as a request names it: a CIDR, a length, or the pool's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Exactly this range.
    pub cidr: Option<IpNet>,
    /// Any range of this netmask length.
    pub netmask_length: Option<i32>,
    /// Only ranges in one of these, if there are any.
    pub allowed: Vec<IpNet>,
    /// Only ranges outside all of these.
    pub disallowed: Vec<IpNet>,
}

impl AddressPlan {
    pub(super) fn allocate(
        &mut self,
        caller: &Caller,
        request: &AllocateIpamPoolCidr,
    ) -> Result<Response, ApiError> {
        let record = self.store.pool(caller, &request.ipam_pool_id)?;
        let tags = tags_for(&request.tag_specifications, "ipam-pool-allocation")?;
        let wanted = Wanted {
            cidr: request.cidr,
            netmask_length: request.netmask_length,
            allowed: request.allowed_cidrs.clone(),
            disallowed: request.disallowed_cidrs.clone(),
        };
        let cidr = choose(caller, record, &wanted)?;
        if request.preview_next_cidr {
            return Ok(Response::Preview(cidr));
        }
        let (pool, description) = (record.pool.id.clone(), request.description.clone());
        let allocation =
            self.make_allocation(caller, &pool, cidr, Holder::Custom, description, tags)?;
        self.maybe_hide(allocation.id.as_str(), caller.now);
        Ok(Response::Allocation(allocation))
    }

    /// Takes a range for a VPC, subnet or Elastic IP address that is being created, with its tags.
    /// It is taken at once. If the creation fails, [`AddressPlan::abandon`] gives it back.
    ///
    /// # Errors
    /// Those of AllocateIpamPoolCidr, `InvalidParameterValue` if the resource lacks tags that the
    /// pool demands, `InvalidParameterCombination` if the pool is for other resources, and
    /// `UnsupportedOperation` if the IPAM does not see the caller's resources.
    pub fn allocate_for(
        &mut self,
        caller: &Caller,
        pool: &PoolId,
        wanted: &Wanted,
        holder: Holder,
        tags: &Tags,
    ) -> Result<Allocation, ApiError> {
        self.advance(caller.now);
        let record = self.store.pool(caller, pool)?;
        check_holder(&record.pool, &holder)?;
        self.check_monitored(caller, &record.pool)?;
        if !record.pool.rules.allow_tags(tags) {
            // Quoted in https://github.com/awslabs/landing-zone-accelerator-on-aws/issues/917.
            return Err(ApiError::parameter_value(
                "The resource is missing one or more of the resource tags required by the IPAM \
                 pool.",
            ));
        }
        let cidr = choose(caller, record, wanted)?;
        self.make_allocation(caller, pool, cidr, holder, None, Tags::new())
    }

    /// An IPAM gives ranges to resources that it will see.
    fn check_monitored(&self, caller: &Caller, pool: &Pool) -> Result<(), ApiError> {
        let place = (caller.account.clone(), caller.region.clone());
        let ipam = &self.store.ipams[&pool.ipam];
        if self.store.places_seen_by(ipam).contains(&place) {
            return Ok(());
        }
        // Quoted in Terraform's AWS provider, internal/service/ec2/vpc_.go.
        let text = format!(
            "The operation AllocateIpamPoolCidr is not supported. Account {} is not monitored by \
             IPAM {}.",
            caller.account, ipam.id
        );
        Err(ApiError::new("UnsupportedOperation", text))
    }

    /// Gives back the range of a resource whose creation failed. It is free at once, since nothing
    /// ever used it. False if there is no such allocation.
    pub fn abandon(&mut self, pool: &PoolId, allocation: &AllocationId) -> bool {
        let record = self.store.pools.get_mut(pool);
        record.is_some_and(|record| record.release(allocation, None).is_some())
    }

    pub(super) fn make_allocation(
        &mut self,
        caller: &Caller,
        pool: &PoolId,
        cidr: IpNet,
        holder: Holder,
        description: Option<String>,
        tags: Tags,
    ) -> Result<Allocation, ApiError> {
        let allocation = Allocation {
            id: AllocationId::from_number(self.next_long_id()),
            cidr,
            holder,
            region: caller.region.clone(),
            owner: caller.account.clone(),
            description,
            tags,
            made_at: caller.now,
        };
        let record = self.store.pool_mut(pool);
        record.allocate(allocation.clone()).map_err(|error| not_free(cidr, error, pool))?;
        Ok(allocation)
    }

    pub(super) fn modify_allocation(
        &mut self,
        caller: &Caller,
        request: &ModifyIpamPoolAllocation,
    ) -> Result<Response, ApiError> {
        let id = &request.ipam_pool_allocation_id;
        let pool = self.store.allocation(caller, id)?.pool.id.clone();
        let Some(description) = &request.description else {
            return Err(nothing_to_modify("ipam pool allocation"));
        };
        let allocation = self.store.pool_mut(&pool).allocation_mut(id).expect("it was found");
        allocation.description = Some(description.clone());
        Ok(Response::Allocation(allocation.clone()))
    }

    pub(super) fn release(
        &mut self,
        caller: &Caller,
        request: &ReleaseIpamPoolAllocation,
    ) -> Result<Response, ApiError> {
        let id = &request.ipam_pool_allocation_id;
        let pool = self.store.pool(caller, &request.ipam_pool_id)?.pool.id.clone();
        let record = self.store.allocation(caller, id)?;
        let allocation = record.allocation(id).expect("it was found");
        if record.pool.id != pool {
            return Err(no_such_allocation(id));
        }
        if allocation.cidr != request.cidr {
            let why = format!("The CIDR of {id} is {}.", allocation.cidr);
            return Err(ApiError::invalid_value(&request.cidr.to_string(), "cidr", &why));
        }
        if allocation.holder != Holder::Custom {
            let text = format!(
                "The allocation {id} belongs to a {}. Only manual allocations can be released.",
                allocation.holder.kind()
            );
            return Err(ApiError::new("OperationNotPermitted", text));
        }
        check_locale(caller, &record.pool)?;
        self.end_allocation(&pool, &id.clone(), caller.now);
        Ok(Response::Success)
    }

    /// Ends an allocation. Its range rests.
    pub(super) fn end_allocation(&mut self, pool: &PoolId, id: &AllocationId, now: SimTime) {
        let ipam = self.store.pools[pool].pool.ipam.clone();
        let rest = self.rest(&ipam);
        let until = Some(now + rest).filter(|until| *until > now);
        let released = self.store.pool_mut(pool).release(id, until);
        if let Some((block, until)) = released.zip(until) {
            self.schedule.schedule(until, Due::RestOver(pool.clone(), block));
        }
    }
}

/// The range that an allocation gets.
fn choose(caller: &Caller, record: &PoolRecord, wanted: &Wanted) -> Result<IpNet, ApiError> {
    let Pool { id, family, rules, state, .. } = &record.pool;
    if wanted.cidr.is_some() && wanted.netmask_length.is_some() {
        return Err(ApiError::parameter_combination(
            "The request cannot contain both CIDR and Netmask Length. Exactly one of them should be \
             provided.",
        ));
    }
    let restricted = !wanted.allowed.is_empty() || !wanted.disallowed.is_empty();
    if restricted && wanted.netmask_length.is_none() {
        return Err(ApiError::parameter_combination(
            "The request can only contain AllowedCidrs or DisallowedCidrs with Netmask Length.",
        ));
    }
    for cidr in wanted.allowed.iter().chain(&wanted.disallowed).chain(&wanted.cidr) {
        check_cidr(*cidr, *family)?;
    }
    let named =
        wanted.netmask_length.map(|len| netmask(len, *family, "netmaskLength")).transpose()?;
    let len =
        wanted.cidr.map(|cidr| cidr.prefix_len()).or(named).or_else(|| rules.lengths().default);
    // Quoted in https://github.com/terraform-aws-modules/terraform-aws-vpc/issues/1135.
    let len = len.ok_or_else(|| {
        ApiError::parameter_combination(
            "The request cannot contain empty CIDR and Netmask Length for a pool with no default \
             allocation netmask length set. Exactly one of them should be provided.",
        )
    })?;
    check_locale(caller, &record.pool)?;
    if matches!(state, State::CreateInProgress | State::DeleteInProgress) {
        let text = format!("The state of {id} is {}.", state.as_str());
        return Err(ApiError::new("IncorrectState", text));
    }
    if !rules.allow_length(len) {
        let why = format!("The pool {id} does not allow it.");
        return Err(ApiError::invalid_value(&len.to_string(), "netmaskLength", &why));
    }
    match wanted.cidr {
        Some(cidr) => check_free(record, cidr).map_err(|error| not_free(cidr, error, id)),
        None => lowest_free(record, len, wanted, *family).ok_or_else(too_big),
    }
}

fn lowest_free(record: &PoolRecord, len: u8, wanted: &Wanted, family: Family) -> Option<IpNet> {
    let blocks = |cidrs: &[IpNet]| cidrs.iter().copied().map(Block::from).collect::<Vec<_>>();
    let allowed = Some(blocks(&wanted.allowed)).filter(|it| !it.is_empty());
    let disallowed = blocks(&wanted.disallowed);
    let found = record.space().lowest_free(len, allowed.as_deref(), &disallowed);
    found.map(|block| block.to_net(family))
}

fn check_free(record: &PoolRecord, cidr: IpNet) -> Result<IpNet, TakeError> {
    let block = Block::from(cidr);
    if let Some((held, _)) = record.space().held_in(block).next() {
        return Err(TakeError::Held(held));
    }
    match record.space().range_around(block) {
        Some(_) => Ok(cidr),
        None => Err(TakeError::Outside),
    }
}

/// Allocations are made in the Region of the pool's locale. A pool without locale serves pools only.
fn check_locale(caller: &Caller, pool: &Pool) -> Result<(), ApiError> {
    let why = match &pool.locale {
        Some(locale) if *locale == caller.region => return Ok(()),
        Some(locale) => format!("The locale of the pool {} is {locale}.", pool.id),
        None => format!("The pool {} has no locale, so only pools can draw from it.", pool.id),
    };
    Err(ApiError::parameter_value(why))
}

/// A resource planning pool is for subnets of its VPC, any other pool for VPCs and addresses.
fn check_holder(pool: &Pool, holder: &Holder) -> Result<(), ApiError> {
    let for_subnets = pool.source.resource().is_some();
    match (holder, for_subnets) {
        (Holder::Subnet(_), true) | (Holder::Vpc(_) | Holder::Eip(_) | Holder::Custom, false) => {
            Ok(())
        }
        // Quoted in https://github.com/awslabs/landing-zone-accelerator-on-aws/issues/320.
        (Holder::Subnet(_), false) => {
            let text = format!("IpamPool '{}' is missing a source resource", pool.id);
            Err(ApiError::parameter_combination(text))
        }
        (Holder::Vpc(_) | Holder::Eip(_) | Holder::Custom | Holder::Pool(_), _) => {
            let text = format!("IpamPool '{}' serves subnets of its source resource", pool.id);
            Err(ApiError::parameter_combination(text))
        }
    }
}

/// Quoted in <https://github.com/hashicorp/terraform-provider-aws/issues/39046>.
fn too_big() -> ApiError {
    ApiError::parameter_value("The allocation size is too big for the pool.")
}

fn not_free(cidr: IpNet, error: TakeError, pool: &PoolId) -> ApiError {
    let why = match error {
        TakeError::Outside => format!("It is in no CIDR provisioned to {pool}."),
        TakeError::Held(held) => {
            let held = held.to_net(Family::of(cidr));
            format!("It overlaps {held}, which is allocated or was released lately.")
        }
    };
    ApiError::invalid_value(&cidr.to_string(), "cidr", &why)
}
