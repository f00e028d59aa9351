//! Loads as clusters have them.

use std::time::Duration;

use super::{Action, Step, Trace};
use crate::chance::Chance;

/// The stream of chance that arrivals come from.
const ARRIVALS: u64 = 1;

fn step(at: Duration, action: Action) -> Step {
    Step { at, action }
}

/// All at once, and they stay.
#[must_use]
pub fn burst(pods: u32) -> Trace {
    vec![step(Duration::ZERO, Action::Create { pods, life: None })]
}

/// One pod every `gap` for `span`, each for `life`.
#[must_use]
pub fn one_per(gap: Duration, span: Duration, life: Duration) -> Trace {
    let create = |at| step(at, Action::Create { pods: 1, life: Some(life) });
    let times = std::iter::successors(Some(Duration::ZERO), |at| Some(*at + gap));
    times.take_while(|at| *at < span).map(create).collect()
}

/// `standing` pods from the start, then pods that come by chance, one every `gap` on average, and
/// live for `life` on average.
#[must_use]
pub fn churn(standing: u32, gap: Duration, life: Duration, span: Duration, seed: u64) -> Trace {
    let mut chance = Chance::new(seed, ARRIVALS);
    let mut trace = burst(standing);
    let mut at = chance.gap(gap);
    while at < span {
        let life = Some(chance.gap(life));
        trace.push(step(at, Action::Create { pods: 1, life }));
        at += chance.gap(gap);
    }
    trace
}

/// Every `period` a job of `pods` pods, each of which runs for `life` and up to half of it more.
#[must_use]
pub fn batch_jobs(pods: u32, life: Duration, period: Duration, span: Duration, seed: u64) -> Trace {
    let mut chance = Chance::new(seed, ARRIVALS);
    let starts = std::iter::successors(Some(Duration::ZERO), |at| Some(*at + period));
    let mut trace = Trace::new();
    for at in starts.take_while(|at| *at < span) {
        for _ in 0..pods {
            let life = Some(chance.jittered(life, 0.5));
            trace.push(step(at, Action::Create { pods: 1, life }));
        }
    }
    trace
}

/// `pods` pods that are all replaced every `period`, a quarter of them at a time.
#[must_use]
pub fn rolling_deployment(pods: u32, period: Duration, times: u32) -> Trace {
    let mut trace = burst(pods);
    let roll = |n| step(period * n, Action::Roll { surge: pods.div_ceil(4) });
    trace.extend((1..=times).map(roll));
    trace
}

/// `pods` pods of which all but `left` go after `after`.
#[must_use]
pub fn scale_in(pods: u32, left: u32, after: Duration) -> Trace {
    let mut trace = burst(pods);
    trace.push(step(after, Action::Delete { pods: pods.saturating_sub(left) }));
    trace
}

/// `nodes` nodes, and the pods for which they were started, at the same time.
#[must_use]
pub fn joining(nodes: u32, pods: u32) -> Trace {
    let mut trace = vec![step(Duration::ZERO, Action::Join { nodes })];
    trace.extend(burst(pods));
    trace
}

/// `pods` pods; then, every `period`, a node comes and the oldest goes a minute later.
#[must_use]
pub fn node_replacement(pods: u32, nodes: u32, period: Duration) -> Trace {
    let mut trace = burst(pods);
    for n in 1..=nodes {
        trace.push(step(period * n, Action::Join { nodes: 1 }));
        let drained_at = period * n + Duration::from_secs(60);
        trace.push(step(drained_at, Action::Drain { nodes: 1 }));
    }
    trace.sort_by_key(|step| step.at);
    trace
}
