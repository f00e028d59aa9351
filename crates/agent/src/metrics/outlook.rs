//! When addresses run out if their use goes on as it has. The estimate is a straight line through samples of the past.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipam::block::Family;
use ipam::id::SubnetId;
use ipam::time::Timestamp;
use ipam::view::PoolView;

use crate::handle::Handle;

/// The pause between two samples of the node.
const EVERY: Duration = Duration::from_secs(15);
/// How far back samples of the node count. Pods come in bursts, which a shorter time would take for a trend.
const NODE_WINDOW: Duration = Duration::from_secs(30 * 60);
/// How far back EC2's answers count. A node at rest asks EC2 once in twenty hours.
const SUBNET_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// Samples closer together than this show no trend.
const LEAST_SPAN: Duration = Duration::from_secs(60);
/// The most samples that are kept: one every 15 s for half an hour.
const MOST: usize = 120;

/// The trends of the node and of its subnets.
#[derive(Debug, Default)]
pub(crate) struct Outlook(Mutex<Trends>);

#[derive(Debug, Default)]
struct Trends {
    node: Trend,
    subnets: BTreeMap<SubnetId, Trend>,
}

/// How long until addresses run out; `None` while their number does not fall.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Exhaustion {
    pub(super) node: Option<Duration>,
    pub(super) subnets: BTreeMap<SubnetId, Duration>,
}

impl Outlook {
    /// Takes samples until the loop has ended.
    pub(crate) async fn follow(self: Arc<Self>, handle: Handle) -> anyhow::Result<()> {
        loop {
            self.sample(&handle.view().await?, handle.now());
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Adds a sample of the node, and of each subnet that EC2 has described anew.
    fn sample(&self, view: &PoolView, now: Timestamp) {
        let mut trends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A node on IPv6 never runs out.
        if view.kind.family() == Family::V4 {
            let left = view.capacity.addresses.saturating_sub(view.counts.assigned);
            trends.node.add(now, left, NODE_WINDOW);
        }
        trends.subnets.retain(|subnet, _| view.subnets.contains_key(subnet));
        for (subnet, seen) in &view.subnets {
            let trend = trends.subnets.entry(subnet.clone()).or_default();
            trend.add(seen.described_at, seen.described.into(), SUBNET_WINDOW);
        }
    }

    /// By the samples so far, seen from `now`.
    pub(super) fn exhaustion(&self, now: Timestamp) -> Exhaustion {
        let trends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let subnets = trends.subnets.iter();
        Exhaustion {
            node: trends.node.reaches_zero_in(now),
            subnets: subnets
                .filter_map(|(subnet, trend)| Some((subnet.clone(), trend.reaches_zero_in(now)?)))
                .collect(),
        }
    }
}

/// A number over time. Its samples ascend by time.
#[derive(Debug, Default)]
struct Trend(VecDeque<(Timestamp, u64)>);

impl Trend {
    /// Adds a sample, and drops those that are older than `window`. A second sample of one moment has no effect.
    fn add(&mut self, at: Timestamp, value: u64, window: Duration) {
        if self.0.back().is_some_and(|(last, _)| *last >= at) {
            return;
        }
        self.0.push_back((at, value));
        while self.0.len() > MOST || self.0.front().is_some_and(|(first, _)| *first + window < at) {
            self.0.pop_front();
        }
    }

    /// When a straight line through the samples reaches 0, by least squares. The line's slope counts from the last
    /// sample, which is nearer to the truth than the line.
    fn reaches_zero_in(&self, now: Timestamp) -> Option<Duration> {
        let ((first, _), (last, value)) = (*self.0.front()?, *self.0.back()?);
        if last.since(first) < LEAST_SPAN {
            return None;
        }
        let points = || self.0.iter().map(|(at, n)| (at.since(first).as_secs_f64(), float(*n)));
        let n = float(self.0.len() as u64);
        let mean = |sum: f64| sum / n;
        let (mean_x, mean_y) =
            (mean(points().map(|(x, _)| x).sum()), mean(points().map(|(_, y)| y).sum()));
        let covariance: f64 = points().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let variance: f64 = points().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let slope = covariance / variance;
        if slope >= 0.0 {
            return None;
        }
        let from_last = Duration::try_from_secs_f64(float(value) / -slope).ok()?;
        Some(from_last.saturating_sub(now.since(last)))
    }
}

/// Counts of addresses are far below 2^53, up to which floats are exact.
fn float(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::samples::view;

    fn check(samples: &[(u64, u64)], now: u64, expect: Option<u64>) {
        let mut trend = Trend::default();
        for (at, value) in samples {
            trend.add(Timestamp::from_millis(at * 1000), *value, NODE_WINDOW);
        }
        let found = trend.reaches_zero_in(Timestamp::from_millis(now * 1000));
        assert_eq!(found.map(|span| span.as_secs()), expect, "{samples:?}");
    }

    #[test]
    fn falling_number_reaches_zero_at_its_rate() {
        check(&[(0, 100), (60, 90)], 60, Some(540));
        check(&[(0, 100), (60, 90)], 100, Some(500));
        check(&[(0, 100), (30, 99), (60, 90), (90, 85)], 90, Some(472));
        check(&[(0, 10), (60, 0)], 60, Some(0));
        check(&[(0, 10), (60, 0)], 9_000, Some(0));
    }

    #[test]
    fn number_that_does_not_fall_has_no_end() {
        check(&[], 0, None);
        check(&[(0, 100)], 0, None);
        check(&[(0, 100), (60, 100)], 60, None);
        check(&[(0, 100), (60, 110)], 60, None);
        // Ups and downs without a direction.
        check(&[(0, 100), (60, 40), (120, 100), (180, 40), (240, 100)], 240, None);
        // A burst within a minute is no trend yet.
        check(&[(0, 100), (59, 1)], 59, None);
    }

    #[test]
    fn samples_beyond_the_window_do_not_count() {
        // It fell an hour ago, and has been level since.
        check(&[(0, 100), (60, 50), (3_600, 50), (3_700, 50)], 3_700, None);
        check(&[(60, 50), (60, 10), (120, 50)], 120, None);
        let mut trend = Trend::default();
        for at in 0..1000_u64 {
            trend.add(Timestamp::from_millis(at), 1000 - at, SUBNET_WINDOW);
        }
        assert_eq!(trend.0.len(), MOST);
    }

    #[test]
    fn node_and_subnet_run_out_by_their_own_samples() {
        let outlook = Outlook::default();
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        for (seconds, assigned, described_at, described) in
            [(0, 3, 0, 320), (60, 13, 0, 320), (120, 23, 100, 220), (180, 33, 100, 220)]
        {
            let mut view = view();
            view.counts.assigned = assigned;
            for subnet in view.subnets.values_mut() {
                (subnet.described_at, subnet.described) = (at(described_at), described);
            }
            outlook.sample(&view, at(seconds));
        }
        let Exhaustion { node, subnets } = outlook.exhaustion(at(180));
        // 288 addresses less 33, ten a minute.
        assert_eq!(node.map(|span| span.as_secs()), Some(1530));
        let spans: Vec<_> = subnets.values().map(Duration::as_secs).collect();
        assert_eq!(spans, [140], "220 addresses, one a second, 80 s ago");
    }
}
