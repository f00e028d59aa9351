//! Eventual consistency of the API: what clients do not see yet.

use std::collections::BTreeMap;

use crate::id::EniId;
use crate::response::NetworkInterface;
use crate::time::Timestamp;

/// Which ENIs are shown otherwise than they are, and until when.
#[derive(Debug, Default)]
pub(crate) struct Veils {
    hidden: BTreeMap<EniId, Timestamp>,
    stale: BTreeMap<EniId, (Timestamp, NetworkInterface)>,
}

impl Veils {
    /// Nobody finds this ENI until then.
    pub(crate) fn hide(&mut self, eni: EniId, until: Timestamp) {
        self.hidden.insert(eni, until);
    }

    /// Lists show the ENI as in this picture until then.
    pub(crate) fn keep(&mut self, picture: NetworkInterface, until: Timestamp) {
        self.stale.insert(picture.id.clone(), (until, picture));
    }

    pub(crate) fn hides(&self, eni: &EniId) -> bool {
        self.hidden.contains_key(eni)
    }

    pub(crate) fn picture(&self, eni: &EniId) -> Option<&NetworkInterface> {
        self.stale.get(eni).map(|(_, picture)| picture)
    }

    pub(crate) fn has_pictures(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Drops what is over at `now`.
    pub(crate) fn lift(&mut self, now: Timestamp) {
        self.hidden.retain(|_, until| *until > now);
        self.stale.retain(|_, (until, _)| *until > now);
    }
}
