//! What the metadata service tells of our ENIs, beside what is known of them by EC2's word. It may lag, stand
//! still or lie, so nothing in the pool changes by it, and no call follows but one: where it tells
//! otherwise for longer than it lags, EC2 is read, and what EC2 says counts. Until then what the
//! service does not show is granted after all else; nobody goes without for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Engine;
use super::inventory::AUDIT;
use crate::block::Block;
use crate::eni::{Eni, Origin};
use crate::id::EniId;
use crate::policy::Mode;
use crate::pool::Pool;
use crate::retry::Pace;
use crate::time::Timestamp;

/// For how long it must tell otherwise: longer than it lags behind EC2, and EC2 behind what somebody
/// does. Less than a minute, so that the next hint may confirm what this one tells.
const SURE: Duration = Duration::from_secs(45);
/// Between the readings that it costs.
const PACE: Pace = Pace::new(600_000, AUDIT.as_secs() * 1000);

/// A block of an ENI that one of the two shows there and the other does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference {
    eni: EniId,
    block: Block,
    /// Whether it is there by EC2's word.
    is_known: bool,
}

impl Difference {
    /// Whether what is known is still what it was.
    fn holds(&self, pool: &Pool) -> bool {
        let eni = pool.enis.get(&self.eni).filter(|eni| eni.attachment().is_some());
        eni.is_some_and(|eni| is_known(eni, &self.block)) == self.is_known
    }
}

/// What came of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing yet; the service has told so since then.
    Open(Timestamp),
    /// EC2 has been read since, and stands by its word.
    Belied,
}

impl Verdict {
    /// Whether the service has told so for long enough by `now`, and nobody has belied it.
    fn is_sure(self, now: Timestamp) -> bool {
        matches!(self, Verdict::Open(since) if since + SURE <= now)
    }
}

/// What the service tells otherwise, and what its word is worth.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints {
    told: BTreeMap<Difference, Verdict>,
    /// Since when the reading is awaited that it costs.
    asked: Option<Timestamp>,
    /// How many it has cost since one bore it out.
    n_asked: u32,
    /// It costs none before that.
    asks_from: Timestamp,
}

impl Hints {
    /// The blocks of which it tells otherwise than EC2 has since.
    pub(super) fn belied(&self) -> BTreeMap<EniId, BTreeSet<Block>> {
        let mut belied: BTreeMap<EniId, BTreeSet<Block>> = BTreeMap::new();
        for (Difference { eni, block, .. }, verdict) in &self.told {
            if *verdict == Verdict::Belied {
                belied.entry(eni.clone()).or_default().insert(*block);
            }
        }
        belied
    }
}

impl Engine {
    /// Takes in what the service shows: of each ENI its blocks, of which its own address is none.
    pub(super) fn hint(&mut self, shown: &BTreeMap<EniId, BTreeSet<Block>>, now: Timestamp) {
        let before = std::mem::take(&mut self.hints.told);
        let nothing = BTreeSet::new();
        for eni in self.pool.enis.values().filter(|eni| eni.attachment().is_some()) {
            let shown = self.for_pods(eni, shown.get(&eni.id).unwrap_or(&nothing));
            self.hints.told.extend(differences(eni, &shown).map(|it| {
                let verdict = before.get(&it).copied().unwrap_or(Verdict::Open(now));
                (it, verdict)
            }));
        }
        let mut news = self.hints_to_judge(now).into_iter().map(|it| self.hints.told[&it]);
        let is_news = news.any(|verdict| verdict.is_sure(now)) && self.hints.asks_from <= now;
        if is_news && self.hints.asked.is_none() {
            self.hints.asked = Some(now);
            self.hints.n_asked = self.hints.n_asked.saturating_add(1);
            let pause = PACE.wait(self.hints.n_asked);
            self.hints.asks_from = now + self.jitter.lengthened(pause, self.hints.n_asked);
            self.enis_look.ask_from(now);
        }
    }

    /// The blocks that it does not show, until a reading tells, if its word is worth one now.
    pub(super) fn doubted(&self, now: Timestamp) -> BTreeSet<Block> {
        let is_heard = self.hints.asks_from <= now || self.hints.asked.is_some();
        let told = self.hints.told.iter().filter(|_| is_heard);
        let open = told.filter(|(it, verdict)| it.is_known && **verdict != Verdict::Belied);
        open.map(|(difference, _)| difference.block).collect()
    }

    /// The differences on which a reading is the last word that began at `asked_at` and has ended.
    pub(super) fn hints_to_judge(&self, asked_at: Timestamp) -> Vec<Difference> {
        let told = self.hints.told.keys().filter(|it| it.holds(&self.pool));
        told.filter(|it| self.is_settled(&it.eni, asked_at)).cloned().collect()
    }

    /// EC2 has been read: the pool is as it says, of which the service has told otherwise before.
    pub(super) fn judge_hints(&mut self, told: &[Difference], asked_at: Timestamp, now: Timestamp) {
        let is_asked = self.hints.asked.take_if(|since| *since <= asked_at).is_some();
        if is_asked && told.iter().any(|difference| !difference.holds(&self.pool)) {
            (self.hints.n_asked, self.hints.asks_from) = (0, now);
        }
        self.hints.told.retain(|difference, _| difference.holds(&self.pool));
        for difference in told {
            let verdict = self.hints.told.get_mut(difference);
            if let Some(verdict) = verdict.filter(|it| it.is_sure(asked_at)) {
                *verdict = Verdict::Belied;
            }
        }
    }

    /// What of an ENI's blocks is taken in when EC2 describes it.
    fn for_pods(&self, eni: &Eni, shown: &BTreeSet<Block>) -> BTreeSet<Block> {
        let mode = self.mode();
        let carries = mode != Mode::Ipv6 || eni.origin == Origin::Primary;
        let own = Block::address(eni.primary_address.into());
        shown.iter().copied().filter(|it| carries && mode.serves(*it) && *it != own).collect()
    }
}

/// Whether EC2 has described `block` on it, whoever's.
fn is_known(eni: &Eni, block: &Block) -> bool {
    eni.blocks.contains_key(block) || eni.by_hand.contains(block)
}

fn differences(eni: &Eni, shown: &BTreeSet<Block>) -> impl Iterator<Item = Difference> {
    let known = eni.blocks.keys().chain(&eni.by_hand);
    let lacking = known.filter(|block| !shown.contains(*block)).map(|block| (*block, true));
    let strange = shown.iter().filter(|block| !is_known(eni, block)).map(|block| (*block, false));
    let all = lacking.chain(strange);
    all.map(|(block, is_known)| Difference { eni: eni.id.clone(), block, is_known })
}
