//! The address space of one pool: who holds each part of its provisioned CIDRs.
//!
//! Invariants: the provisioned CIDRs are disjoint. Held and free blocks together are exactly these
//! CIDRs, and no two of them overlap. A block is held only by way of [`Space::take`], which moves
//! it out of the free blocks. So an overlap cannot be expressed.
//!
//! Free blocks are as large as alignment allows (a buddy system), and are found by address and by
//! length. An allocation takes O(b log n) steps for b bits of an address and n held blocks. It
//! takes as many more for each disallowed block that is in the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::block::Block;

/// Why a block cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeError {
    /// No provisioned CIDR contains it.
    Outside,
    /// This block, which overlaps it, is held.
    Held(Block),
}

/// Provisioned CIDRs, and the holder of each block taken from them.
#[derive(Debug, Clone)]
pub struct Space<T> {
    /// Provisioned CIDRs: first address → length.
    ranges: BTreeMap<u128, u8>,
    /// Held blocks: first address → length and holder.
    held: BTreeMap<u128, (u8, T)>,
    /// Free blocks: first address → length.
    free: BTreeMap<u128, u8>,
    /// The first addresses of the free blocks of each length.
    free_by_len: BTreeMap<u8, BTreeSet<u128>>,
}

impl<T> Default for Space<T> {
    fn default() -> Self {
        Self {
            ranges: BTreeMap::new(),
            held: BTreeMap::new(),
            free: BTreeMap::new(),
            free_by_len: BTreeMap::new(),
        }
    }
}

impl<T> Space<T> {
    /// Provisions a CIDR, which is free. False if it overlaps another one. Then nothing changes.
    pub fn provision(&mut self, range: Block) -> bool {
        if overlapping(&self.ranges, range, |len| *len).next().is_some() {
            return false;
        }
        self.ranges.insert(range.first(), range.prefix_len());
        self.add_free(range);
        true
    }

    /// Removes a provisioned CIDR. False if it is not provisioned, or a part of it is held. Then
    /// nothing changes.
    pub fn deprovision(&mut self, range: Block) -> bool {
        let provisioned = self.ranges.get(&range.first()) == Some(&range.prefix_len());
        let free = self.free.get(&range.first()) == Some(&range.prefix_len());
        if provisioned && free {
            self.ranges.remove(&range.first());
            self.remove_free(range);
        }
        provisioned && free
    }

    /// The provisioned CIDR that contains `block`.
    #[must_use]
    pub fn range_around(&self, block: Block) -> Option<Block> {
        around(&self.ranges, block, |len| *len)
    }

    /// The provisioned CIDRs, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = Block> {
        self.ranges.iter().map(|(first, len)| Block::new(*first, *len))
    }

    /// The held blocks and their holders, ascending.
    pub fn held(&self) -> impl Iterator<Item = (Block, &T)> {
        self.held.iter().map(|(first, (len, by))| (Block::new(*first, *len), by))
    }

    /// The free blocks, ascending, each as large as alignment allows.
    pub fn free(&self) -> impl Iterator<Item = Block> {
        self.free.iter().map(|(first, len)| Block::new(*first, *len))
    }

    /// The held blocks that overlap `block`, with their holders, ascending.
    pub fn held_in(&self, block: Block) -> impl Iterator<Item = (Block, &T)> {
        overlapping(&self.held, block, |(len, _)| *len).map(|(block, (_, by))| (block, by))
    }

    /// The holder of exactly this block.
    #[must_use]
    pub fn holder(&self, block: Block) -> Option<&T> {
        self.held
            .get(&block.first())
            .filter(|(len, _)| *len == block.prefix_len())
            .map(|(_, by)| by)
    }

    /// The holder of exactly this block, to change it.
    pub fn holder_mut(&mut self, block: Block) -> Option<&mut T> {
        let held = self.held.get_mut(&block.first());
        held.filter(|(len, _)| *len == block.prefix_len()).map(|(_, by)| by)
    }

    /// Takes a named block.
    ///
    /// # Errors
    /// If it is outside the provisioned CIDRs, or held in whole or in part.
    pub fn take(&mut self, block: Block, by: T) -> Result<(), TakeError> {
        let Some(mut rest) = around(&self.free, block, |len| *len) else {
            let held = self.held_in(block).next().map(|(held, _)| TakeError::Held(held));
            return Err(held.unwrap_or(TakeError::Outside));
        };
        self.remove_free(rest);
        while rest.prefix_len() < block.prefix_len() {
            let [low, high] = rest.halves();
            let (keep, other) = if low.contains(block) { (low, high) } else { (high, low) };
            self.add_free(other);
            rest = keep;
        }
        self.held.insert(block.first(), (block.prefix_len(), by));
        Ok(())
    }

    /// Frees a held block and returns its holder. `None` if exactly this block is not held.
    pub fn release(&mut self, block: Block) -> Option<T> {
        self.holder(block)?;
        let (_, by) = self.held.remove(&block.first())?;
        let range = self.range_around(block).expect("what is held lies in a provisioned CIDR");
        let mut whole = block;
        while whole != range && self.free.get(&whole.sibling().first()) == Some(&whole.prefix_len())
        {
            self.remove_free(whole.sibling());
            whole = whole.widened(whole.prefix_len() - 1);
        }
        self.add_free(whole);
        Some(by)
    }

    /// The lowest free block of this length that lies in one of the allowed blocks and overlaps no
    /// disallowed one. `None` for `allowed` allows all.
    #[must_use]
    pub fn lowest_free(
        &self,
        len: u8,
        allowed: Option<&[Block]>,
        disallowed: &[Block],
    ) -> Option<Block> {
        let areas = outermost(allowed.unwrap_or(&[Block::ALL]));
        let disallowed = outermost(disallowed);
        areas.into_iter().find_map(|(first, area_len)| {
            self.lowest_free_in(len, Block::new(first, area_len), &disallowed)
        })
    }

    fn lowest_free_in(
        &self,
        len: u8,
        area: Block,
        disallowed: &BTreeMap<u128, u8>,
    ) -> Option<Block> {
        let mut from = area.first();
        loop {
            let found = self.next_free(from, len).filter(|found| area.contains(*found))?;
            let Some((in_the_way, _)) = overlapping(disallowed, found, |len| *len).next() else {
                return Some(found);
            };
            from = in_the_way.last().max(found.last()).checked_add(1)?;
        }
    }

    /// The lowest free block of this length that begins at `from` or above.
    fn next_free(&self, from: u128, len: u8) -> Option<Block> {
        let of_len = |(larger, firsts): (&u8, &BTreeSet<u128>)| {
            let within = firsts.range(..from).next_back().and_then(|first| {
                let above = Block::new(from, len);
                let next = match above.first() == from {
                    true => above,
                    false => Block::new(above.last().checked_add(1)?, len),
                };
                Block::new(*first, *larger).contains(next).then_some(next)
            });
            within.or_else(|| firsts.range(from..).next().map(|first| Block::new(*first, len)))
        };
        self.free_by_len.range(..=len).filter_map(of_len).min()
    }

    fn add_free(&mut self, block: Block) {
        self.free.insert(block.first(), block.prefix_len());
        self.free_by_len.entry(block.prefix_len()).or_default().insert(block.first());
    }

    fn remove_free(&mut self, block: Block) {
        self.free.remove(&block.first());
        if let Some(firsts) = self.free_by_len.get_mut(&block.prefix_len()) {
            firsts.remove(&block.first());
            if firsts.is_empty() {
                self.free_by_len.remove(&block.prefix_len());
            }
        }
    }
}

/// The entry of a map of disjoint blocks that contains `block`.
fn around<V>(map: &BTreeMap<u128, V>, block: Block, len: impl Fn(&V) -> u8) -> Option<Block> {
    let (first, value) = map.range(..=block.first()).next_back()?;
    Some(Block::new(*first, len(value))).filter(|found| found.contains(block))
}

/// The entries of a map of disjoint blocks that overlap `block`: the one around it, or those in it.
fn overlapping<V>(
    map: &BTreeMap<u128, V>,
    block: Block,
    len: impl Fn(&V) -> u8 + Copy,
) -> impl Iterator<Item = (Block, &V)> {
    let start = around(map, block, len).unwrap_or(block).first();
    map.range(start..=block.last())
        .map(move |(first, value)| (Block::new(*first, len(value)), value))
}

/// The blocks that no other one contains: first address → length.
fn outermost(blocks: &[Block]) -> BTreeMap<u128, u8> {
    let mut sorted: Vec<Block> = blocks.to_vec();
    // An outer block comes before those in it.
    sorted.sort_unstable();
    let mut outer: BTreeMap<u128, u8> = BTreeMap::new();
    for block in sorted {
        if around(&outer, block, |len| *len).is_none() {
            outer.insert(block.first(), block.prefix_len());
        }
    }
    outer
}
