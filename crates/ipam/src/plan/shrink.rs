//! The surplus: blocks and ENIs that may go back without making the pool low.

use std::cmp::Reverse;

use super::grow::Planner;
use super::totals::{PREFIX_SIZE, Totals};
use super::{EniSupply, Scope, SupplyState, Surplus};
use crate::block::{BlockCount, BlockKind, Family};
use crate::id::EniId;
use crate::policy::Targets;

/// The idle blocks of one kind on an ENI.
type Idle = fn(&EniSupply) -> BlockCount;

impl<'a> Planner<'a> {
    /// Whole ENIs first, since each takes all its blocks along; then blocks of the other ENIs.
    pub(super) fn surplus(&mut self) -> Surplus {
        let (enis, leaving) = self.surplus_enis();
        let blocks = self.surplus_blocks(&leaving);
        Surplus { enis, blocks }
    }

    /// Adds the ENIs that take no new pods, and their idle blocks. They go back whatever the targets are.
    pub(super) fn add_excluded(&mut self, surplus: &mut Surplus) {
        let is_excluded =
            |eni: &&EniSupply| matches!(eni.state, SupplyState::Excluded | SupplyState::NotForPods);
        for eni in self.situation.enis.iter().filter(is_excluded).filter(|eni| !eni.busy) {
            if self.may_go(eni) {
                match eni.removable_from {
                    Some(from) if from > self.now => self.look_again(Some(from)),
                    _ => surplus.enis.push(eni.id.clone()),
                }
                continue;
            }
            let (singles, prefixes) = (eni.tally.idle_singles, eni.tally.idle_prefixes);
            let idle = [BlockKind::V4Address.times(singles), self.prefixes(prefixes)];
            let idle = idle.into_iter().filter(|blocks| blocks.n > 0);
            surplus.blocks.extend(idle.map(|blocks| (eni.id.clone(), blocks)));
        }
    }

    /// The ENIs to drain now, and the places of all surplus ENIs, including those that are too young to go.
    fn surplus_enis(&mut self) -> (Vec<EniId>, Vec<usize>) {
        let mut candidates: Vec<_> = self.attached().filter(|(_, eni)| self.may_go(eni)).collect();
        candidates.sort_by_key(|(at, eni)| (eni.tally.addresses, Reverse(*at)));
        let (mut enis, mut leaving) = (Vec::new(), Vec::new());
        for (at, eni) in candidates {
            let mut rest = self.totals;
            rest.remove(BlockKind::V4Address.times(eni.tally.singles));
            rest.remove(self.prefixes(eni.tally.prefixes));
            if !self.can_spare_eni(&rest) {
                continue;
            }
            self.totals = rest;
            leaving.push(at);
            match eni.removable_from {
                Some(from) if from > self.now => self.look_again(Some(from)),
                _ => enis.push(eni.id.clone()),
            }
        }
        (enis, leaving)
    }

    /// Whether an ENI may go if `rest` stays.
    /// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go` and `datastore/data_store.go`.
    fn can_spare_eni(&self, rest: &Totals) -> bool {
        let whole_blocks = |n: u32| match self.kind() {
            BlockKind::V4Address | BlockKind::V4Prefix => {
                u64::from(n).next_multiple_of(self.block_size())
            }
            // Rounded up to a whole /80, a target could never be met while a pod lives.
            BlockKind::V6Prefix => u64::from(n),
        };
        let spared = match self.family.targets {
            Targets::Ip { warm, minimum } => {
                rest.available() >= whole_blocks(warm) && rest.addresses >= whole_blocks(minimum)
            }
            Targets::WarmEni(warm) => {
                self.totals.available() >= (u64::from(warm) + 1).saturating_mul(self.eni_size())
            }
            Targets::WarmPrefix(warm) => match self.kind() {
                BlockKind::V4Prefix => rest.idle_prefixes >= u64::from(warm),
                BlockKind::V4Address | BlockKind::V6Prefix => {
                    rest.available() >= u64::from(warm) * PREFIX_SIZE
                }
            },
        };
        spared && !self.is_low(rest)
    }

    /// Idle blocks of the ENIs that stay: from the emptiest ENI, so that ENIs drain.
    fn surplus_blocks(&mut self, leaving: &[usize]) -> Vec<(EniId, BlockCount)> {
        let mut staying: Vec<_> = self.attached().filter(|(at, _)| !leaving.contains(at)).collect();
        staying.sort_by_key(|(at, eni)| (eni.tally.live + eni.tally.cooling, Reverse(*at)));
        let staying: Vec<_> = staying.into_iter().map(|(_, eni)| eni).collect();
        let singles: Idle = |eni| BlockKind::V4Address.times(eni.tally.idle_singles);
        let prefixes: Idle = |eni| BlockKind::V4Prefix.times(eni.tally.idle_prefixes);
        let ipv6_prefixes: Idle = |eni| BlockKind::V6Prefix.times(eni.tally.idle_prefixes);
        let (other, main) = match self.kind() {
            BlockKind::V4Address => (prefixes, singles),
            BlockKind::V4Prefix => (singles, prefixes),
            BlockKind::V6Prefix => (singles, ipv6_prefixes),
        };
        let mut blocks = self.spare(&staying, u64::MAX, other);
        let over = self.over();
        blocks.extend(self.spare(&staying, over, main));
        blocks
    }

    /// `n` prefixes of the policy's family.
    fn prefixes(&self, n: u16) -> BlockCount {
        match self.kind().family() {
            Family::V4 => BlockKind::V4Prefix.times(n),
            Family::V6 => BlockKind::V6Prefix.times(n),
        }
    }

    /// At most `at_most` idle blocks of one kind that can go, in the order of the ENIs.
    fn spare(&mut self, enis: &[&EniSupply], at_most: u64, idle: Idle) -> Vec<(EniId, BlockCount)> {
        let mut left = at_most;
        let mut blocks = Vec::new();
        for eni in enis {
            let spared = self.n_spared(idle(eni), left);
            if spared.n > 0 {
                left -= u64::from(spared.n);
                self.totals.remove(spared);
                blocks.push((eni.id.clone(), spared));
            }
        }
        blocks
    }

    /// As many of `idle`, at most `at_most`, as can go without making the pool low.
    fn n_spared(&self, idle: BlockCount, at_most: u64) -> BlockCount {
        let most = idle.n.min(u16::try_from(at_most).unwrap_or(u16::MAX));
        let spared = |n: &u16| {
            let mut rest = self.totals;
            rest.remove(idle.with_n(*n));
            !self.is_low(&rest)
        };
        idle.with_n((1..=most).rev().find(spared).unwrap_or(0))
    }

    /// How many blocks of the policy's kind exceed what the targets want.
    /// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`.
    fn over(&self) -> u64 {
        let totals = &self.totals;
        match (self.family.targets, self.kind()) {
            (Targets::WarmEni(_), _)
            | (Targets::WarmPrefix(_), BlockKind::V4Address | BlockKind::V6Prefix) => 0,
            (Targets::WarmPrefix(warm), BlockKind::V4Prefix) => {
                totals.idle_prefixes.saturating_sub(u64::from(warm))
            }
            (Targets::Ip { warm, minimum }, BlockKind::V4Address) => totals
                .available()
                .saturating_sub(u64::from(warm))
                .min(totals.addresses.saturating_sub(u64::from(minimum))),
            (Targets::Ip { warm, minimum }, BlockKind::V4Prefix | BlockKind::V6Prefix) => {
                let for_warm = (totals.used + u64::from(warm)).div_ceil(self.block_size());
                let for_minimum = u64::from(minimum).div_ceil(self.block_size());
                totals.idle_prefixes.min(totals.prefixes.saturating_sub(for_warm.max(for_minimum)))
            }
        }
    }

    /// Whether the ENI may go back now or when it is old enough.
    fn may_go(&self, eni: &EniSupply) -> bool {
        let in_scope = match self.situation.scope {
            Scope::All => true,
            Scope::ForPods | Scope::Nothing(_) => false,
        };
        in_scope && eni.removable_from.is_some() && eni.tally.live == 0 && eni.tally.cooling == 0
    }

    /// The attached ENIs that no call is changing, with their places.
    fn attached(&self) -> impl Iterator<Item = (usize, &'a EniSupply)> + use<'a> {
        let enis = self.situation.enis.iter().enumerate();
        enis.filter(|(_, eni)| eni.state == SupplyState::Attached && !eni.busy)
    }
}
