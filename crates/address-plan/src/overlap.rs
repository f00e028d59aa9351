//! Which networks of a scope have addresses in common.
//!
//! CIDRs nest or are disjoint. So a CIDR overlaps what lies around it, which is at most one block of
//! each length, and what lies in it, which is a range of the ordered blocks. A question takes
//! O(b log n) steps for b bits of an address and n blocks.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::block::{Block, Family};
use crate::id::ResourceId;

/// The CIDRs of all networks in one scope.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    by_block: BTreeMap<(Family, Block), BTreeSet<ResourceId>>,
    lengths: BTreeSet<u8>,
}

impl Networks {
    /// Adds a CIDR of a network.
    pub(crate) fn add(&mut self, cidr: IpNet, network: &ResourceId) {
        let block = Block::from(cidr);
        self.lengths.insert(block.prefix_len());
        self.by_block.entry((Family::of(cidr), block)).or_default().insert(network.clone());
    }

    /// The lowest other network that has a part of `cidr`.
    pub(crate) fn other_with(&self, cidr: IpNet, network: &ResourceId) -> Option<&ResourceId> {
        let (family, block) = (Family::of(cidr), Block::from(cidr));
        let foreign = |networks: &&ResourceId| *networks != network;
        let shorter = self.lengths.range(..=block.prefix_len());
        let around = shorter.filter_map(|len| self.by_block.get(&(family, block.widened(*len))));
        let from = (family, block);
        let to = (family, Block::new(block.last(), 128));
        let within = self.by_block.range(from..=to).map(|(_, networks)| networks);
        around.flatten().find(foreign).or_else(|| within.flatten().find(foreign))
    }
}
