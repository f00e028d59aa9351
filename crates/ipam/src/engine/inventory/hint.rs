//! The metadata service's view of our ENIs. It may lag, stand still or be wrong.
//!
//! So it never changes the pool, and causes only one kind of call. Where the service differs from EC2's answer
//! for longer than it lags, a describe follows, and its answer counts. Until then pods get the blocks that the
//! service does not show after all others. No pod stays without an address because of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::{AUDIT, Foreign, Inventory};
use crate::block::Block;
use crate::engine::calls::Calls;
use crate::engine::context::Context;
use crate::eni::{Eni, Origin};
use crate::event::MetadataEni;
use crate::id::{EniId, SecurityGroupId};
use crate::policy::Families;
use crate::pool::Pool;
use crate::reason::Reason;
use crate::retry::Pace;
use crate::time::Timestamp;
use crate::view::Changes;

/// For how long the service must differ. Longer than the service lags behind EC2, and EC2 behind a change.
/// Shorter than a minute, so that the next hint can confirm this one.
const SURE: Duration = Duration::from_secs(45);
/// The shortest time between two describes that hints cause.
const PACE: Pace = Pace::new(600_000, AUDIT.as_secs() * 1000);

/// A fact on which EC2 and the service differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference {
    eni: EniId,
    fact: Fact,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    /// EC2 has described the block on the ENI, and the service does not show it.
    Lacking(Block),
    /// The service shows the block on the ENI, and EC2 has not described it there.
    Strange(Block),
    /// The service shows these security groups, and EC2 has described others.
    Groups(BTreeSet<SecurityGroupId>),
    /// The service shows the ENI, and EC2 has not described it on this instance. It counts where somebody else attaches
    /// ENIs for pods.
    New,
}

/// EC2's last answer.
#[derive(Clone, Copy)]
pub(super) struct Described<'a> {
    pool: &'a Pool,
    foreign: &'a BTreeMap<EniId, Foreign>,
}

impl Difference {
    /// Whether EC2's last answer still differs.
    fn holds(&self, Described { pool, foreign }: Described<'_>) -> bool {
        let eni = pool.enis.get(&self.eni).filter(|eni| eni.attachment().is_some());
        match &self.fact {
            Fact::Lacking(block) => eni.is_some_and(|eni| is_known(eni, block)),
            Fact::Strange(block) => !eni.is_some_and(|eni| is_known(eni, block)),
            Fact::Groups(shown) => eni.is_some_and(|eni| has_others(eni, shown)),
            Fact::New => !pool.enis.contains_key(&self.eni) && !foreign.contains_key(&self.eni),
        }
    }

    /// The block that it is about, if it is about one.
    fn block(&self) -> Option<Block> {
        match &self.fact {
            Fact::Lacking(block) | Fact::Strange(block) => Some(*block),
            Fact::Groups(_) | Fact::New => None,
        }
    }

    /// The block that the service does not show.
    fn lacking(&self) -> Option<Block> {
        self.block().filter(|_| matches!(self.fact, Fact::Lacking(_)))
    }
}

/// The state of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Undecided. The service has shown the difference since then.
    Open(Timestamp),
    /// EC2 has been described since, and its answer has not changed.
    Refuted,
}

impl Verdict {
    /// Whether the service has shown the difference for long enough by `now`, and EC2 has not refuted it.
    fn is_sure(self, now: Timestamp) -> bool {
        matches!(self, Verdict::Open(since) if since + SURE <= now)
    }
}

/// The differences between the service and EC2, and how far the service is trusted.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints {
    differences: BTreeMap<Difference, Verdict>,
    /// Since when a describe is awaited that the hints caused.
    asked: Option<Timestamp>,
    /// How many describes the hints have caused since the last correct hint.
    n_asked: u32,
    /// The hints cause no describe before that.
    asks_from: Timestamp,
}

impl Hints {
    /// Keeps `shown`, those of `before` with their verdicts.
    fn note(
        &mut self,
        shown: impl Iterator<Item = Difference>,
        before: &BTreeMap<Difference, Verdict>,
        now: Timestamp,
    ) {
        self.differences.extend(shown.map(|it| {
            let verdict = before.get(&it).copied().unwrap_or(Verdict::Open(now));
            (it, verdict)
        }));
    }

    /// Takes in that the pool now matches EC2's answer. The differences `judged` existed before.
    pub(super) fn judge(
        &mut self,
        judged: &[Difference],
        described: Described<'_>,
        asked_at: Timestamp,
        now: Timestamp,
    ) {
        let is_asked = self.asked.take_if(|since| *since <= asked_at).is_some();
        if is_asked && judged.iter().any(|difference| !difference.holds(described)) {
            (self.n_asked, self.asks_from) = (0, now);
        }
        self.differences.retain(|difference, _| difference.holds(described));
        for difference in judged {
            let verdict = self.differences.get_mut(difference);
            if let Some(verdict) = verdict.filter(|it| it.is_sure(asked_at)) {
                *verdict = Verdict::Refuted;
            }
        }
    }
}

impl Inventory {
    /// Takes in what the service shows. Where it answers in place of EC2, its answers hold nothing new.
    pub(in crate::engine) fn hint(
        &mut self,
        shown: &BTreeMap<EniId, MetadataEni>,
        pool: &Pool,
        calls: &Calls,
        cx: Context<'_>,
    ) {
        let now = cx.now;
        if cx.changes() == Changes::ImdsOnly {
            return;
        }
        let before = std::mem::take(&mut self.hints.differences);
        let nothing = MetadataEni::default();
        for eni in pool.enis.values().filter(|eni| eni.attachment().is_some()) {
            let shown = shown.get(&eni.id).unwrap_or(&nothing);
            let blocks = for_pods(eni, &shown.blocks, cx.families());
            let all = differences(eni, &blocks).chain(other_groups(eni, &shown.security_groups));
            self.hints.note(all, &before, now);
        }
        if cx.may_change().is_none() {
            let new = shown.keys().map(|eni| Difference { eni: eni.clone(), fact: Fact::New });
            let described = Described { pool, foreign: &self.foreign };
            self.hints.note(new.filter(|it| it.holds(described)), &before, now);
        }
        let open = self.hints_to_judge(pool, calls, now);
        let mut verdicts = open.iter().map(|it| self.hints.differences[it]);
        let is_news = verdicts.any(|it| it.is_sure(now)) && self.hints.asks_from <= now;
        if is_news && self.hints.asked.is_none() {
            self.hints.asked = Some(now);
            self.hints.n_asked = self.hints.n_asked.saturating_add(1);
            let pause = PACE.wait(self.hints.n_asked);
            self.hints.asks_from = now + cx.jitter.lengthened(pause, self.hints.n_asked);
            self.enis_poll.ask_from(now, Reason::Hint);
        }
    }

    /// The blocks that the service does not show, while its hints may cause a describe.
    pub(in crate::engine) fn doubted_by_hints(&self, now: Timestamp) -> BTreeSet<Block> {
        let is_heard = self.hints.asks_from <= now || self.hints.asked.is_some();
        let differences = self.hints.differences.iter().filter(|_| is_heard);
        let open = differences.filter(|(_, verdict)| **verdict != Verdict::Refuted);
        open.filter_map(|(difference, _)| difference.lacking()).collect()
    }

    /// The blocks on which the service differs from EC2's later answer.
    pub(in crate::engine) fn refuted_hints(&self) -> BTreeMap<EniId, BTreeSet<Block>> {
        let mut refuted: BTreeMap<EniId, BTreeSet<Block>> = BTreeMap::new();
        for (difference, verdict) in &self.hints.differences {
            if let (Verdict::Refuted, Some(block)) = (verdict, difference.block()) {
                refuted.entry(difference.eni.clone()).or_default().insert(block);
            }
        }
        refuted
    }

    /// Compares what the service had shown with EC2's answer.
    pub(super) fn judge_hints(
        &mut self,
        judged: &[Difference],
        pool: &Pool,
        asked_at: Timestamp,
        now: Timestamp,
    ) {
        let described = Described { pool, foreign: &self.foreign };
        self.hints.judge(judged, described, asked_at, now);
    }

    /// The differences that a describe begun at `asked_at` decides.
    pub(super) fn hints_to_judge(
        &self,
        pool: &Pool,
        calls: &Calls,
        asked_at: Timestamp,
    ) -> Vec<Difference> {
        let described = Described { pool, foreign: &self.foreign };
        let holding = self.hints.differences.keys().filter(|it| it.holds(described));
        holding.filter(|it| calls.is_settled(&it.eni, pool, asked_at)).cloned().collect()
    }
}

/// The blocks of `shown` that the pool would take in if EC2 described them on the ENI.
fn for_pods(eni: &Eni, shown: &BTreeSet<Block>, families: Families) -> BTreeSet<Block> {
    let is_primary = eni.origin == Origin::Primary;
    let own = match eni.primary_address {
        IpAddr::V4(address) => Some(Block::address(address)),
        IpAddr::V6(_) => None,
    };
    let is_for_pods = |it: &Block| families.serve(*it, is_primary) && Some(*it) != own;
    shown.iter().copied().filter(is_for_pods).collect()
}

/// Whether EC2 has described `block` on the ENI, whether it is ours or foreign.
fn is_known(eni: &Eni, block: &Block) -> bool {
    eni.blocks.contains_key(block) || eni.foreign_blocks.contains(block)
}

fn differences(eni: &Eni, shown: &BTreeSet<Block>) -> impl Iterator<Item = Difference> {
    let known = eni.blocks.keys().chain(&eni.foreign_blocks);
    let lacking = known.filter(|block| !shown.contains(*block)).copied().map(Fact::Lacking);
    let strange = shown.iter().filter(|block| !is_known(eni, block)).copied().map(Fact::Strange);
    lacking.chain(strange).map(|fact| Difference { eni: eni.id.clone(), fact })
}

fn other_groups(eni: &Eni, shown: &BTreeSet<SecurityGroupId>) -> Option<Difference> {
    let fact = Fact::Groups(shown.clone());
    has_others(eni, shown).then(|| Difference { eni: eni.id.clone(), fact })
}

/// Whether EC2 has described other security groups on the ENI than these. A service that shows none says nothing.
fn has_others(eni: &Eni, shown: &BTreeSet<SecurityGroupId>) -> bool {
    let is_known = !eni.security_groups.is_empty() && !shown.is_empty();
    is_known && eni.security_groups != *shown
}
