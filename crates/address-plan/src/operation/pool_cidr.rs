//! CIDRs of pools: out of the source, into the pool, and back.
//!
//! A call says yes or no to its parameters at once. Whether the range can be had is decided at once
//! too, but the API says so later, in the state of the CIDR. What is decided is taken: two calls
//! never get one range.

use ec2_api::tag::Tags;
use ec2_api::{ApiError, SimTime};
use ipnet::IpNet;

use crate::block::{Block, Family};
use crate::id::{AllocationId, PoolCidrId, PoolId};
use crate::operation::check_settled;
use crate::operation::pool::lies_in_resource;
use crate::plan::{AddressPlan, Caller, Due};
use crate::pool::{Outcome, PoolRecord};
use crate::request::{DeprovisionIpamPoolCidr, ProvisionIpamPoolCidr, PublicIpSource};
use crate::response::{Allocation, FailureCode, Holder, PoolCidr, PoolCidrState, Response, Source};
use crate::rules::netmask;

/// How many random ranges of Amazon's are tried before there is none left.
const N_TRIES: usize = 64;

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Cidr(IpNet),
    Length(u8),
}

impl AddressPlan {
    pub(super) fn provision(
        &mut self,
        caller: &Caller,
        request: &ProvisionIpamPoolCidr,
    ) -> Result<Response, ApiError> {
        let record = self.store.own_pool(caller, &request.ipam_pool_id)?;
        let asked = asked(record, request)?;
        check_authorization(record, request)?;
        check_settled(record.pool.state, record.pool.id.as_str())?;
        let pool = record.pool.id.clone();
        let (cidr, outcome) = match (self.obtain(caller, &pool, asked), asked) {
            (Ok(cidr), _) => (Some(cidr), Outcome::Provisioned),
            (Err((code, text)), Asked::Cidr(cidr)) => {
                (Some(cidr), Outcome::ProvisionFailed(code, text))
            }
            (Err((code, text)), Asked::Length(_)) => (None, Outcome::ProvisionFailed(code, text)),
        };
        let id = PoolCidrId::from_number(self.next_long_id());
        let netmask_length = match asked {
            Asked::Cidr(_) => None,
            Asked::Length(len) => Some(len),
        };
        let state = PoolCidrState::PendingProvision;
        let pool_cidr = PoolCidr { id: id.clone(), cidr, netmask_length, state };
        let record = self.store.pool_mut(&pool);
        record.cidrs.insert(id.clone(), pool_cidr.clone());
        record.outcomes.insert(id.clone(), outcome);
        self.finish_after(caller.now, self.config.transitions.provision, Due::PoolCidr(pool, id));
        Ok(Response::PoolCidr(pool_cidr))
    }

    /// Takes the range out of the pool's source.
    fn obtain(
        &mut self,
        caller: &Caller,
        id: &PoolId,
        asked: Asked,
    ) -> Result<IpNet, (FailureCode, String)> {
        let record = &self.store.pools[id];
        let most = self.config.quotas.cidrs_per_pool;
        if record.claimed().count() >= most {
            let text = format!("The pool has reached its limit of {most} CIDRs.");
            return Err((FailureCode::LimitExceeded, text));
        }
        match record.pool.source.clone() {
            Source::Plan => self.obtain_from_plan(id, asked),
            Source::Pool(parent) => {
                let block = match asked {
                    Asked::Cidr(cidr) => Some(Block::from(cidr)),
                    Asked::Length(len) => {
                        self.store.pools[&parent].space().lowest_free(len, None, &[])
                    }
                };
                let block = block.ok_or_else(|| not_available(asked))?;
                self.allocate_to_pool(caller, id, &parent, block).map_err(|()| not_available(asked))
            }
            Source::Resource { pool, resource } => {
                let Asked::Cidr(cidr) = asked else { return Err(not_available(asked)) };
                let range = Block::from(cidr);
                let inside = lies_in_resource(&self.store.pools[&pool], &resource, range);
                match inside && !self.store.is_claimed_beside(&self.store.pools[id], range) {
                    true => Ok(cidr),
                    false => Err(not_available(asked)),
                }
            }
        }
    }

    /// A range that somebody names must be free beside all other top-level pools of its scope. One
    /// that Amazon gives must be free everywhere.
    fn obtain_from_plan(
        &mut self,
        id: &PoolId,
        asked: Asked,
    ) -> Result<IpNet, (FailureCode, String)> {
        match asked {
            Asked::Cidr(cidr) => {
                let range = Block::from(cidr);
                match self.store.is_claimed_beside(&self.store.pools[id], range) {
                    true => Err(not_available(asked)),
                    false => Ok(cidr),
                }
            }
            Asked::Length(len) => {
                let mut tries = (0..N_TRIES).map(|_| self.amazon_range(len)).collect::<Vec<_>>();
                let pools = self.store.pools.values().filter(|it| is_amazons(it));
                let given: Vec<Block> =
                    pools.flat_map(PoolRecord::claimed).map(Block::from).collect();
                tries.retain(|cidr| !given.iter().any(|it| it.overlaps(Block::from(*cidr))));
                tries.first().copied().ok_or_else(|| not_available(asked))
            }
        }
    }

    /// A range as Amazon provides it, from the ranges that real accounts in us-east-1 show.
    fn amazon_range(&mut self, len: u8) -> IpNet {
        let (start, bits) = match len {
            ..=32 => (Block::new(0x0304 << 112, 16), 96),
            _ => (Block::new(0x2600_1f13 << 96, 32), 0),
        };
        let family = if bits == 96 { Family::Ipv4 } else { Family::Ipv6 };
        let host = self.next_long_id() & (start.last() ^ start.first());
        Block::new(start.first() | host, len).to_net(family)
    }

    /// Makes the range of a child an allocation of its parent.
    fn allocate_to_pool(
        &mut self,
        caller: &Caller,
        child: &PoolId,
        parent: &PoolId,
        block: Block,
    ) -> Result<IpNet, ()> {
        let id = AllocationId::from_number(self.next_long_id());
        let record = self.store.pool_mut(parent);
        let cidr = block.to_net(record.pool.family);
        let allocation = Allocation {
            id,
            cidr,
            holder: Holder::Pool(child.clone()),
            region: record.pool.region.clone(),
            owner: record.pool.owner.clone(),
            description: None,
            tags: Tags::new(),
            made_at: caller.now,
        };
        record.allocate(allocation).map(|()| cidr).map_err(|_| ())
    }

    pub(super) fn deprovision(
        &mut self,
        caller: &Caller,
        request: &DeprovisionIpamPoolCidr,
    ) -> Result<Response, ApiError> {
        let record = self.store.own_pool(caller, &request.ipam_pool_id)?;
        let cidr = request.cidr.ok_or_else(|| ApiError::missing_parameter("Cidr"))?;
        check_settled(record.pool.state, record.pool.id.as_str())?;
        // A failed attempt may stand beside the CIDR itself, which comes first.
        let mut found: Vec<&PoolCidr> =
            record.cidrs.values().filter(|it| it.cidr == Some(cidr)).collect();
        found.sort_by_key(|it| matches!(it.state, PoolCidrState::FailedProvision(..)));
        let Some(found) = found.first().copied() else {
            let why = format!("It is not provisioned to {}.", record.pool.id);
            return Err(ApiError::invalid_value(&cidr.to_string(), "cidr", &why));
        };
        let usable = match found.state {
            PoolCidrState::PendingProvision | PoolCidrState::PendingDeprovision => {
                let text = format!("The state of the CIDR {cidr} is {}.", found.state.as_str());
                return Err(ApiError::new("IncorrectState", text));
            }
            PoolCidrState::Provisioned | PoolCidrState::FailedDeprovision(_) => true,
            PoolCidrState::FailedProvision(..) => false,
        };
        let (pool, id) = (record.pool.id.clone(), found.id.clone());
        let record = self.store.pool_mut(&pool);
        let outcome = match usable {
            false => Outcome::Forgotten,
            true if record.deprovision(Block::from(cidr)) => Outcome::Deprovisioned,
            // Quoted in https://github.com/hashicorp/terraform-provider-aws/issues/30165.
            true => {
                let text = "The CIDR has one or more allocations.";
                Outcome::DeprovisionFailed(text.to_owned())
            }
        };
        record.outcomes.insert(id.clone(), outcome);
        let pool_cidr = record.cidrs.get_mut(&id).expect("it was found before");
        pool_cidr.state = PoolCidrState::PendingDeprovision;
        let shown = pool_cidr.clone();
        self.finish_after(caller.now, self.config.transitions.deprovision, Due::PoolCidr(pool, id));
        Ok(Response::PoolCidr(shown))
    }

    /// Returns a CIDR of a pool to the pool above.
    pub(super) fn give_back(&mut self, id: &PoolId, cidr: IpNet, now: SimTime) {
        let Source::Pool(parent) = self.store.pools[id].pool.source.clone() else { return };
        let holder = Holder::Pool(id.clone());
        let Some(record) = self.store.pools.get(&parent) else { return };
        if let Some(allocation) = record.allocation_of(&holder, cidr).map(|it| it.id.clone()) {
            self.end_allocation(&parent, &allocation, now);
        }
    }
}

/// What the request asks for, if it may.
fn asked(record: &PoolRecord, request: &ProvisionIpamPoolCidr) -> Result<Asked, ApiError> {
    let family = record.pool.family;
    match (request.cidr, request.netmask_length) {
        (Some(_), Some(_)) => Err(ApiError::parameter_combination(
            "The request can only contain one of Cidr and NetmaskLength.",
        )),
        (None, None) => Err(ApiError::parameter_combination(
            "The request must contain one of Cidr and NetmaskLength.",
        )),
        (Some(cidr), None) => {
            check_cidr(cidr, family)?;
            match is_amazons(record) {
                true => Err(ApiError::parameter_combination(
                    "The request cannot contain Cidr if PublicIpSource of the pool is amazon.",
                )),
                false => Ok(Asked::Cidr(cidr)),
            }
        }
        (None, Some(len)) => {
            let len = netmask(len, family, "netmaskLength")?;
            let has_source = matches!(record.pool.source, Source::Pool(_));
            let suits = match family {
                Family::Ipv4 => (24..=31).contains(&len),
                Family::Ipv6 => (40..=60).contains(&len),
            };
            match (has_source, is_amazons(record)) {
                (true, _) => Ok(Asked::Length(len)),
                (false, true) if suits => Ok(Asked::Length(len)),
                (false, true) => {
                    let why = "Amazon provides no range of this length.";
                    Err(ApiError::invalid_value(&len.to_string(), "netmaskLength", why))
                }
                (false, false) => Err(ApiError::parameter_combination(
                    "The request can only contain NetmaskLength if the pool has a source pool.",
                )),
            }
        }
    }
}

/// Whether Amazon gives the pool its CIDRs: a top-level pool of the public scope.
fn is_amazons(record: &PoolRecord) -> bool {
    let amazon = |it: crate::response::PublicPool| it.public_ip_source == PublicIpSource::Amazon;
    record.pool.source == Source::Plan && record.pool.public.is_some_and(amazon)
}

/// A public range that the customer brings needs a proof that it is the customer's.
fn check_authorization(
    record: &PoolRecord,
    request: &ProvisionIpamPoolCidr,
) -> Result<(), ApiError> {
    let is_brought =
        record.pool.public.is_some() && record.pool.source == Source::Plan && !is_amazons(record);
    match (is_brought, request.authorized) {
        (true, false) => Err(ApiError::parameter_combination(
            "The request must contain a CIDR Authorization Context for a CIDR of a public pool.",
        )),
        (false, true) => Err(ApiError::parameter_combination(
            "The request can only contain a CIDR Authorization Context for a top-level public pool.",
        )),
        (true, true) | (false, false) => Ok(()),
    }
}

/// A CIDR must have the pool's family and no host bits.
pub(super) fn check_cidr(cidr: IpNet, family: Family) -> Result<(), ApiError> {
    let why = match () {
        () if Family::of(cidr) != family => "It is not of the pool's address family.",
        () if cidr != cidr.trunc() => "It has host bits.",
        () => return Ok(()),
    };
    Err(ApiError::invalid_value(&cidr.to_string(), "cidr", why))
}

fn not_available(asked: Asked) -> (FailureCode, String) {
    let text = match asked {
        Asked::Cidr(cidr) => format!("The CIDR {cidr} is not available."),
        Asked::Length(len) => format!("No CIDR with the netmask length {len} is available."),
    };
    (FailureCode::CidrNotAvailable, text)
}
