//! Histories: a few nodes of one account under random faults, with invariants checked at every
//! event.
//!
//! A history follows from its seed. Pods come and go, daemons die at any effect, records are lost,
//! and clocks jump. EC2 refuses, answers late, shows stale state or does not answer. People change
//! ENIs by hand, and metadata are wrong. Pods are on IPv4 or on both families, and the families change. The engine is the real one. EC2 is the model with limits,
//! delays and staleness. The requests are those that a node sends.
//!
//! [`History::run`] finds the first violation. [`History::shrunk`] makes a failing history small
//! enough to read.

use ipam::record::Record;
use lab::SetupError;

use super::setting::Setting;
use super::shrink;
use super::simulation::Simulation;
use super::step::{self, HistoryStep};

/// The steps of a history and their setting.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct History {
    /// Also seeds EC2's random choices and those of the simulation.
    pub(super) seed: u64,
    /// The state before the first step.
    pub(super) setting: Setting,
    /// The steps in order.
    pub(super) steps: Vec<HistoryStep>,
}

/// The result of a history without violation. The same history has the same result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Adds that got an address.
    pub(super) granted: u64,
    /// Those of them that got an address of each family.
    pub(super) granted_both: u64,
    /// Adds that were refused.
    pub(super) refused: u64,
    /// Requests that reached EC2.
    pub(super) calls: u64,
    /// Daemons that died.
    pub(super) kills: u64,
    /// ENIs that terminated instances left.
    pub(super) left_behind: usize,
    /// Blocks of ours that a daemon takes for foreign ones at the end. They are idle, and no pod
    /// suffers.
    pub(super) left_alone: usize,
    /// The records of the nodes that exist at the end.
    pub(super) records: Vec<Record>,
}

impl Outcome {
    /// Adds the counts of another outcome.
    pub(super) fn add(&mut self, other: Self) {
        let Self {
            granted,
            granted_both,
            refused,
            calls,
            kills,
            left_behind,
            left_alone,
            records: _,
        } = other;
        self.granted += granted;
        self.granted_both += granted_both;
        self.refused += refused;
        self.calls += calls;
        self.kills += kills;
        self.left_behind += left_behind;
        self.left_alone += left_alone;
    }
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("after {at_ms} ms, node {node}: {rule}: {what}")]
pub(super) struct Violation {
    /// Milliseconds since the start of the history.
    pub(super) at_ms: u64,
    /// The index of the node.
    pub(super) node: usize,
    /// The invariant, named by its violation.
    pub(super) rule: &'static str,
    /// What was observed.
    pub(super) what: String,
}

/// Why a history has no outcome.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// An invariant is violated: the engine or the invariant is wrong.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The simulation cannot be set up.
    #[error("set up the simulation")]
    Setup(#[from] SetupError),
}

impl History {
    /// The history that follows from `seed`.
    #[must_use]
    pub(super) fn of(seed: u64) -> Self {
        let setting = Setting::of(seed);
        let steps = step::steps_of(seed, setting.n_nodes);
        Self { seed, setting, steps }
    }

    /// Plays the history, then some hours without faults.
    ///
    /// # Errors
    ///
    /// The first violation.
    pub(super) fn run(&self) -> Result<Outcome, RunError> {
        let mut simulation = Simulation::new(self)?;
        self.live(&mut simulation)?;
        Ok(simulation.outcome())
    }

    /// All events of the history, each with its time in milliseconds.
    #[must_use]
    pub(super) fn event_log(&self) -> Vec<String> {
        let Ok(mut simulation) = Simulation::new(self) else { return Vec::new() };
        simulation.event_log = Some(Vec::new());
        let end = self.live(&mut simulation);
        let end = end.err().map(|violation| violation.to_string());
        simulation.event_log.into_iter().flatten().chain(end).collect()
    }

    fn live(&self, simulation: &mut Simulation) -> Result<(), Violation> {
        for step in &self.steps {
            simulation.play(step)?;
        }
        simulation.settle()
    }

    /// The smallest history found for which `fails` still holds.
    #[must_use]
    pub(super) fn shrunk(self, fails: impl FnMut(&Self) -> bool) -> Self {
        shrink::shrink(self, fails)
    }
}
