//! The sums that are compared with the targets.

use crate::block::BlockCount;

/// Addresses in an IPv4 prefix.
pub(super) const PREFIX_SIZE: u64 = 16;

/// Sums over the addresses that serve, and over those that are under way or planned.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) addresses: u64,
    /// Live, resting, or wanted by a pod that waits or is about to start.
    pub(super) used: u64,
    pub(super) prefixes: u64,
    pub(super) idle_prefixes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, blocks: BlockCount) {
        let n = u64::from(blocks.n);
        self.addresses += n * blocks.kind.size();
        if blocks.kind.is_prefix() {
            self.prefixes += n;
            self.idle_prefixes += n;
        }
    }

    /// Takes idle blocks away.
    pub(super) fn remove(&mut self, blocks: BlockCount) {
        let n = u64::from(blocks.n);
        self.addresses = self.addresses.saturating_sub(n * blocks.kind.size());
        if blocks.kind.is_prefix() {
            self.prefixes = self.prefixes.saturating_sub(n);
            self.idle_prefixes = self.idle_prefixes.saturating_sub(n);
        }
    }

    pub(super) fn available(&self) -> u64 {
        self.addresses.saturating_sub(self.used)
    }
}
