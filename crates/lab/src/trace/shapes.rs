//! Typical loads of clusters.

use std::time::Duration;

use ec2_model::Rng;

use super::{Trace, TraceAction, TraceStep};

/// The number of the random stream for arrivals.
const ARRIVALS: u64 = 1;

fn step(at: Duration, action: TraceAction) -> TraceStep {
    TraceStep { at, action }
}

/// `pods` pods at once. They stay.
#[must_use]
pub fn burst(pods: u32) -> Trace {
    vec![step(Duration::ZERO, TraceAction::Create { pods, life: None })]
}

/// One pod every `gap` for `span`. Each lives for `life`.
#[must_use]
pub fn one_per(gap: Duration, span: Duration, life: Duration) -> Trace {
    let create = |at| step(at, TraceAction::Create { pods: 1, life: Some(life) });
    let times = std::iter::successors(Some(Duration::ZERO), |at| Some(*at + gap));
    times.take_while(|at| *at < span).map(create).collect()
}

/// `standing` pods from the start, then pods at random times, one every `gap` on average. Each of
/// these lives for `life` on average.
#[must_use]
pub fn churn(standing: u32, gap: Duration, life: Duration, span: Duration, seed: u64) -> Trace {
    let mut rng = Rng::with_stream(seed, ARRIVALS);
    let mut trace = burst(standing);
    let mut at = rng.exponential(gap);
    while at < span {
        let life = Some(rng.exponential(life));
        trace.push(step(at, TraceAction::Create { pods: 1, life }));
        at += rng.exponential(gap);
    }
    trace
}

/// Pods at random times for `span`, at `at`'s time `rate(at)` a second on average, which is never
/// above `most`. Each lives for `life` on average.
#[must_use]
pub fn varying(
    rate: impl Fn(Duration) -> f64,
    most: f64,
    life: Duration,
    span: Duration,
    seed: u64,
) -> Trace {
    let mut rng = Rng::with_stream(seed, ARRIVALS);
    let gap = Duration::from_secs_f64(1.0 / most);
    let mut trace = Trace::new();
    let mut at = rng.exponential(gap);
    while at < span {
        // Thinning: of arrivals at the highest rate, so many are kept.
        let is_kept = rng.unit() * most < rate(at);
        let life = Some(rng.exponential(life));
        if is_kept {
            trace.push(step(at, TraceAction::Create { pods: 1, life }));
        }
        at += rng.exponential(gap);
    }
    trace
}

/// Batches of pods at random times for `span`, one every `gap` on average. Most are of a few pods
/// that live for seconds. Few are large or live for hours.
///
/// Sizes and lives have Pareto distributions with the exponents 1.5 and 1.1, up to 100 pods and two
/// hours. The exponents are chosen here; no trace of a real cluster was fitted.
#[must_use]
pub fn heavy_tailed(gap: Duration, span: Duration, seed: u64) -> Trace {
    let mut rng = Rng::with_stream(seed, ARRIVALS);
    let mut pareto = |least: f64, exponent: f64, most: f64| {
        (least * (1.0 - rng.unit()).powf(-1.0 / exponent)).min(most)
    };
    let mut trace = Trace::new();
    let mut at = Duration::ZERO;
    loop {
        let size = pareto(1.0, 1.5, 100.0);
        let n_pods = (1..=100).rev().find(|n| f64::from(*n) <= size).unwrap_or(1);
        for _ in 0..n_pods {
            let life = Some(Duration::from_secs_f64(pareto(5.0, 1.1, 7_200.0)));
            trace.push(step(at, TraceAction::Create { pods: 1, life }));
        }
        // The mean of this distribution is 1.
        at += gap.mul_f64(pareto(0.5, 2.0, 20.0));
        if at >= span {
            return trace;
        }
    }
}

/// Every `period` a job of `pods` pods. Each pod runs for `life` and up to half of it more.
#[must_use]
pub fn batch_jobs(pods: u32, life: Duration, period: Duration, span: Duration, seed: u64) -> Trace {
    let mut rng = Rng::with_stream(seed, ARRIVALS);
    let starts = std::iter::successors(Some(Duration::ZERO), |at| Some(*at + period));
    let mut trace = Trace::new();
    for at in starts.take_while(|at| *at < span) {
        for _ in 0..pods {
            let life = Some(rng.jittered(life, 0.5));
            trace.push(step(at, TraceAction::Create { pods: 1, life }));
        }
    }
    trace
}

/// `pods` pods that are replaced every `period`, a quarter of them at a time.
#[must_use]
pub fn rolling_deployment(pods: u32, period: Duration, times: u32) -> Trace {
    let mut trace = burst(pods);
    let roll = |n| step(period * n, TraceAction::Roll { surge: pods.div_ceil(4) });
    trace.extend((1..=times).map(roll));
    trace
}

/// `pods` pods. All but `left` are deleted after `after`.
#[must_use]
pub fn scale_in(pods: u32, left: u32, after: Duration) -> Trace {
    let mut trace = burst(pods);
    trace.push(step(after, TraceAction::Delete { pods: pods.saturating_sub(left) }));
    trace
}

/// `nodes` nodes, and at the same time the pods that they are started for.
#[must_use]
pub fn joining(nodes: u32, pods: u32) -> Trace {
    let mut trace = vec![step(Duration::ZERO, TraceAction::Join { nodes })];
    trace.extend(burst(pods));
    trace
}

/// `pods` pods. Then every `period` a node joins, and the oldest is drained a minute later.
#[must_use]
pub fn node_replacement(pods: u32, nodes: u32, period: Duration) -> Trace {
    let mut trace = burst(pods);
    for n in 1..=nodes {
        trace.push(step(period * n, TraceAction::Join { nodes: 1 }));
        let drained_at = period * n + Duration::from_secs(60);
        trace.push(step(drained_at, TraceAction::Drain { nodes: 1 }));
    }
    trace.sort_by_key(|step| step.at);
    trace
}
