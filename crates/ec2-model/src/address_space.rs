//! The address space of one subnet and family: the holder of each address and prefix.
//!
//! Invariants: nothing has two holders, prefixes are aligned and disjoint, and addresses that EC2
//! reserves are never taken. ENIs are known by id only.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::config::AddressChoice;
use crate::family::Family;
use crate::id::EniId;
use crate::request::ReservationType;
use crate::rng::Rng;

/// EC2 reserves the network address, the router, DNS, one address for future use, and the last
/// address. <https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html>
const N_RESERVED_AT_START: u128 = 4;
const N_RESERVED: u128 = N_RESERVED_AT_START + 1;

/// The holder of an address or a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// An ENI of the model.
    Eni(EniId),
    /// Something else in the VPC.
    Other,
}

/// Why a named address or prefix cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TakeError {
    /// It is outside the subnet.
    Outside,
    /// EC2 reserves it.
    Reserved,
    /// The prefix does not have EC2's length, or has host bits.
    Misaligned,
    /// It is taken, in whole or in part.
    Held(Holder),
}

/// The addresses and prefixes of one subnet, with their holders.
#[derive(Debug, Clone)]
pub(crate) struct AddressSpace<F: Family> {
    first: u128,
    host_bits: u8,
    /// Single addresses, by offset from `first`.
    singles: BTreeMap<u128, Holder>,
    /// Prefixes, by block number.
    prefixes: BTreeMap<u128, Holder>,
    /// For each block, the number of reasons not to assign it: single addresses in it, reserved
    /// addresses.
    blocked: BTreeMap<u128, u32>,
    /// Reserved ranges, by first offset: last offset and reservation type. They are disjoint.
    set_aside: BTreeMap<u128, (u128, ReservationType)>,
    /// How many addresses [`AddressChoice::Spread`] has walked over.
    strides: u128,
    family: std::marker::PhantomData<F>,
}

impl<F: Family> AddressSpace<F> {
    /// A space without holders. Host bits of `subnet` are ignored.
    pub(crate) fn new(subnet: F::Net) -> Self {
        let (addr, len) = F::parts(subnet);
        let host_bits = F::BITS - len;
        let mut space = Self {
            first: addr & !((1 << host_bits) - 1),
            host_bits,
            singles: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            blocked: BTreeMap::new(),
            set_aside: BTreeMap::new(),
            strides: 0,
            family: std::marker::PhantomData,
        };
        space.block(0);
        space.block(space.size() - 1);
        space
    }

    fn size(&self) -> u128 {
        1 << self.host_bits
    }

    fn offset(&self, addr: F::Addr) -> Option<u128> {
        F::number(addr).checked_sub(self.first).filter(|offset| *offset < self.size())
    }

    fn is_reserved(&self, offset: u128) -> bool {
        offset < N_RESERVED_AT_START || offset == self.size() - 1
    }

    /// Adds one reason not to assign the block around `offset` as a prefix.
    fn block(&mut self, offset: u128) {
        *self.blocked.entry(block_of::<F>(offset)).or_default() += 1;
    }

    fn unblock(&mut self, offset: u128) {
        let number = block_of::<F>(offset);
        match self.blocked.get_mut(&number) {
            Some(1) => drop(self.blocked.remove(&number)),
            Some(reasons) => *reasons -= 1,
            None => unreachable!("every single address has blocked its block"),
        }
    }

    /// The holder of an address, alone or in a prefix.
    pub(crate) fn holder(&self, addr: F::Addr) -> Option<&Holder> {
        let offset = self.offset(addr)?;
        self.singles.get(&offset).or_else(|| self.prefixes.get(&block_of::<F>(offset)))
    }

    /// Free addresses, including those in reserved ranges.
    pub(crate) fn n_free(&self) -> u128 {
        let n_held = wide(self.singles.len()) + prefix_size::<F>() * wide(self.prefixes.len());
        self.size().saturating_sub(N_RESERVED + n_held)
    }

    /// Free addresses in reserved ranges.
    pub(crate) fn n_free_set_aside(&self) -> u128 {
        let n_free = |(first, (last, _)): (&u128, &(u128, ReservationType))| {
            let reserved = N_RESERVED_AT_START.saturating_sub(*first).min(last - first + 1)
                + u128::from(*last == self.size() - 1);
            (last - first + 1).saturating_sub(reserved + self.n_held_in(*first..=*last))
        };
        self.set_aside.iter().map(n_free).sum()
    }

    /// Addresses held in a range of offsets. If the range is smaller than a block, a prefix counts
    /// with the addresses that it covers there.
    fn n_held_in(&self, range: RangeInclusive<u128>) -> u128 {
        let (first, last) = (*range.start(), *range.end());
        let blocks = block_of::<F>(first)..=block_of::<F>(last);
        let part = prefix_size::<F>().min(last - first + 1);
        let n_prefixes = self.prefixes.range(blocks).count();
        wide(self.singles.range(range).count()) + part * wide(n_prefixes)
    }

    /// Takes a named address.
    pub(crate) fn take_address(&mut self, addr: F::Addr, by: Holder) -> Result<(), TakeError> {
        let offset = self.offset(addr).ok_or(TakeError::Outside)?;
        if self.is_reserved(offset) {
            return Err(TakeError::Reserved);
        }
        if let Some(holder) = self.holder(addr) {
            return Err(TakeError::Held(holder.clone()));
        }
        self.hold_address(offset, by);
        Ok(())
    }

    /// Takes a named prefix.
    pub(crate) fn take_prefix(&mut self, prefix: F::Net, by: Holder) -> Result<(), TakeError> {
        let (number, len) = F::parts(prefix);
        let offset = self.offset(F::addr(number)).ok_or(TakeError::Outside)?;
        if len != F::PREFIX_LEN || offset % prefix_size::<F>() != 0 {
            return Err(TakeError::Misaligned);
        }
        if let Some(holder) = self.holder_in_block(offset) {
            return Err(TakeError::Held(holder.clone()));
        }
        let block = block_of::<F>(offset);
        if self.blocked.contains_key(&block) {
            return Err(TakeError::Reserved);
        }
        self.prefixes.insert(block, by);
        Ok(())
    }

    fn holder_in_block(&self, first: u128) -> Option<&Holder> {
        let mut singles = self.singles.range(first..first + prefix_size::<F>());
        let single = singles.next().map(|(_, holder)| holder);
        self.prefixes.get(&block_of::<F>(first)).or(single)
    }

    fn hold_address(&mut self, offset: u128, by: Holder) {
        self.singles.insert(offset, by);
        self.block(offset);
    }

    /// Returns a single address. False if nobody held it as a single address.
    pub(crate) fn release_address(&mut self, addr: F::Addr) -> bool {
        let Some(offset) = self.offset(addr) else { return false };
        let held = self.singles.remove(&offset).is_some();
        if held {
            self.unblock(offset);
        }
        held
    }

    /// Returns a prefix. False if nobody held it.
    pub(crate) fn release_prefix(&mut self, prefix: F::Net) -> bool {
        let offset = self.offset(F::addr(F::parts(prefix).0));
        offset.is_some_and(|offset| self.prefixes.remove(&block_of::<F>(offset)).is_some())
    }

    /// Takes one address that EC2 chooses, outside reserved ranges. `None` if there is none.
    pub(crate) fn choose_address(
        &mut self,
        choice: AddressChoice,
        by: Holder,
        rng: &mut Rng,
    ) -> Option<F::Addr> {
        if self.n_free() <= self.n_free_set_aside() {
            return None;
        }
        let mut walk = self.walk(self.host_bits, choice, rng).zip(1..);
        let (offset, n_steps) = walk.find(|(offset, _)| self.is_free_for_all(*offset))?;
        self.strides += n_steps;
        self.hold_address(offset, by);
        Some(F::addr(self.first + offset))
    }

    fn is_free_for_all(&self, offset: u128) -> bool {
        !self.is_reserved(offset)
            && !self.singles.contains_key(&offset)
            && !self.prefixes.contains_key(&block_of::<F>(offset))
            && !self.is_set_aside(offset..=offset)
    }

    fn is_set_aside(&self, range: RangeInclusive<u128>) -> bool {
        let begins_before = self.set_aside.range(..=*range.end()).next_back();
        begins_before.is_some_and(|(_, (last, _))| last >= range.start())
    }

    /// Takes one prefix that EC2 chooses. It comes from the ranges reserved for prefixes if the
    /// subnet has any, else from outside reserved ranges. `None` if no such block is free.
    pub(crate) fn choose_prefix(
        &mut self,
        choice: AddressChoice,
        by: Holder,
        rng: &mut Rng,
    ) -> Option<F::Net> {
        let mut areas = self.prefix_areas();
        if choice == AddressChoice::Random && areas.len() > 1 {
            let turn = rng.index(areas.len());
            areas.rotate_left(turn);
        }
        let found = areas.iter().find_map(|area| self.find_block(area, choice, rng));
        let (block, n_steps) = found?;
        self.strides += n_steps;
        self.prefixes.insert(block, by);
        Some(F::prefix(self.first + block * prefix_size::<F>()))
    }

    /// Where automatic prefixes come from. A reserved range smaller than a prefix holds none.
    fn prefix_areas(&self) -> Vec<Area> {
        let reserved: Vec<_> = self
            .set_aside
            .iter()
            .filter(|(_, (_, kind))| *kind == ReservationType::Prefix)
            .collect();
        if reserved.is_empty() {
            return vec![Area { first: 0, last: self.size() - 1, avoids_set_aside: true }];
        }
        reserved
            .into_iter()
            .map(|(first, (last, _))| Area { first: *first, last: *last, avoids_set_aside: false })
            .collect()
    }

    fn find_block(
        &self,
        area: &Area,
        choice: AddressChoice,
        rng: &mut Rng,
    ) -> Option<(u128, u128)> {
        let block_bits = F::BITS - F::PREFIX_LEN;
        let n_bits = u8::try_from((area.last - area.first + 1).ilog2()).expect("at most 128");
        let walk = self.walk(n_bits.checked_sub(block_bits)?, choice, rng);
        let first = block_of::<F>(area.first);
        walk.map(|step| first + step).zip(1..).find(|(block, _)| self.is_free_block(*block, area))
    }

    fn is_free_block(&self, block: u128, area: &Area) -> bool {
        let first = block * prefix_size::<F>();
        let avoided = || self.is_set_aside(first..=first + prefix_size::<F>() - 1);
        let taken = self.blocked.contains_key(&block) || self.prefixes.contains_key(&block);
        !(taken || area.avoids_set_aside && avoided())
    }

    /// Every number below 2^`bits` once, in the order that `choice` gives. An odd stride has no
    /// common divisor with a power of two, so it visits every number.
    fn walk(
        &self,
        bits: u8,
        choice: AddressChoice,
        rng: &mut Rng,
    ) -> impl Iterator<Item = u128> + use<F> {
        let n: u128 = 1 << bits;
        let (start, stride) = match choice {
            AddressChoice::LowestFirst => (0, 1),
            AddressChoice::Random => (rng.next_wide() % n, (rng.next_wide() % n) | 1),
            // A stride near the golden section spreads any number of steps most evenly.
            AddressChoice::Spread => {
                let stride = ((n >> 1) + (n >> 3)) | 1;
                ((self.strides % n).wrapping_mul(stride) % n, stride)
            }
        };
        (0..n).scan(start, move |position, _| {
            let here = *position;
            *position = (here + stride) % n;
            Some(here)
        })
    }

    /// Reserves a range, which must lie in the subnet. Holders in it stay. False if it overlaps
    /// another reserved range.
    pub(crate) fn set_aside(&mut self, block: F::Net, kind: ReservationType) -> bool {
        let (first, last) = self.range(block);
        let fits = !self.is_set_aside(first..=last);
        if fits {
            self.set_aside.insert(first, (last, kind));
        }
        fits
    }

    /// Removes the reservation that [`Self::set_aside`] made.
    pub(crate) fn restore(&mut self, block: F::Net) {
        let (first, _) = self.range(block);
        self.set_aside.remove(&first);
    }

    fn range(&self, block: F::Net) -> (u128, u128) {
        let (number, len) = F::parts(block);
        let first = number.saturating_sub(self.first);
        (first, first + ((1 << (F::BITS - len)) - 1))
    }
}

/// A range to search for a free block, by offsets.
#[derive(Debug)]
struct Area {
    first: u128,
    last: u128,
    avoids_set_aside: bool,
}

fn wide(count: usize) -> u128 {
    u128::try_from(count).expect("usize is narrower")
}

fn prefix_size<F: Family>() -> u128 {
    1 << (F::BITS - F::PREFIX_LEN)
}

fn block_of<F: Family>(offset: u128) -> u128 {
    offset / prefix_size::<F>()
}

#[cfg(test)]
mod tests;
