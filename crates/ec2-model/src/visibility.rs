//! Eventual consistency of the API: new ENIs that it hides, and changes that it shows late.

use std::collections::BTreeMap;

use crate::id::EniId;
use crate::response::NetworkInterface;
use crate::time::SimTime;

/// The ENIs that the API shows late, each with the time when that ends.
#[derive(Debug, Default)]
pub(crate) struct Visibility {
    hidden: BTreeMap<EniId, SimTime>,
    stale: BTreeMap<EniId, (SimTime, NetworkInterface)>,
}

impl Visibility {
    /// Every call answers NotFound for this ENI until `until`.
    pub(crate) fn hide(&mut self, eni: EniId, until: SimTime) {
        self.hidden.insert(eni, until);
    }

    /// Describe calls show the ENI as in `snapshot` until `until`.
    pub(crate) fn show_stale(&mut self, snapshot: NetworkInterface, until: SimTime) {
        self.stale.insert(snapshot.id.clone(), (until, snapshot));
    }

    pub(crate) fn is_hidden(&self, eni: &EniId) -> bool {
        self.hidden.contains_key(eni)
    }

    pub(crate) fn stale_snapshot(&self, eni: &EniId) -> Option<&NetworkInterface> {
        self.stale.get(eni).map(|(_, snapshot)| snapshot)
    }

    pub(crate) fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Drops what ended by `now`.
    pub(crate) fn expire(&mut self, now: SimTime) {
        self.hidden.retain(|_, until| *until > now);
        self.stale.retain(|_, (until, _)| *until > now);
    }
}
