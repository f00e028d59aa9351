//! Sums that the targets are held against.

use crate::call::Ask;

/// Addresses in an IPv4 prefix.
pub(super) const PREFIX_SIZE: u64 = 16;

/// Sums over what serves, what is under way and what is planned.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) addresses: u64,
    /// Live, resting or waited for.
    pub(super) used: u64,
    pub(super) prefixes: u64,
    pub(super) idle_prefixes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, ask: Ask) {
        let n = u64::from(ask.count());
        self.addresses += n * ask.block_size();
        if ask.is_for_prefixes() {
            self.prefixes += n;
            self.idle_prefixes += n;
        }
    }

    /// Takes idle blocks away.
    pub(super) fn remove(&mut self, ask: Ask) {
        let n = u64::from(ask.count());
        self.addresses = self.addresses.saturating_sub(n * ask.block_size());
        if ask.is_for_prefixes() {
            self.prefixes = self.prefixes.saturating_sub(n);
            self.idle_prefixes = self.idle_prefixes.saturating_sub(n);
        }
    }

    pub(super) fn available(&self) -> u64 {
        self.addresses.saturating_sub(self.used)
    }
}
