//! When pods have asked for addresses lately. From this follows how many may ask before a resting address serves.
//!
//! It is not on record. After a start the future is unknown for as long as the memory lasts.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// A load that has been quiet for so long is expected to stay quiet for one cooldown.
const MEMORY: Duration = Duration::from_secs(600);
/// No node has more pods. If more have asked, the future is unknown.
const MOST: usize = 1_000;

/// The times of the last Adds, and since when they are noted.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    noted_since: Timestamp,
    at: VecDeque<Timestamp>,
}

impl Arrivals {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { noted_since: now, at: VecDeque::new() }
    }

    /// An Add has come.
    pub(super) fn note(&mut self, now: Timestamp) {
        while self.at.front().is_some_and(|at| *at + MEMORY <= now) {
            self.at.pop_front();
        }
        self.at.push_back(now);
        if self.at.len() > MOST {
            self.at.pop_front();
            self.noted_since = now;
        }
    }

    /// The most Adds that have come within `span` of each other; `None` while too little is known.
    /// Cost: one pass over the Adds of the last ten minutes.
    pub(super) fn most_within(&self, span: Duration, now: Timestamp) -> Option<usize> {
        if self.noted_since + MEMORY > now {
            return None;
        }
        let recent = || self.at.iter().skip_while(|at| **at + MEMORY <= now);
        let mut first = recent();
        let mut oldest = first.next();
        let (mut n, mut most) = (0, 0);
        for at in recent() {
            n += 1;
            while oldest.is_some_and(|oldest| *oldest + span < *at) {
                oldest = first.next();
                n -= 1;
            }
            most = most.max(n);
        }
        Some(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    #[test]
    fn most_adds_within_a_span_are_counted() {
        let check = |adds: &[u64], now, expect| {
            let mut arrivals = Arrivals::new(at(0));
            adds.iter().for_each(|second| arrivals.note(at(*second)));
            let found = arrivals.most_within(Duration::from_secs(30), at(now));
            assert_eq!(found, expect, "{adds:?} at {now}");
        };
        check(&[], 599, None);
        check(&[], 600, Some(0));
        check(&[10, 20, 40, 100, 130], 600, Some(3));
        check(&[10, 20, 41, 100, 131], 600, Some(2));
        check(&[10, 20, 40, 100, 130], 615, Some(2));
        check(&[10, 20, 40, 100, 130], 1_000, Some(0));
    }

    #[test]
    fn too_many_adds_make_the_future_unknown() {
        let mut arrivals = Arrivals::new(at(0));
        (0..=MOST).for_each(|_| arrivals.note(at(700)));
        assert_eq!(arrivals.most_within(Duration::from_secs(30), at(701)), None);
    }
}
