//! When the kernel must forget the connections of ended pods. Clients of such a pod must not reach the next
//! pod with the same address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::context::Context;
use crate::event::Effect;
use crate::pool::Pool;
use crate::record::Record;
use crate::time::Timestamp;

/// How long an address rests before its connections are forgotten. Before that, Services may still lead to it.
const AFTER: Duration = Duration::from_secs(10);
/// Forgetting begins this long before the rest ends, so that no connection of the next pod is forgotten.
const BEFORE_END: Duration = Duration::from_secs(5);
/// Forgetting is skipped if less than this is left of the rest.
const TOO_LATE: Duration = Duration::from_millis(2_500);
/// Forgetting costs a pass over all connections of the node, so one pass serves all addresses of this span.
const BETWEEN: Duration = Duration::from_secs(5);

/// The rests for which the kernel has been asked to forget.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections {
    /// Each with the moment of its release.
    done: BTreeSet<(Ipv4Addr, Timestamp)>,
    asked_at: Option<Timestamp>,
}

impl Connections {
    /// Asks the kernel to forget the addresses that are due. No IPv6 address serves twice, so those need nothing.
    pub(super) fn forget(
        &mut self,
        pool: &Pool,
        record: &Record,
        cx: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        let resting = resting(pool, record, cx);
        self.done.retain(|rest| resting.contains(rest));
        if self.next(&resting, cx).is_none_or(|at| at > cx.now) {
            return;
        }
        let due: Vec<_> = self.undone(&resting).filter(|rest| is_due(rest, cx)).copied().collect();
        let end = |since: Timestamp| since + cx.cooldown();
        let in_time = due.iter().filter(|(_, since)| cx.now + TOO_LATE <= end(*since));
        let addresses: BTreeSet<_> = in_time.map(|(address, _)| *address).collect();
        self.done.extend(due);
        if !addresses.is_empty() {
            self.asked_at = Some(cx.now);
            out.push(Effect::ForgetConnections(addresses));
        }
    }

    pub(super) fn wakes_at(
        &self,
        pool: &Pool,
        record: &Record,
        cx: Context<'_>,
    ) -> Option<Timestamp> {
        self.next(&resting(pool, record, cx), cx)
    }

    /// When the kernel is asked next.
    fn next(
        &self,
        resting: &BTreeSet<(Ipv4Addr, Timestamp)>,
        cx: Context<'_>,
    ) -> Option<Timestamp> {
        let earliest = self.undone(resting).filter_map(|(_, since)| due_at(*since, cx)).min()?;
        Some(self.asked_at.map_or(earliest, |at| earliest.max(at + BETWEEN)))
    }

    fn undone<'a>(
        &'a self,
        resting: &'a BTreeSet<(Ipv4Addr, Timestamp)>,
    ) -> impl Iterator<Item = &'a (Ipv4Addr, Timestamp)> {
        resting.difference(&self.done)
    }
}

/// When the connections of an address released at `since` are to be forgotten; `None` if its rest is too
/// short for that.
fn due_at(since: Timestamp, cx: Context<'_>) -> Option<Timestamp> {
    let latest = cx.cooldown().checked_sub(BEFORE_END)?;
    Some(since + latest.min(AFTER))
}

fn is_due(rest: &(Ipv4Addr, Timestamp), cx: Context<'_>) -> bool {
    due_at(rest.1, cx).is_some_and(|at| at <= cx.now)
}

/// The IPv4 addresses that rest on our ENIs, each with the moment of its release. Few rest on a node with many
/// addresses, so they are looked up one by one.
fn resting(pool: &Pool, record: &Record, cx: Context<'_>) -> BTreeSet<(Ipv4Addr, Timestamp)> {
    let rests = record.cooling().iter().filter(|(_, since)| cx.now < **since + cx.cooldown());
    let ours = rests.filter(|(ip, _)| pool.has(**ip) && !pool.quarantine.contains_key(*ip));
    ours.filter_map(|(address, since)| match address {
        IpAddr::V4(address) => Some((*address, *since)),
        IpAddr::V6(_) => None,
    })
    .collect()
}
