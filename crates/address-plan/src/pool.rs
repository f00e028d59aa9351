//! A pool with its space: what it has, what it gave away, and what rests.

use std::collections::BTreeMap;

use ec2_api::SimTime;
use ipnet::IpNet;

use crate::block::Block;
use crate::id::{AllocationId, PoolCidrId};
use crate::response::{Allocation, FailureCode, Holder, Pool, PoolCidr, PoolCidrState};
use crate::space::{Space, TakeError};

/// Why a block of a pool's space is not free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It is allocated.
    Allocated(Allocation),
    /// It was released, and is not allocated again until then.
    Resting(SimTime),
}

/// What is decided about a CIDR of a pool, and shown when its pending state ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The range is the pool's.
    Provisioned,
    /// The range cannot be had.
    ProvisionFailed(FailureCode, String),
    /// The range goes back to the source.
    Deprovisioned,
    /// A failed attempt is no longer listed.
    Forgotten,
    /// The range stays.
    DeprovisionFailed(String),
}

/// A pool, its CIDRs and its allocations.
///
/// Invariant: `allocations` names exactly the allocated blocks of `space`.
#[derive(Debug, Clone)]
pub(crate) struct PoolRecord {
    pub(crate) pool: Pool,
    pub(crate) cidrs: BTreeMap<PoolCidrId, PoolCidr>,
    /// The outcome of each pending CIDR.
    pub(crate) outcomes: BTreeMap<PoolCidrId, Outcome>,
    space: Space<Hold>,
    allocations: BTreeMap<AllocationId, Block>,
}

impl PoolRecord {
    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            pool,
            cidrs: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            space: Space::default(),
            allocations: BTreeMap::new(),
        }
    }

    pub(crate) fn space(&self) -> &Space<Hold> {
        &self.space
    }

    /// The allocations, ascending by CIDR.
    pub(crate) fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.space.held().filter_map(|(_, hold)| match hold {
            Hold::Allocated(allocation) => Some(allocation),
            Hold::Resting(_) => None,
        })
    }

    pub(crate) fn allocation(&self, id: &AllocationId) -> Option<&Allocation> {
        match self.space.holder(*self.allocations.get(id)?)? {
            Hold::Allocated(allocation) => Some(allocation),
            Hold::Resting(_) => None,
        }
    }

    pub(crate) fn allocation_mut(&mut self, id: &AllocationId) -> Option<&mut Allocation> {
        match self.space.holder_mut(*self.allocations.get(id)?)? {
            Hold::Allocated(allocation) => Some(allocation),
            Hold::Resting(_) => None,
        }
    }

    /// Whether a part of the range is allocated.
    pub(crate) fn is_allocated_in(&self, range: Block) -> bool {
        self.space.held_in(range).any(|(_, hold)| matches!(hold, Hold::Allocated(_)))
    }

    /// Takes the range of the allocation.
    pub(crate) fn allocate(&mut self, allocation: Allocation) -> Result<(), TakeError> {
        let (id, block) = (allocation.id.clone(), Block::from(allocation.cidr));
        self.space.take(block, Hold::Allocated(allocation))?;
        self.allocations.insert(id, block);
        Ok(())
    }

    /// Ends an allocation. Its range rests until `until`, or is free at once if that is `None`.
    pub(crate) fn release(&mut self, id: &AllocationId, until: Option<SimTime>) -> Option<Block> {
        let block = self.allocations.remove(id)?;
        match until {
            None => drop(self.space.release(block)),
            Some(until) => *self.space.holder_mut(block)? = Hold::Resting(until),
        }
        Some(block)
    }

    /// Frees a range whose rest has ended.
    pub(crate) fn end_rest(&mut self, block: Block, now: SimTime) {
        let over = |hold: &Hold| matches!(hold, Hold::Resting(until) if *until <= now);
        if self.space.holder(block).is_some_and(over) {
            self.space.release(block);
        }
    }

    pub(crate) fn provision(&mut self, range: Block) -> bool {
        self.space.provision(range)
    }

    /// Removes a CIDR without allocations from the space. What rests in it is gone.
    pub(crate) fn deprovision(&mut self, range: Block) -> bool {
        if self.is_allocated_in(range) {
            return false;
        }
        let resting: Vec<Block> = self.space.held_in(range).map(|(block, _)| block).collect();
        for block in resting {
            self.space.release(block);
        }
        self.space.deprovision(range)
    }

    /// The CIDRs that are in the pool, on their way in, or on their way out. Nothing else may have
    /// them.
    pub(crate) fn claimed(&self) -> impl Iterator<Item = IpNet> {
        let claims = |it: &&PoolCidr| match (self.outcomes.get(&it.id), &it.state) {
            (Some(Outcome::ProvisionFailed(..) | Outcome::Forgotten), _) => false,
            (None, PoolCidrState::FailedProvision(..)) => false,
            (Some(_) | None, _) => true,
        };
        self.cidrs.values().filter(claims).filter_map(|it| it.cidr)
    }

    /// The allocation that a resource has for this CIDR.
    pub(crate) fn allocation_of(&self, holder: &Holder, cidr: IpNet) -> Option<&Allocation> {
        match self.space.holder(Block::from(cidr))? {
            Hold::Allocated(allocation) => Some(allocation).filter(|it| it.holder == *holder),
            Hold::Resting(_) => None,
        }
    }
}
