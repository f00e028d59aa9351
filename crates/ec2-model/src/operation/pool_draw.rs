//! Blocks for VPCs and subnets: those that a request names, and those that a pool of Amazon VPC
//! IPAM gives.

use address_plan::block::Family;
use address_plan::id::{AllocationId, PoolId};
use address_plan::response::Holder;
use address_plan::{AddressPlan, Wanted};
use ipnet::IpNet;

use crate::error::ApiError;
use crate::id::{SubnetId, VpcId};
use crate::model::{Caller, Model};
use crate::request::FromPool;
use crate::response::Tags;

/// A block without host bits, and the pool that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) cidr: IpNet,
    pub(super) pool: Option<PoolId>,
}

impl Block {
    /// A block that no pool gave.
    pub(super) fn named(cidr: IpNet) -> Self {
        Self { cidr: cidr.trunc(), pool: None }
    }
}

/// What gets the blocks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner<'a> {
    Vpc(&'a VpcId),
    Subnet(&'a SubnetId),
}

/// The blocks that one call takes out of pools. They are the call's until it has succeeded or
/// failed: [`PoolDraw::settle`].
#[derive(Debug)]
pub(super) struct PoolDraw<'a> {
    plan: &'a mut AddressPlan,
    /// An error if the plan cannot know the caller. Only a call that names a pool shows it.
    caller: Result<address_plan::Caller, ApiError>,
    owner: Owner<'a>,
    tags: &'a Tags,
    taken: Vec<(PoolId, AllocationId)>,
}

impl<'a> PoolDraw<'a> {
    pub(super) fn new(
        plan: &'a mut AddressPlan,
        model: &Model,
        caller: Caller<'_>,
        owner: Owner<'a>,
        tags: &'a Tags,
    ) -> Self {
        let caller = model.plan_caller(caller);
        Self { plan, caller, owner, tags, taken: Vec::new() }
    }

    /// The block of a family that the request names, or that its pool gives. `None` if it requests none.
    pub(super) fn block(
        &mut self,
        named: Option<IpNet>,
        from: &FromPool,
        family: Family,
    ) -> Result<Option<Block>, ApiError> {
        let named = named.map(|cidr| cidr.trunc());
        let Some(pool) = &from.pool else {
            return match from.netmask_length {
                None => Ok(named.map(Block::named)),
                Some(_) => Err(ApiError::parameter_combination(
                    "The request can only contain a netmask length if it contains an IPAM pool.",
                )),
            };
        };
        let wanted =
            Wanted { cidr: named, netmask_length: from.netmask_length, ..Wanted::default() };
        let caller = self.caller.clone()?;
        let holder = self.holder()?;
        let given = self.plan.allocate_for(&caller, pool, &wanted, holder, self.tags)?;
        self.taken.push((pool.clone(), given.id));
        if Family::of(given.cidr) != family {
            let text = format!("The address family of {pool} is not {}.", family.as_str());
            return Err(ApiError::parameter_combination(text));
        }
        Ok(Some(Block { cidr: given.cidr, pool: Some(pool.clone()) }))
    }

    fn holder(&self) -> Result<Holder, ApiError> {
        match self.owner {
            Owner::Vpc(id) => id.as_str().parse().map(Holder::Vpc),
            Owner::Subnet(id) => id.as_str().parse().map(Holder::Subnet),
        }
    }

    /// The result of the call. If the call has failed, its blocks go back to their pools.
    pub(super) fn settle<T>(self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        if result.is_err() {
            for (pool, allocation) in &self.taken {
                let given_back = self.plan.abandon(pool, allocation);
                debug_assert!(given_back, "{allocation:?} was taken by this call");
            }
        }
        result
    }
}
