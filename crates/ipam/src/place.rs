//! Where an ENI is on its instance. Several network cards have the same device indexes, so an index alone names no
//! place.

use crate::call::EniAttachment;

/// A network card, and a device index on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) card: u16,
    pub(crate) index: u16,
}

impl Place {
    /// Where the primary ENI is on nearly all instances. The main route table belongs to this place.
    pub(crate) const FIRST: Self = Self::on_our_card(0);

    /// A place on the only card to which the daemon attaches ENIs.
    pub(crate) const fn on_our_card(index: u16) -> Self {
        Self { card: 0, index }
    }

    /// Whether an ENI there takes a place that the daemon could use.
    pub(crate) fn is_on_our_card(self) -> bool {
        self.card == Self::FIRST.card
    }
}

impl From<&EniAttachment> for Place {
    fn from(attachment: &EniAttachment) -> Self {
        Self { card: attachment.network_card, index: attachment.device_index }
    }
}
