//! The points at which tests let the writing of a change end.

use ipam::record::Change;

/// Passes the point of each of `changes`.
pub(super) fn pass_all(place: &str, changes: &[Change]) {
    for change in changes {
        failpoint::pass(place, name(change));
    }
}

/// As the log has it.
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
    }
}
