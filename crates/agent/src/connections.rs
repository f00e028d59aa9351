//! Makes the kernel forget, while an address rests, whom its former pod was connected with: clients
//! that still wait for that pod must not reach the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipam::time::Timestamp;
use ipam::view::PoolView;

use crate::error_chain;

/// From when an address is first seen to rest. Sooner, Services might still lead to it.
const AFTER: Duration = Duration::from_secs(10);
/// Before its rest ends, lest the connections be those of its next pod.
const BEFORE_END: Duration = Duration::from_secs(5);

/// The rests that go on, each with an address and its end.
#[derive(Debug, Default)]
pub(crate) struct Rests(BTreeMap<(Ipv4Addr, Timestamp), Due>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    At(Timestamp),
    /// It has been forgotten, or cannot be in time.
    Past,
}

impl Rests {
    /// Has the kernel forget what is due by now; tells when more is.
    pub(crate) async fn forget(&mut self, view: &PoolView, now: Timestamp) -> Option<Timestamp> {
        let due = self.due(resting(view), now);
        if !due.is_empty() {
            // A thread of its own, for it may take the kernel a tenth of a second.
            let forgetting =
                tokio::task::spawn_blocking(move || match datapath::connections::forget(&due) {
                    Ok(0) => {}
                    Ok(n) => tracing::info!(n, ?due, "forgot connections of pods that have gone"),
                    Err(fault) => tracing::warn!(
                        fault = error_chain(&fault),
                        ?due,
                        "connections of pods that have gone may lead to the next ones",
                    ),
                });
            // It cannot panic, and nothing depends on it.
            let _ = forgetting.await;
        }
        self.next()
    }

    /// Takes note of what rests now; returns what is to be forgotten.
    fn due(&mut self, rests: Vec<(Ipv4Addr, Timestamp)>, now: Timestamp) -> BTreeSet<Ipv4Addr> {
        let mut due = BTreeSet::new();
        let mut known = BTreeMap::new();
        for (address, end) in rests {
            let at = self.0.get(&(address, end)).copied().unwrap_or_else(|| first_due(end, now));
            let is_due = matches!(at, Due::At(at) if at <= now);
            if is_due && now + BEFORE_END / 2 <= end {
                due.insert(address);
            }
            known.insert((address, end), if is_due { Due::Past } else { at });
        }
        self.0 = known;
        due
    }

    fn next(&self) -> Option<Timestamp> {
        let due = self.0.values().filter_map(|due| match due {
            Due::At(at) => Some(*at),
            Due::Past => None,
        });
        due.min()
    }
}

fn first_due(end: Timestamp, now: Timestamp) -> Due {
    let left = end.since(now);
    match left.checked_sub(BEFORE_END) {
        Some(left) => Due::At(now + left.min(AFTER)),
        None => Due::Past,
    }
}

/// What rests, and until when. No IPv6 address serves twice.
fn resting(view: &PoolView) -> Vec<(Ipv4Addr, Timestamp)> {
    let blocks = view.enis.iter().flat_map(|eni| eni.blocks.values());
    let cooling = blocks.flat_map(|block| &block.cooling);
    let v4 = cooling.filter_map(|(address, end)| match address {
        IpAddr::V4(address) => Some((*address, *end)),
        IpAddr::V6(_) => None,
    });
    v4.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 20);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// Looks at `looks` (seconds) while ADDRESS rests until `end`; returns those that forget.
    fn forgotten_at(end: u64, looks: &[u64]) -> Vec<u64> {
        let mut rests = Rests::default();
        let due = |now: &u64| !rests.due(vec![(ADDRESS, at(end))], at(*now)).is_empty();
        looks.iter().copied().filter(due).collect()
    }

    #[test]
    fn each_rest_is_used_once_and_never_at_its_end() {
        for (end, looks, expect) in [
            // By the rest of 30 s that is usual.
            (30, vec![2, 12, 20], vec![12]),
            (30, vec![2, 11, 20, 25], vec![20]),
            // Seen late, it is done as late as may be.
            (30, vec![23, 25], vec![25]),
            // Too late, or too short a rest.
            (30, vec![26, 27, 29], vec![]),
            (30, vec![2, 29], vec![]),
            (4, vec![0, 1, 2], vec![]),
        ] {
            assert_eq!(forgotten_at(end, &looks), expect, "{looks:?} until {end}");
        }
    }

    #[test]
    fn a_rest_tells_when_to_look_again_until_it_is_used() {
        let mut rests = Rests::default();
        rests.due(vec![(ADDRESS, at(30))], at(2));
        assert_eq!(rests.next(), Some(at(12)));
        rests.due(vec![(ADDRESS, at(30))], at(12));
        assert_eq!(rests.next(), None);
        // The same address rests again.
        rests.due(vec![(ADDRESS, at(90))], at(60));
        assert_eq!(rests.next(), Some(at(70)));
        rests.due(vec![], at(61));
        assert_eq!(rests.next(), None);
    }
}
