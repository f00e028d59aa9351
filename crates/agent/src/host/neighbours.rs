//! The kernel's limits of neighbours: raised if they are too low for the node, or named.

use std::collections::BTreeSet;

use datapath::neighbour_limits::{self, NeighbourLimits, Neighbours};
use ipam::block::Family;

use super::Reports;
use crate::error_chain;

/// The code of the line in `ipamd status` while a limit is too low.
const CODE: &str = "NEIGHBOUR_LIMITS";

/// Checks the limits for `n` neighbours of each family. `was_ready`: a limit that is raised now had been lowered by
/// another program. Returns the fault as of now, to be handed in as `before` the next time. A fault keeps no pod from
/// the network yet.
pub(super) fn ensure(
    (families, n): (&BTreeSet<Family>, u32),
    limits: NeighbourLimits,
    before: Option<String>,
    was_ready: bool,
    reports: &Reports,
) -> Option<String> {
    let ensure = |family: &Family| neighbour_limits::ensure(of(*family), n, limits);
    let outcomes: Vec<_> = families.iter().map(ensure).collect();
    let raised: Vec<_> = outcomes.iter().flatten().flatten().collect();
    for limit in &raised {
        tracing::info!(%limit, "raised a limit of the kernel's neighbours");
    }
    if was_ready && !raised.is_empty() {
        reports.repairs.count("neighbours");
    }
    let Some(error) = outcomes.into_iter().find_map(Result::err) else {
        reports.notes.settle(CODE);
        return None;
    };
    let fault = error_chain(&error);
    let line = format!(
        "the kernel drops packets to new neighbours beyond a limit that is too low for the primary ENI's subnet and \
         the node's pods; raise it: {fault}"
    );
    if before.as_ref() != Some(&fault) {
        tracing::warn!("{line}");
    }
    reports.notes.say(CODE, line);
    Some(fault)
}

fn of(family: Family) -> Neighbours {
    match family {
        Family::V4 => Neighbours::Arp,
        Family::V6 => Neighbours::Ndp,
    }
}
