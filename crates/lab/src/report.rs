//! The figures of both strategies side by side: as data, text and chart.

mod chart;
mod clairvoyant;
mod equal;
mod pareto;
mod table;

use serde::Serialize;

pub use self::chart::{ChartError, chart};
pub use self::clairvoyant::{Clairvoyant, Ratio};
pub use self::equal::EqualService;
pub use self::pareto::pareto_chart;
pub use self::table::render;
use crate::cloud::SetupError;
use crate::run::{Strategy, run};
use crate::scenario::Case;
use crate::score::{Score, share};

/// The results of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The scenario in one line.
    pub about: String,
    /// In the order of the cases.
    pub cases: Vec<CaseReport>,
}

/// The results of one policy with both strategies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseReport {
    /// The policy in a few words.
    pub policy: String,
    /// In the order of the strategies.
    pub scores: Vec<Score>,
    /// The incumbent's targets for equal service. Only for a target of addresses in secondary mode,
    /// and if both strategies ran.
    pub equal_service: Option<EqualService>,
    /// The least cost of the same pods, if the future is known.
    pub clairvoyant: Clairvoyant,
    /// Comparisons of ours with the incumbent, if both ran.
    pub aims: Vec<Aim>,
}

/// A comparison with the ratio that ours must not exceed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Aim {
    /// The figure that is compared.
    pub what: &'static str,
    /// Our figure.
    pub ours: f64,
    /// The incumbent's figure, or the bound.
    pub theirs: f64,
    /// Ours over theirs; `None` if theirs is 0.
    pub ratio: Option<f64>,
    /// The highest ratio that meets the aim.
    pub at_most: f64,
    /// Whether the ratio meets the aim. True if both figures are 0.
    pub met: bool,
}

impl Aim {
    fn new(what: &'static str, ours: f64, theirs: f64, at_most: f64) -> Self {
        let ratio = (theirs > 0.0).then(|| ours / theirs);
        let met = ratio.map_or(ours == 0.0, |ratio| ratio <= at_most);
        Self { what, ours, theirs, ratio, at_most, met }
    }
}

/// Runs every case with every strategy.
///
/// # Errors
///
/// If EC2 refuses the start of a case.
pub fn simulate(
    about: &str,
    cases: &[Case],
    strategies: &[Strategy],
) -> Result<Report, SetupError> {
    let cases = cases.iter().map(|case| case_report(case, strategies));
    Ok(Report { about: about.to_owned(), cases: cases.collect::<Result<_, _>>()? })
}

fn case_report(case: &Case, strategies: &[Strategy]) -> Result<CaseReport, SetupError> {
    let run = |strategy: &Strategy| run(&case.setup, *strategy).map(|outcome| outcome.score);
    let scores: Vec<Score> = strategies.iter().map(run).collect::<Result<_, _>>()?;
    let of = |strategy| scores.iter().find(|score| score.strategy == strategy);
    let (equal_service, aims) = match (of(Strategy::Tidepool), of(Strategy::Incumbent)) {
        (Some(ours), Some(theirs)) => {
            let equal_service = EqualService::find(&case.setup, ours)?;
            let aims = aims(ours, theirs, equal_service.as_ref());
            (equal_service, aims)
        }
        _ => (None, Vec::new()),
    };
    let clairvoyant = Clairvoyant::find(&case.setup, &scores)?;
    Ok(CaseReport { policy: case.policy.clone(), scores, equal_service, clairvoyant, aims })
}

/// The aims that can be computed: a daemon that serves no pod has no figures per pod.
fn aims(ours: &Score, theirs: &Score, equal: Option<&EqualService>) -> Vec<Aim> {
    let seconds = |ms| share(ms, 1000);
    let (wait, their_wait) = (seconds(ours.wait_ms.p99), seconds(theirs.wait_ms.p99));
    let mut aims = vec![Aim::new("p99 wait", wait, their_wait, 1.0 / 3.0)];
    let idle = ours.idle.mean_per_pod;
    if theirs.pods.served > 0 {
        aims.push(Aim::new("idle/pod", idle, theirs.idle.mean_per_pod, 0.5));
    }
    if let Some(equal) = equal.filter(|equal| equal.is_enough) {
        let their_idle = equal.score.idle.mean_per_pod;
        aims.push(Aim::new("idle/pod at equal service", idle, their_idle, 0.5));
    }
    if theirs.pods.served > 0 {
        let (calls, their_calls) = (ours.mutating_calls_per_pod, theirs.mutating_calls_per_pod);
        aims.push(Aim::new("mutating/pod", calls, their_calls, 0.5));
    }
    if let (Some(bound), Some(last)) = (ours.bound_ms.filter(|ms| *ms > 0), ours.last_pod_ms) {
        // A pod that still waits has no last address.
        let last = if ours.pods.waiting == 0 { seconds(last) } else { f64::INFINITY };
        aims.push(Aim::new("last pod to the bound", last, seconds(bound), 1.2));
    }
    aims
}
