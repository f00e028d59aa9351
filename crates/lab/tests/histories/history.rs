//! Histories: some nodes of one account through whatever the world does to them, and what must stay
//! true of each moment.
//!
//! A history follows from its seed alone: pods that come and go, daemons that die at any of their
//! effects, records that are lost, clocks that jump, EC2 that refuses, is late, slow or silent,
//! people who take away what is ours, metadata that lie. The engine is the real one, EC2 the model with
//! its limits, delays and veils, and the requests between them are those that a node sends.
//!
//! StepAction a history breaks is found by [`History::run`], and [`History::shrunk`] makes it small enough
//! to be read.

use ipam::record::Record;
use lab::SetupError;

use super::setting::Setting;
use super::shrink;
use super::simulation::Simulation;
use super::step::{self, HistoryStep};

/// StepAction happens, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct History {
    /// Also what chance in EC2 and between the steps follows from.
    pub(super) seed: u64,
    /// The world before the first step.
    pub(super) setting: Setting,
    /// In their order.
    pub(super) steps: Vec<HistoryStep>,
}

/// How a history ended in which nothing was violation. The same history has the same end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Adds that were answered with an address.
    pub(super) granted: u64,
    /// Adds that were refused.
    pub(super) refused: u64,
    /// Requests that EC2 got.
    pub(super) calls: u64,
    /// Daemons that died.
    pub(super) kills: u64,
    /// ENIs that dead instances have left behind.
    pub(super) left_behind: usize,
    /// Blocks of ours that a daemon takes for somebody else's in the end: idle, but nobody's harm.
    pub(super) left_alone: usize,
    /// StepAction the living nodes have on record.
    pub(super) records: Vec<Record>,
}

impl Outcome {
    /// Adds another's numbers up.
    pub(super) fn add(&mut self, other: Self) {
        let Self { granted, refused, calls, kills, left_behind, left_alone, records: _ } = other;
        self.granted += granted;
        self.refused += refused;
        self.calls += calls;
        self.kills += kills;
        self.left_behind += left_behind;
        self.left_alone += left_alone;
    }
}

/// StepAction must stay true and did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("after {at_ms} ms, node {node}: {rule}: {what}")]
pub(super) struct Violation {
    /// Milliseconds since the start of the history.
    pub(super) at_ms: u64,
    /// Which node.
    pub(super) node: usize,
    /// StepAction must not be.
    pub(super) rule: &'static str,
    /// StepAction has been seen of it.
    pub(super) what: String,
}

/// Why a history has no outcome.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// The engine is wrong, or what was expected of it.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The world cannot be made.
    #[error("set the world up")]
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

    /// Lives through it, then through hours in which nothing else goes wrong.
    ///
    /// # Errors
    ///
    /// The first thing that was not as it must be.
    pub(super) fn run(&self) -> Result<Outcome, RunError> {
        let mut simulation = Simulation::new(self)?;
        self.live(&mut simulation)?;
        Ok(simulation.outcome())
    }

    /// All that happens in it, each with its time in milliseconds, for whoever wants to know why it
    /// breaks something.
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
            simulation.take(step)?;
        }
        simulation.settle()
    }

    /// A history with as little in it as possible for which `fails` still holds.
    #[must_use]
    pub(super) fn shrunk(self, fails: impl FnMut(&Self) -> bool) -> Self {
        shrink::shrink(self, fails)
    }
}
