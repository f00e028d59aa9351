//! Prefixes for containers beside the pods: which the pool gives up, and which it gets back.
//!
//! Such a prefix stays on its ENI. Its user hands out its addresses, so the pool neither gives them to pods nor
//! returns them to EC2.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::context::Context;
use super::journal::Journal;
use crate::block::{Block, BlockKind};
use crate::pool::Pool;
use crate::record::Change;

/// The parts that a delegation changes.
pub(super) struct Delegating<'a> {
    pub(super) pool: &'a mut Pool,
    pub(super) journal: &'a mut Journal,
    pub(super) n_waiting: usize,
    /// Blocks that the metadata service does not show.
    pub(super) doubted: &'a BTreeSet<Block>,
    pub(super) cx: Context<'a>,
}

impl Delegating<'_> {
    /// Delegates idle prefixes until there are as many as the policy wants, once no pod waits. Takes back the
    /// highest ones if there are more.
    pub(super) fn settle(&mut self) {
        let before = self.pool.delegated.clone();
        let excess = n_excess(self.pool, self.cx);
        let of_family: Vec<_> = of_family(self.pool, self.cx).collect();
        for prefix in of_family.into_iter().rev().take(excess) {
            self.take_back(prefix);
        }
        while n_lacking(self.pool, self.cx) > 0 && self.n_waiting == 0 {
            let kind = self.cx.families().policy().kind;
            let next = self.pool.idle_prefix(kind, self.doubted, self.cx.rests());
            let Some(prefix) = next else { break };
            self.pool.set_delegated(prefix, true);
        }
        if self.pool.delegated != before {
            self.journal.note(Change::Delegated { prefixes: self.pool.delegated.clone() });
        }
    }

    /// Gives `prefix` back to the pods. IPv4 addresses rest first, as those of a pod that has ended. The time names
    /// the next IPv6 address of a pod, so no pod gets one of a container.
    fn take_back(&mut self, prefix: Block) {
        self.pool.set_delegated(prefix, false);
        let addresses: Vec<IpAddr> = match prefix.kind() {
            BlockKind::V4Address | BlockKind::V4Prefix => {
                prefix.addresses_from(0).filter(|ip| self.pool.has(*ip)).collect()
            }
            BlockKind::V6Prefix => Vec::new(),
        };
        for address in addresses {
            self.journal.note(Change::Resting { address, since: self.cx.now });
            self.pool.rest(address, self.cx.now);
        }
    }
}

/// How many prefixes are still to be delegated. None in a pool of single addresses.
pub(super) fn n_lacking(pool: &Pool, cx: Context<'_>) -> u16 {
    let wanted = cx.policy.delegated_prefixes.filter(|_| cx.families().policy().kind.is_prefix());
    let n = u16::try_from(of_family(pool, cx).count()).unwrap_or(u16::MAX);
    wanted.unwrap_or(0).saturating_sub(n)
}

fn n_excess(pool: &Pool, cx: Context<'_>) -> usize {
    let n = of_family(pool, cx).count();
    cx.policy.delegated_prefixes.map_or(0, |wanted| n.saturating_sub(wanted.into()))
}

fn of_family(pool: &Pool, cx: Context<'_>) -> impl Iterator<Item = Block> {
    let family = cx.families().policy().kind.family();
    pool.delegated.iter().copied().filter(move |prefix| prefix.family() == family)
}

/// What is wrong with delegated prefixes: some are still to come, or EC2 describes them on no ENI of this node.
pub(super) fn phrases(
    pool: &Pool,
    enis_are_known: bool,
    cx: Context<'_>,
) -> impl Iterator<Item = String> {
    let n = n_lacking(pool, cx);
    let lacking =
        (n > 0).then(|| format!("{n} of the prefixes for other containers are still to come"));
    let lost = of_family(pool, cx).filter(|prefix| !pool.has(prefix.bounds().0));
    let lost: Vec<_> = lost.filter(|_| enis_are_known).collect();
    let lost = lost.into_iter().map(|prefix| {
        format!("{prefix} is delegated to other containers but not on any ENI at EC2")
    });
    lacking.into_iter().chain(lost)
}
