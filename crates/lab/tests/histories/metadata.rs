//! The metadata service of each node, which lies as the history has it, and what its lies may cost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ec2_model::Rng;
use ipam::block::Block;
use ipam::call::Ec2Call;
use ipam::event::Event;
use ipam::id::EniId;
use ipam::time::Timestamp;
use ipam::view::{EniStage, EniView};
use lab::ec2::ipam_id;

use super::check::blocks_of;
use super::simulation::Simulation;

/// Tells this stream from the others of the same seed.
const STREAM: u64 = 14;
/// From the first reading for nothing to the second.
const SECOND_POLL: Duration = Duration::from_secs(600);

/// How a metadata service is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetadataFault {
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

impl MetadataFault {
    pub(super) fn of(seed: u64) -> Self {
        *Rng::with_stream(seed, STREAM).pick(&[
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
type EniBlocks = BTreeMap<EniId, BTreeSet<Block>>;

/// The readings of EC2 that lies have cost one run of the daemon since they last told something true.
#[derive(Debug)]
struct WastedPolls {
    run: u64,
    first: Timestamp,
    n: u32,
}

/// The service of one node.
#[derive(Debug)]
pub(super) struct Metadata {
    lie: MetadataFault,
    rng: Rng,
    first: EniBlocks,
    before: EniBlocks,
    ever: EniBlocks,
    /// StepAction it has been telling for a while.
    told: Option<EniBlocks>,
    spent: Option<WastedPolls>,
}

impl Metadata {
    pub(super) fn new(lie: MetadataFault, seed: u64, node: usize) -> Self {
        let stream = STREAM + 1 + u64::try_from(node).unwrap_or(0);
        let none = EniBlocks::new;
        let rng = Rng::with_stream(seed, stream);
        Self { lie, rng, first: none(), before: none(), ever: none(), told: None, spent: None }
    }

    /// StepAction it shows while `truth` is the case.
    fn shown(&mut self, truth: &EniBlocks) -> Option<EniBlocks> {
        if self.first.is_empty() {
            (self.first, self.before) = (truth.clone(), truth.clone());
        }
        for (eni, blocks) in truth {
            self.ever.entry(eni.clone()).or_default().extend(blocks);
        }
        let before = std::mem::replace(&mut self.before, truth.clone());
        match self.lie {
            MetadataFault::None => Some(truth.clone()),
            MetadataFault::Late => Some(before),
            MetadataFault::Frozen => Some(self.first.clone()),
            MetadataFault::RolledBack | MetadataFault::Lacking => {
                let told = self.told.take().filter(|_| self.rng.one_in(2));
                self.told = Some(told.unwrap_or_else(|| match self.rng.index(3) {
                    0 => truth.clone(),
                    _ if self.lie == MetadataFault::RolledBack => before,
                    _ => self.lacking(truth),
                }));
                self.told.clone()
            }
            MetadataFault::Hoarding => Some(self.ever.clone()),
            MetadataFault::Empty => {
                Some(truth.keys().map(|eni| (eni.clone(), BTreeSet::new())).collect())
            }
            MetadataFault::Absent => None,
        }
    }

    /// All but a block, or an ENI.
    fn lacking(&mut self, truth: &EniBlocks) -> EniBlocks {
        let mut shown = truth.clone();
        let Some(eni) = truth.keys().nth(self.rng.index(truth.len().max(1))) else {
            return shown;
        };
        let place = self.rng.index(truth[eni].len() + 1);
        match truth[eni].iter().nth(place) {
            Some(block) => _ = shown.get_mut(eni).is_some_and(|blocks| blocks.remove(block)),
            None => _ = shown.remove(eni),
        }
        shown
    }
}

impl Simulation {
    /// The blocks that EC2 has on each of a node's ENIs, whoever's.
    fn at_ec2(&mut self, node: usize) -> EniBlocks {
        let enis = self.cloud.attached(&self.nodes[node].site.instance, self.now);
        enis.iter().map(|eni| (ipam_id(eni.id.as_str()), blocks_of(eni).collect())).collect()
    }

    /// Whether the daemon knows what EC2 has, and knows of nothing that EC2 does not have.
    fn knows_all(&self, node: usize, truth: &EniBlocks) -> bool {
        let found = &self.nodes[node];
        let Some(engine) = &found.engine else { return true };
        let is_there = |block: &Block| truth.values().any(|blocks| blocks.contains(block));
        engine.view(found.time(self.now)).left_alone.iter().all(is_there)
            && self.is_right(node, truth, |eni| eni.device_index.is_some())
    }

    /// Whether the daemon knows what EC2 has on the ENIs that are `of` interest, be it that it takes it for
    /// somebody's.
    fn is_right(&self, node: usize, truth: &EniBlocks, of: fn(&EniView) -> bool) -> bool {
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
        // StepAction is due anyway comes first.
        self.tell(node, Event::Tick);
        let before = self.n_polls(node);
        self.tell(node, Event::Hint(shown));
        if self.n_polls(node) > before {
            self.check_worth(node, &truth);
        }
    }

    /// The daemon is about to learn what EC2 has. StepAction it did not know, a hint may have been right about.
    pub(super) fn poll_ends(&mut self, node: usize) {
        let truth = self.at_ec2(node);
        if !self.knows_all(node, &truth)
            && let Some(metadata) = self.metadata.get_mut(node)
        {
            metadata.spent = None;
        }
    }

    /// A hint has made the daemon read EC2. If that knew all there was, it may so ever more rarely: ten
    /// minutes later at the earliest, then twenty, and so on.
    fn check_worth(&mut self, node: usize, truth: &EniBlocks) {
        let is_right = self.knows_all(node, truth);
        let (run, now) = (self.nodes[node].run, self.now);
        let metadata = &mut self.metadata[node];
        if !is_right || metadata.spent.as_ref().is_none_or(|spent| spent.run != run) {
            metadata.spent = None;
        }
        if !is_right {
            return;
        }
        let spent = metadata.spent.get_or_insert(WastedPolls { run, first: now, n: 0 });
        let least = SECOND_POLL * ((1 << spent.n) - 1);
        spent.n += 1;
        let is_in_vain = metadata.lie == MetadataFault::None;
        let holds = now.since(spent.first) >= least && !is_in_vain;
        let what = format!("{:?}: {spent:?}", metadata.lie);
        self.expect(node, "readings for the sake of lies", holds, || what);
    }

    fn n_polls(&self, node: usize) -> usize {
        let calls = self.nodes[node].calls.values();
        calls.filter(|in_flight| in_flight.call == Ec2Call::DescribeEnis).count()
    }

    /// Where the service tells the truth, what somebody has done by hand is known in some minutes.
    pub(super) fn check_noticed(&mut self) {
        for node in 0..self.nodes.len() {
            let found = &self.nodes[node];
            // StepAction a call of its own has just done, its answer will tell.
            let is_told = found.is_there && found.is_told && found.calls.is_empty();
            if is_told && self.metadata[node].lie == MetadataFault::None {
                let truth = self.at_ec2(node);
                let is_right = self.is_right(node, &truth, |eni| eni.stage == EniStage::Ready);
                self.expect(node, "what was done by hand and is not noticed", is_right, || {
                    format!("{truth:?}")
                });
            }
        }
    }
}
