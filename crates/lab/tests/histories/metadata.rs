//! The metadata service of each node, which lies as the history has it, and what its lies may cost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipam::block::Block;
use ipam::call::Ec2Call;
use ipam::event::Event;
use ipam::id::EniId;
use ipam::time::Timestamp;
use ipam::view::{EniStage, EniView};
use lab::chance::Chance;
use lab::ec2::known_to_ipam;

use super::check::blocks_of;
use super::world::World;

/// Tells this stream from the others of the same seed.
const STREAM: u64 = 14;
/// From the first reading for nothing to the second.
const SECOND_READING: Duration = Duration::from_secs(600);

/// How a metadata service is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// Not at all.
    None,
    /// It shows what was true when it was read before.
    Late,
    /// It shows what was true when it was read first.
    Frozen,
    /// Now and then it shows for a while what was true once.
    RolledBack,
    /// Now and then it leaves a block out for a while, or an ENI.
    Lacking,
    /// It also shows whatever has been there.
    Hoarding,
    /// It shows the ENIs without their blocks.
    Empty,
    /// It does not answer.
    Absent,
}

impl Lie {
    pub(super) fn of(seed: u64) -> Self {
        *Chance::new(seed, STREAM).pick(&[
            Self::None,
            Self::None,
            Self::Late,
            Self::Frozen,
            Self::RolledBack,
            Self::Lacking,
            Self::Hoarding,
            Self::Empty,
            Self::Absent,
        ])
    }
}

/// The blocks of each ENI.
type Shown = BTreeMap<EniId, BTreeSet<Block>>;

/// The readings of EC2 that lies have cost one run of the daemon since they last told something true.
#[derive(Debug)]
struct Spent {
    run: u64,
    first: Timestamp,
    n: u32,
}

/// The service of one node.
#[derive(Debug)]
pub(super) struct Metadata {
    lie: Lie,
    chance: Chance,
    first: Shown,
    before: Shown,
    ever: Shown,
    /// What it has been telling for a while.
    told: Option<Shown>,
    spent: Option<Spent>,
}

impl Metadata {
    pub(super) fn new(lie: Lie, seed: u64, node: usize) -> Self {
        let stream = STREAM + 1 + u64::try_from(node).unwrap_or(0);
        let none = Shown::new;
        let chance = Chance::new(seed, stream);
        Self { lie, chance, first: none(), before: none(), ever: none(), told: None, spent: None }
    }

    /// What it shows while `truth` is the case.
    fn shown(&mut self, truth: &Shown) -> Option<Shown> {
        if self.first.is_empty() {
            (self.first, self.before) = (truth.clone(), truth.clone());
        }
        for (eni, blocks) in truth {
            self.ever.entry(eni.clone()).or_default().extend(blocks);
        }
        let before = std::mem::replace(&mut self.before, truth.clone());
        match self.lie {
            Lie::None => Some(truth.clone()),
            Lie::Late => Some(before),
            Lie::Frozen => Some(self.first.clone()),
            Lie::RolledBack | Lie::Lacking => {
                let told = self.told.take().filter(|_| self.chance.one_in(2));
                self.told = Some(told.unwrap_or_else(|| match self.chance.index(3) {
                    0 => truth.clone(),
                    _ if self.lie == Lie::RolledBack => before,
                    _ => self.lacking(truth),
                }));
                self.told.clone()
            }
            Lie::Hoarding => Some(self.ever.clone()),
            Lie::Empty => Some(truth.keys().map(|eni| (eni.clone(), BTreeSet::new())).collect()),
            Lie::Absent => None,
        }
    }

    /// All but a block, or an ENI.
    fn lacking(&mut self, truth: &Shown) -> Shown {
        let mut shown = truth.clone();
        let Some(eni) = truth.keys().nth(self.chance.index(truth.len().max(1))) else {
            return shown;
        };
        let place = self.chance.index(truth[eni].len() + 1);
        match truth[eni].iter().nth(place) {
            Some(block) => _ = shown.get_mut(eni).is_some_and(|blocks| blocks.remove(block)),
            None => _ = shown.remove(eni),
        }
        shown
    }
}

impl World {
    /// The blocks that EC2 has on each of a node's ENIs, whoever's.
    fn at_ec2(&mut self, node: usize) -> Shown {
        let enis = self.cloud.attached(&self.nodes[node].site.instance, self.now);
        enis.iter().map(|eni| (known_to_ipam(eni.id.as_str()), blocks_of(eni).collect())).collect()
    }

    /// Whether the daemon knows what EC2 has, and knows of nothing that EC2 does not have.
    fn knows_all(&self, node: usize, truth: &Shown) -> bool {
        let found = &self.nodes[node];
        let Some(engine) = &found.engine else { return true };
        let is_there = |block: &Block| truth.values().any(|blocks| blocks.contains(block));
        engine.view(found.time(self.now)).left_alone.iter().all(is_there)
            && self.is_right(node, truth, |eni| eni.device_index.is_some())
    }

    /// Whether the daemon knows what EC2 has on the ENIs that are `of` interest, be it that it takes it for
    /// somebody's.
    fn is_right(&self, node: usize, truth: &Shown, of: fn(&EniView) -> bool) -> bool {
        let found = &self.nodes[node];
        let Some(engine) = &found.engine else { return true };
        let view = engine.view(found.time(self.now));
        let nothing = BTreeSet::new();
        view.enis.iter().filter(|eni| of(eni)).all(|eni| {
            let known: BTreeSet<_> = eni.blocks.keys().copied().collect();
            truth.get(&eni.id).unwrap_or(&nothing) - &view.left_alone == known
        })
    }

    /// The metadata service is read, if it answers.
    pub(super) fn hint(&mut self, node: usize) {
        if self.metadata.is_empty() {
            return;
        }
        let truth = self.at_ec2(node);
        let Some(shown) = self.metadata[node].shown(&truth) else { return };
        // What is due anyway comes first.
        self.tell(node, Event::Tick);
        let before = self.n_readings(node);
        self.tell(node, Event::Hint(shown));
        if self.n_readings(node) > before {
            self.check_worth(node, &truth);
        }
    }

    /// The daemon is about to learn what EC2 has. What it did not know, a hint may have been right about.
    pub(super) fn reading_ends(&mut self, node: usize) {
        let truth = self.at_ec2(node);
        if !self.knows_all(node, &truth)
            && let Some(metadata) = self.metadata.get_mut(node)
        {
            metadata.spent = None;
        }
    }

    /// A hint has made the daemon read EC2. If that knew all there was, it may so ever more rarely: ten
    /// minutes later at the earliest, then twenty, and so on.
    fn check_worth(&mut self, node: usize, truth: &Shown) {
        let is_right = self.knows_all(node, truth);
        let (run, now) = (self.nodes[node].run, self.now);
        let metadata = &mut self.metadata[node];
        if !is_right || metadata.spent.as_ref().is_none_or(|spent| spent.run != run) {
            metadata.spent = None;
        }
        if !is_right {
            return;
        }
        let spent = metadata.spent.get_or_insert(Spent { run, first: now, n: 0 });
        let least = SECOND_READING * ((1 << spent.n) - 1);
        spent.n += 1;
        let is_in_vain = metadata.lie == Lie::None;
        let holds = now.since(spent.first) >= least && !is_in_vain;
        let what = format!("{:?}: {spent:?}", metadata.lie);
        self.expect(node, "readings for the sake of lies", holds, || what);
    }

    fn n_readings(&self, node: usize) -> usize {
        let calls = self.nodes[node].calls.values();
        calls.filter(|underway| underway.call == Ec2Call::DescribeEnis).count()
    }

    /// Where the service tells the truth, what somebody has done by hand is known in some minutes.
    pub(super) fn check_noticed(&mut self) {
        for node in 0..self.nodes.len() {
            let found = &self.nodes[node];
            // What a call of its own has just done, its answer will tell.
            let is_told = found.is_there && found.is_told && found.calls.is_empty();
            if is_told && self.metadata[node].lie == Lie::None {
                let truth = self.at_ec2(node);
                let is_right = self.is_right(node, &truth, |eni| eni.stage == EniStage::Ready);
                self.expect(node, "what was done by hand and is not noticed", is_right, || {
                    format!("{truth:?}")
                });
            }
        }
    }
}
