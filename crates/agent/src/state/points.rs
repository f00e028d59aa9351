//! The points at which tests kill the daemon while it writes a change.

use ipam::record::Change;

/// Passes the point of each of `changes`.
pub(super) fn pass_all(place: &str, changes: &[Change]) {
    for change in changes {
        failpoint::pass(place, name(change));
    }
}

/// The name of the change in the log.
fn name(change: &Change) -> &'static str {
    match change {
        Change::Assigned { .. } => "assigned",
        Change::Released { .. } => "released",
        Change::Resting { .. } => "resting",
        Change::Rested { .. } => "rested",
        Change::Intended { .. } => "intended",
        Change::Settled { .. } => "settled",
        Change::Booted { .. } => "booted",
        Change::EniKnown(_) => "eni_known",
        Change::EniForgotten { .. } => "eni_forgotten",
        Change::VpcRanges { .. } => "vpc_ranges",
        Change::Delegated { .. } => "delegated",
    }
}
