//! When the kernel must forget the connections of ended pods. Clients of such a pod must not reach the next
//! pod with the same address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::context::Context;
use crate::event::Effect;
use crate::node_local::is_node_local;
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
    done: BTreeSet<(IpAddr, Timestamp)>,
    asked_at: Option<Timestamp>,
    /// As of the last event.
    next_at: Option<Timestamp>,
}

impl Connections {
    /// Asks the kernel to forget the addresses that are due. No IPv6 address of the VPC serves twice, so those need nothing.
    pub(super) fn forget(
        &mut self,
        pool: &Pool,
        record: &Record,
        cx: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        self.next_at = self.next(pool, record, cx);
        if self.next_at.is_none_or(|at| at > cx.now) {
            return;
        }
        let is_due = |since| due_at(since, cx).is_some_and(|at| at <= cx.now);
        let due = resting(record, cx).filter(|rest| is_due(rest.1) && is_ours(rest.0, pool));
        let due: BTreeSet<_> = due.collect();
        let in_time = |since: Timestamp| cx.now + TOO_LATE <= since + cx.cooldown();
        let undone = due.difference(&self.done).filter(|(_, since)| in_time(*since));
        let addresses: BTreeSet<_> = undone.map(|(address, _)| *address).collect();
        self.done = due;
        if !addresses.is_empty() {
            self.asked_at = Some(cx.now);
            out.push(Effect::ForgetConnections(addresses));
        }
        self.next_at = self.next(pool, record, cx);
    }

    /// When the kernel is asked next.
    pub(super) fn wakes_at(&self) -> Option<Timestamp> {
        self.next_at
    }

    /// When the kernel is asked next. Every event needs this, so the cheap comparisons come first.
    fn next(&self, pool: &Pool, record: &Record, cx: Context<'_>) -> Option<Timestamp> {
        let mut earliest = None;
        for rest @ (address, since) in resting(record, cx) {
            let is_earlier = earliest.is_none_or(|at| since < at);
            if is_earlier && !self.done.contains(&rest) && is_ours(address, pool) {
                earliest = Some(since);
            }
        }
        let due_at = due_at(earliest?, cx)?;
        Some(self.asked_at.map_or(due_at, |at| due_at.max(at + BETWEEN)))
    }
}

/// When the connections of an address released at `since` are to be forgotten; `None` if its rest is too
/// short for that.
fn due_at(since: Timestamp, cx: Context<'_>) -> Option<Timestamp> {
    let latest = cx.cooldown().checked_sub(BEFORE_END)?;
    Some(since + latest.min(AFTER))
}

/// The addresses that rest and may serve twice, each with the moment of its release.
fn resting(record: &Record, cx: Context<'_>) -> impl Iterator<Item = (IpAddr, Timestamp)> {
    let rests = record.cooling().iter().filter(move |(_, since)| cx.now < **since + cx.cooldown());
    let may_recur = |address: IpAddr| address.is_ipv4() || is_node_local(address);
    rests.map(|(address, since)| (*address, *since)).filter(move |rest| may_recur(rest.0))
}

/// Whether the connections of `address` are the node's to forget. An address that is on none of its ENIs may serve
/// a pod of another node, and a quarantined one a pod of this node.
fn is_ours(address: IpAddr, pool: &Pool) -> bool {
    (is_node_local(address) || pool.has(address)) && !pool.quarantine.contains_key(&address)
}
