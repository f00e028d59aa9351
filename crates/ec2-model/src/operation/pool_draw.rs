//! Blocks for VPCs and subnets: those that a request names, and those that a pool of Amazon VPC
//! IPAM gives.

use address_plan::block::Family;
use address_plan::id::{AllocationId, PoolId};
use address_plan::response::Holder;
use address_plan::{AddressPlan, Wanted};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::ApiError;
use crate::id::{SubnetId, VpcId};
use crate::model::{Caller, Model};
use crate::request::{AssociateVpcCidrBlock, CreateSubnet, CreateVpc, FromPool};
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

/// The blocks of a new VPC: IPv4, and IPv6 if the request has it.
pub(super) fn vpc_blocks(
    draw: &mut PoolDraw<'_>,
    request: &CreateVpc,
    amazon: Option<Ipv6Net>,
) -> Result<Vec<Block>, ApiError> {
    let ipv4 = draw.block(request.cidr_block.map(IpNet::V4), &request.ipv4_pool, Family::Ipv4)?;
    let ipv4 = ipv4.ok_or_else(|| ApiError::missing_parameter("cidrBlock"))?;
    let ipv6 = ipv6_block(draw, request.ipv6_cidr_block, &request.ipv6_pool, amazon)?;
    Ok([Some(ipv4), ipv6].into_iter().flatten().collect())
}

/// The one block that AssociateVpcCidrBlock adds.
pub(super) fn added_block(
    draw: &mut PoolDraw<'_>,
    request: &AssociateVpcCidrBlock,
    amazon: Option<Ipv6Net>,
) -> Result<Block, ApiError> {
    let ipv4 = draw.block(request.cidr_block.map(IpNet::V4), &request.ipv4_pool, Family::Ipv4)?;
    let ipv6 = ipv6_block(draw, request.ipv6_cidr_block, &request.ipv6_pool, amazon)?;
    match (ipv4, ipv6) {
        (Some(block), None) | (None, Some(block)) => Ok(block),
        (None, None) => Err(ApiError::missing_parameter("cidrBlock")),
        (Some(_), Some(_)) => {
            let text = "Only one of cidrBlock and amazonProvidedIpv6CidrBlock can be specified.";
            Err(ApiError::parameter_combination(text))
        }
    }
}

/// The IPv6 block of a VPC. It comes from Amazon or from a pool.
fn ipv6_block(
    draw: &mut PoolDraw<'_>,
    named: Option<Ipv6Net>,
    pool: &FromPool,
    amazon: Option<Ipv6Net>,
) -> Result<Option<Block>, ApiError> {
    if pool.pool.is_none() && named.is_some() {
        return Err(ApiError::parameter_combination(
            "The request must contain Ipv6IpamPoolId if it contains Ipv6CidrBlock.",
        ));
    }
    match (draw.block(named.map(IpNet::V6), pool, Family::Ipv6)?, amazon) {
        (Some(_), Some(_)) => Err(ApiError::parameter_combination(
            "Only one of amazonProvidedIpv6CidrBlock and ipv6IpamPoolId can be specified.",
        )),
        (Some(block), None) => Ok(Some(block)),
        (None, amazon) => Ok(amazon.map(|cidr| Block::named(cidr.into()))),
    }
}

/// An IPv6-only subnet has no IPv4 block, every other subnet has one.
pub(super) fn check_families(request: &CreateSubnet) -> Result<(), ApiError> {
    let has_ipv4 = request.cidr_block.is_some() || request.ipv4_pool != FromPool::default();
    match (has_ipv4, request.ipv6_native) {
        (true, false) | (false, true) => Ok(()),
        (false, false) => Err(ApiError::missing_parameter("cidrBlock")),
        (true, true) => Err(ApiError::parameter_combination(
            "An IPv4 CIDR block cannot be specified for an IPv6-only subnet.",
        )),
    }
}

/// The IPv4 and the IPv6 block of a new subnet.
pub(super) fn subnet_blocks(
    draw: &mut PoolDraw<'_>,
    request: &CreateSubnet,
) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>), ApiError> {
    let ipv4 = draw.block(request.cidr_block.map(IpNet::V4), &request.ipv4_pool, Family::Ipv4)?;
    let ipv6 =
        draw.block(request.ipv6_cidr_block.map(IpNet::V6), &request.ipv6_pool, Family::Ipv6)?;
    let ipv4 = ipv4.and_then(|block| match block.cidr {
        IpNet::V4(cidr) => Some(cidr),
        IpNet::V6(_) => None,
    });
    let ipv6 = ipv6.and_then(|block| match block.cidr {
        IpNet::V6(cidr) => Some(cidr),
        IpNet::V4(_) => None,
    });
    Ok((ipv4, ipv6))
}
