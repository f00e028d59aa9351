//! The figures of a simulation, recorded while it runs and summed up at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use ec2_model::request::Action;
use ipam::time::Timestamp;
use serde::{Serialize, Serializer};

use crate::bound::Bound;
use crate::cloud::CallCounts;
use crate::run::Strategy;
use crate::yardstick;

/// The most points of a curve.
const POINTS: u32 = 2_000;
const LEAST_SPACING: Duration = Duration::from_secs(1);

/// The figures of one simulation from the start of its trace. All times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// The strategy that ran.
    #[serde(serialize_with = "strategy_name")]
    pub strategy: Strategy,
    /// The pods by outcome.
    pub pods: Pods,
    /// From a pod's creation to its address. Pods deleted before they got one are left out. A pod
    /// that still waits counts with its wait so far.
    pub wait_ms: Wait,
    /// Addresses that nodes hold for pods and no pod has, including those in cooldown.
    pub idle: Idle,
    /// The time of all of these together, in address-seconds. Unlike `idle` it is exact, and counts
    /// moments without pods.
    pub idle_s: f64,
    /// The time of all pods with their addresses, in address-seconds.
    pub pods_s: f64,
    /// The daemons' calls by action.
    pub calls: BTreeMap<&'static str, CallCount>,
    /// Calls, successful or not, per pod that got an address.
    pub calls_per_pod: f64,
    /// The same for calls that change something at EC2.
    pub mutating_calls_per_pod: f64,
    /// The same in total.
    pub mutating_calls: u64,
    /// Adds that failed, by code.
    pub failed_adds: BTreeMap<&'static str, u64>,
    /// From the start of the trace until no node was starting. `None` if no node started.
    pub last_node_ready_ms: Option<u64>,
    /// From the start of the trace to the last address that a pod got.
    pub last_pod_ms: Option<u64>,
    /// The least [`last_pod_ms`](Self::last_pod_ms) that the token buckets allow. Only for traces
    /// of staying pods and joining nodes at time zero.
    pub bound_ms: Option<u64>,
    /// The least mean wait that the token buckets allow, for the same traces.
    pub mean_wait_bound_ms: Option<u64>,
    /// The calls that determine the bound.
    pub bound_calls: BTreeMap<&'static str, u64>,
    /// Addresses that two pods had at once, or that EC2 does not deliver to the pod's node. Always
    /// 0 unless a strategy is broken.
    pub wrong_addresses: u64,
    /// The curves over time.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

impl Score {
    /// Idle addresses and calls that change something together, in address-seconds, if a call costs
    /// `call_price_s` of them.
    #[must_use]
    pub fn cost_s(&self, call_price_s: u64) -> f64 {
        yardstick::cost_s(self.idle_s, self.mutating_calls, call_price_s)
    }
}

/// The pods by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pods {
    /// All pods.
    pub created: u64,
    /// Those that got an address.
    pub served: u64,
    /// Those that were deleted before they got an address.
    pub gave_up: u64,
    /// Those that wait at the end.
    pub waiting: u64,
}

/// How long pods waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names of the quantiles say it all")]
pub struct Wait {
    pub mean: u64,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

/// Idle addresses per running pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Idle {
    /// Total idle time divided by total pod time.
    pub mean_per_pod: f64,
    /// The 95th percentile over samples in which pods ran.
    pub p95_per_pod: f64,
}

/// The calls of one action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CallCount {
    /// Successful calls.
    pub granted: u64,
    /// Calls that EC2 refused for lack of tokens.
    pub throttled: u64,
    /// Other errors.
    pub refused: u64,
}

impl CallCount {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.granted + self.throttled + self.refused
    }
}

/// One point of the curves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Time since the start of the trace.
    pub at_ms: u64,
    /// Addresses that all nodes hold for pods.
    pub held: u64,
    /// Pods with an address.
    pub running: u64,
    /// Pods without an address.
    pub waiting: u64,
}

/// Figures recorded so far.
#[derive(Debug)]
pub(crate) struct Tally {
    start: Timestamp,
    pods: Pods,
    n_running: u64,
    idle_ms: u64,
    pods_ms: u64,
    waits: Vec<Duration>,
    failed_adds: BTreeMap<&'static str, u64>,
    last_node_ready: Option<Timestamp>,
    last_pod: Option<Timestamp>,
    n_wrong: u64,
    samples: Vec<Sample>,
}

impl Tally {
    pub(crate) fn new(start: Timestamp) -> Self {
        Self {
            start,
            pods: Pods::default(),
            n_running: 0,
            idle_ms: 0,
            pods_ms: 0,
            waits: Vec::new(),
            failed_adds: BTreeMap::new(),
            last_node_ready: None,
            last_pod: None,
            n_wrong: 0,
            samples: Vec::new(),
        }
    }

    /// The time between two points of the curves, for a simulation of this length.
    pub(crate) fn spacing(lasts: Duration) -> Duration {
        LEAST_SPACING.max(lasts / POINTS)
    }

    /// From `then` to `now` nothing changed, and nodes held `held` addresses.
    pub(crate) fn pass_time(&mut self, then: Timestamp, now: Timestamp, held: u64) {
        let span = millis(now.since(then.max(self.start)));
        self.idle_ms += held.saturating_sub(self.n_running) * span;
        self.pods_ms += self.n_running * span;
    }

    pub(crate) fn pod_created(&mut self) {
        self.pods.created += 1;
    }

    pub(crate) fn pod_runs(&mut self, created: Timestamp, now: Timestamp) {
        self.pods.served += 1;
        self.n_running += 1;
        self.waits.push(now.since(created));
        self.last_pod = Some(now);
    }

    pub(crate) fn pod_ends(&mut self) {
        self.n_running -= 1;
    }

    pub(crate) fn pod_gave_up(&mut self) {
        self.pods.gave_up += 1;
    }

    pub(crate) fn add_failed(&mut self, code: &'static str) {
        *self.failed_adds.entry(code).or_default() += 1;
    }

    pub(crate) fn address_wrong(&mut self) {
        self.n_wrong += 1;
    }

    pub(crate) fn node_ready(&mut self, now: Timestamp) {
        self.last_node_ready = Some(now).filter(|now| *now >= self.start);
    }

    pub(crate) fn sample(&mut self, now: Timestamp, held: u64) {
        let Pods { created, served, gave_up, .. } = self.pods;
        self.samples.push(Sample {
            at_ms: millis(now.since(self.start)),
            held,
            running: self.n_running,
            waiting: created - served - gave_up,
        });
    }

    /// The final score. `waiting` has the creation times of the pods that still wait.
    pub(crate) fn finish(
        mut self,
        strategy: Strategy,
        calls: &BTreeMap<Action, CallCounts>,
        bound: Option<Bound>,
        waiting: &[Timestamp],
        end: Timestamp,
    ) -> Score {
        self.waits.extend(waiting.iter().map(|created| end.since(*created)));
        self.waits.sort_unstable();
        let n_waiting = u64::try_from(waiting.len()).expect("usize is at most 64 bits wide");
        let calls: BTreeMap<_, _> = calls.iter().map(|(action, ends)| (*action, *ends)).collect();
        let n_calls = |only: fn(Action) -> bool| {
            let counted = calls.iter().filter(|(action, _)| only(**action));
            counted.map(|(_, ends)| count(*ends).total()).sum::<u64>()
        };
        let since_start = |at: Timestamp| millis(at.since(self.start));
        Score {
            strategy,
            pods: Pods { waiting: n_waiting, ..self.pods },
            wait_ms: Wait {
                mean: mean(&self.waits),
                p50: millis(quantile(&self.waits, 50)),
                p99: millis(quantile(&self.waits, 99)),
                max: millis(quantile(&self.waits, 100)),
            },
            idle: idle(&self.samples),
            idle_s: share(self.idle_ms, 1000),
            pods_s: share(self.pods_ms, 1000),
            calls_per_pod: share(n_calls(|_| true), self.pods.served),
            mutating_calls_per_pod: share(n_calls(is_mutating), self.pods.served),
            mutating_calls: n_calls(is_mutating),
            calls: calls.iter().map(|(action, ends)| (action.as_str(), count(*ends))).collect(),
            failed_adds: self.failed_adds,
            last_node_ready_ms: self.last_node_ready.map(since_start),
            last_pod_ms: self.last_pod.map(since_start),
            bound_ms: bound.as_ref().map(|bound| millis(bound.at_best)),
            mean_wait_bound_ms: bound.as_ref().map(|bound| millis(bound.mean_wait)),
            bound_calls: bound.map(calls_of).unwrap_or_default(),
            wrong_addresses: self.n_wrong,
            samples: self.samples,
        }
    }
}

fn calls_of(bound: Bound) -> BTreeMap<&'static str, u64> {
    bound.calls.into_iter().map(|(action, n)| (action.as_str(), n)).collect()
}

fn count(ends: CallCounts) -> CallCount {
    let CallCounts { granted, throttled, refused } = ends;
    CallCount { granted, throttled, refused }
}

fn is_mutating(action: Action) -> bool {
    !action.as_str().starts_with("Describe") && !action.as_str().starts_with("Get")
}

fn idle(samples: &[Sample]) -> Idle {
    let idle = |sample: &Sample| sample.held.saturating_sub(sample.running);
    let all_idle = samples.iter().filter(|sample| sample.running > 0).map(idle).sum();
    let mut ratios: Vec<_> = samples
        .iter()
        .filter(|sample| sample.running > 0)
        .map(|sample| share(idle(sample), sample.running))
        .collect();
    ratios.sort_by(f64::total_cmp);
    Idle {
        mean_per_pod: share(all_idle, samples.iter().map(|sample| sample.running).sum()),
        p95_per_pod: quantile(&ratios, 95),
    }
}

/// In milliseconds. 0 if there are none.
fn mean(spans: &[Duration]) -> u64 {
    let n = u64::try_from(spans.len()).expect("usize is at most 64 bits wide");
    spans.iter().map(|span| millis(*span)).sum::<u64>() / n.max(1)
}

/// The least of the sorted `values` that `percent` of them do not exceed. The default if there are
/// none.
fn quantile<T: Copy + Default>(values: &[T], percent: usize) -> T {
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or_default()
}

/// 0 if there is nothing to divide by.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    // Exact below 2^53, which no count here reaches.
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn strategy_name<S: Serializer>(strategy: &Strategy, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(strategy.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_nearest_rank() {
        let values: Vec<u64> = (1..=200).collect();
        let found: Vec<_> = [50, 99, 100].map(|percent| quantile(&values, percent)).to_vec();
        assert_eq!(found, [100, 198, 200]);
        assert_eq!((quantile(&[7], 1), quantile::<u64>(&[], 99)), (7, 0));
    }

    #[test]
    fn idle_ignores_samples_without_pods() {
        let sample = |held, running| Sample { at_ms: 0, held, running, waiting: 0 };
        let found = idle(&[sample(16, 0), sample(16, 4), sample(16, 16)]);
        assert_eq!(found, Idle { mean_per_pod: 12.0 / 20.0, p95_per_pod: 3.0 });
    }
}
