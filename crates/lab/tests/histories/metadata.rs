//! The metadata service (IMDS) of each node, with its fault, and the polls of EC2 that it may
//! cause.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ec2_model::Rng;
use ipam::block::Block;
use ipam::call::Ec2Call;
use ipam::event::{Event, HostNat, MetadataEni};
use ipam::id::EniId;
use ipam::time::Timestamp;
use ipam::view::{EniStage, EniView};
use ipnet::Ipv4Net;
use lab::ec2::ipam_id;

use super::check::blocks_of;
use super::simulation::Simulation;

/// The number of this random stream.
const STREAM: u64 = 14;
/// The least time between the first and the second wasted poll.
const SECOND_POLL: Duration = Duration::from_secs(600);

/// The VPC's ranges by choice.
pub(super) fn ranges(choice: usize) -> BTreeSet<Ipv4Net> {
    let all = ["10.0.0.0/16", "100.64.0.0/16", "10.1.0.0/16"];
    all.iter().take(choice + 1).map(|range| range.parse().unwrap()).collect()
}

/// The fault of a metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetadataFault {
    /// No fault.
    None,
    /// It shows the state at the previous read.
    Late,
    /// It shows the state at the first read.
    Frozen,
    /// Sometimes it shows an old state for a while.
    RolledBack,
    /// Sometimes a block or an ENI is missing for a while.
    Lacking,
    /// It shows everything that ever existed.
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

/// The polls of EC2 that wrong hints caused in one run of the daemon, since a hint was last right.
#[derive(Debug)]
struct WastedPolls {
    run: u64,
    first: Timestamp,
    n: u32,
}

/// The metadata service of one node.
#[derive(Debug)]
pub(super) struct Metadata {
    fault: MetadataFault,
    rng: Rng,
    first: EniBlocks,
    before: EniBlocks,
    ever: EniBlocks,
    /// The wrong state that it currently shows.
    shown_now: Option<EniBlocks>,
    spent: Option<WastedPolls>,
}

impl Metadata {
    pub(super) fn new(fault: MetadataFault, seed: u64, node: usize) -> Self {
        let stream = STREAM + 1 + u64::try_from(node).unwrap_or(0);
        let none = EniBlocks::new;
        let rng = Rng::with_stream(seed, stream);
        Self {
            fault,
            rng,
            first: none(),
            before: none(),
            ever: none(),
            shown_now: None,
            spent: None,
        }
    }

    /// The state that it shows. `truth` is EC2's state.
    fn shown(&mut self, truth: &EniBlocks) -> Option<EniBlocks> {
        if self.first.is_empty() {
            (self.first, self.before) = (truth.clone(), truth.clone());
        }
        for (eni, blocks) in truth {
            self.ever.entry(eni.clone()).or_default().extend(blocks);
        }
        let before = std::mem::replace(&mut self.before, truth.clone());
        match self.fault {
            MetadataFault::None => Some(truth.clone()),
            MetadataFault::Late => Some(before),
            MetadataFault::Frozen => Some(self.first.clone()),
            MetadataFault::RolledBack | MetadataFault::Lacking => {
                let told = self.shown_now.take().filter(|_| self.rng.one_in(2));
                self.shown_now = Some(told.unwrap_or_else(|| match self.rng.index(3) {
                    0 => truth.clone(),
                    _ if self.fault == MetadataFault::RolledBack => before,
                    _ => self.lacking(truth),
                }));
                self.shown_now.clone()
            }
            MetadataFault::Hoarding => Some(self.ever.clone()),
            MetadataFault::Empty => {
                Some(truth.keys().map(|eni| (eni.clone(), BTreeSet::new())).collect())
            }
            MetadataFault::Absent => None,
        }
    }

    /// The VPC's ranges as it shows them. A faulty service cuts some answers off.
    fn shown_ranges(&mut self, truth: &BTreeSet<Ipv4Net>) -> Option<BTreeSet<Ipv4Net>> {
        match self.fault {
            MetadataFault::None => Some(truth.clone()),
            MetadataFault::Absent => None,
            MetadataFault::Late
            | MetadataFault::Frozen
            | MetadataFault::RolledBack
            | MetadataFault::Lacking
            | MetadataFault::Hoarding
            | MetadataFault::Empty => {
                let n = self.rng.index(truth.len() + 1);
                Some(truth.iter().take(n).copied().collect())
            }
        }
    }

    /// `truth` without one block or one ENI.
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
    /// The blocks on each of a node's ENIs at EC2, including foreign ones.
    fn at_ec2(&mut self, node: usize) -> EniBlocks {
        let enis = self.cloud.attached(&self.nodes[node].site.instance, self.now);
        enis.iter().map(|eni| (ipam_id(eni.id.as_str()), blocks_of(eni).collect())).collect()
    }

    /// Whether the daemon's view equals EC2's state, and its foreign blocks exist.
    fn knows_all(&self, node: usize, truth: &EniBlocks) -> bool {
        let found = &self.nodes[node];
        let Some(engine) = &found.engine else { return true };
        let is_there = |block: &Block| truth.values().any(|blocks| blocks.contains(block));
        engine.view(found.time(self.now)).unused_blocks.iter().all(is_there)
            && self.is_right(node, truth, |eni| eni.device_index.is_some())
    }

    /// Whether the daemon's view of the selected ENIs equals EC2's state, apart from foreign
    /// blocks.
    fn is_right(&self, node: usize, truth: &EniBlocks, of: fn(&EniView) -> bool) -> bool {
        let found = &self.nodes[node];
        let Some(engine) = &found.engine else { return true };
        let view = engine.view(found.time(self.now));
        let nothing = BTreeSet::new();
        view.enis.iter().filter(|eni| of(eni)).all(|eni| {
            let known: BTreeSet<_> = eni.blocks.keys().copied().collect();
            truth.get(&eni.id).unwrap_or(&nothing) - &view.unused_blocks == known
        })
    }

    /// Reads the metadata service, if it answers, and gives the daemon a hint.
    pub(super) fn hint(&mut self, node: usize) {
        if self.metadata.is_empty() {
            return;
        }
        let truth = self.at_ec2(node);
        let Some(shown) = self.metadata[node].shown(&truth) else { return };
        // A due tick comes first, so that a poll after the hint is caused by the hint.
        self.tell(node, Event::Tick);
        let before = self.n_polls(node);
        let shown = shown
            .into_iter()
            .map(|(eni, blocks)| (eni, MetadataEni { blocks, security_groups: BTreeSet::new() }));
        self.tell(node, Event::Hint(shown.collect()));
        if self.n_polls(node) > before {
            self.check_poll_rate(node, &truth);
        }
    }

    /// Shows the daemon the VPC's ranges. Services that have stopped count as sound ones here.
    pub(super) fn show_ranges(&mut self, node: usize) {
        let shown = match self.metadata.get_mut(node) {
            Some(metadata) => metadata.shown_ranges(&self.ranges),
            None => Some(self.ranges.clone()),
        };
        if let Some(shown) = shown {
            self.tell(node, Event::VpcRanges(shown));
        }
    }

    /// Pods reach the range that every VPC here has with their own addresses.
    pub(super) fn check_ranges(&mut self, node: usize, nat: &HostNat) {
        let HostNat::Wanted(nat) = nat else { return };
        let untranslated = nat.source.as_ref().map(|source| &source.untranslated);
        let holds = untranslated.is_some_and(|found| found.is_superset(&ranges(0)));
        self.expect(node, "translation within the VPC", holds, || format!("{untranslated:?}"));
    }

    /// The daemon is about to learn EC2's state. If that is news, hints may have been right, so
    /// counting restarts.
    pub(super) fn poll_ends(&mut self, node: usize) {
        let truth = self.at_ec2(node);
        if !self.knows_all(node, &truth)
            && let Some(metadata) = self.metadata.get_mut(node)
        {
            metadata.spent = None;
        }
    }

    /// A hint made the daemon poll EC2. If the daemon already knew everything, such polls must
    /// become rarer: ten minutes later at the earliest, then twenty, and so on.
    fn check_poll_rate(&mut self, node: usize, truth: &EniBlocks) {
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
        let is_in_vain = metadata.fault == MetadataFault::None;
        let holds = now.since(spent.first) >= least && !is_in_vain;
        let what = format!("{:?}: {spent:?}", metadata.fault);
        self.expect(node, "too many polls for wrong hints", holds, || what);
    }

    fn n_polls(&self, node: usize) -> usize {
        let calls = self.nodes[node].calls.values();
        calls.filter(|in_flight| in_flight.call == Ec2Call::DescribeEnis).count()
    }

    /// With correct metadata, the daemon must know changes made by hand within minutes.
    pub(super) fn check_hand_changes_known(&mut self) {
        for node in 0..self.nodes.len() {
            let found = &self.nodes[node];
            // The answer of a call in flight will show what that call changed.
            let last_poll_ok = found.is_there && found.last_poll_ok && found.calls.is_empty();
            if last_poll_ok && self.metadata[node].fault == MetadataFault::None {
                let truth = self.at_ec2(node);
                let is_right = self.is_right(node, &truth, |eni| eni.stage == EniStage::Ready);
                self.expect(node, "change by hand not noticed", is_right, || format!("{truth:?}"));
            }
        }
    }
}
