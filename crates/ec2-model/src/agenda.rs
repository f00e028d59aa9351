//! What will happen of itself, in order of time.

use std::collections::BTreeMap;

use crate::id::{AttachmentId, EniId, InstanceId, VpcCidrAssociationId, VpcId};
use crate::time::Timestamp;

/// One change that is due. What it concerns may be gone by then; then nothing happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    /// A new ENI is no longer pending.
    EniAvailable(EniId),
    /// An attachment is complete.
    Attached(AttachmentId),
    /// An attachment ends.
    Detached(AttachmentId),
    /// A block of a VPC can be used.
    Associated(VpcId, VpcCidrAssociationId),
    /// An instance is up.
    Running(InstanceId),
    /// An instance is down.
    Terminated(InstanceId),
    /// An instance is no longer shown.
    Forgotten(InstanceId),
    /// IMDS sees which ENIs there are.
    ShowInterface(InstanceId, EniId),
    /// IMDS sees the addresses and groups of an ENI.
    ShowAddresses(InstanceId, EniId),
}

/// Changes in the order in which they are due; of those due at once, in the order of entry.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    due: BTreeMap<(Timestamp, u64), Due>,
    n_entered: u64,
}

impl Agenda {
    pub(crate) fn enter(&mut self, at: Timestamp, due: Due) {
        self.n_entered += 1;
        self.due.insert((at, self.n_entered), due);
    }

    /// The next change that is due at `now`, and when it was.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, Due)> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((at, _), due) = entry.remove_entry();
        Some((at, due))
    }

    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        self.due.keys().next().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_of_time_then_of_entry() {
        let mut agenda = Agenda::default();
        let at = Timestamp::from_unix_millis;
        let due = |number| Due::Running(InstanceId::from_number(number));
        agenda.enter(at(20), due(1));
        agenda.enter(at(10), due(2));
        agenda.enter(at(10), due(3));
        assert_eq!(agenda.next_at(), Some(at(10)));
        assert_eq!(agenda.pop(at(9)), None);
        assert_eq!(agenda.pop(at(15)), Some((at(10), due(2))));
        assert_eq!(agenda.pop(at(15)), Some((at(10), due(3))));
        assert_eq!(agenda.pop(at(15)), None);
        assert_eq!(agenda.next_at(), Some(at(20)));
    }
}
