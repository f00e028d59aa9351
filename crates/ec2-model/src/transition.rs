//! State changes that happen without a call, in order of time.

use std::collections::BTreeMap;

use crate::id::{AttachmentId, EniId, InstanceId, VpcCidrAssociationId, VpcId};
use crate::time::SimTime;

/// One scheduled state change. It does nothing if its resource no longer exists by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transition {
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
    /// DescribeInstances no longer lists an instance.
    Forgotten(InstanceId),
    /// IMDS adds or removes an ENI.
    ShowInterface(InstanceId, EniId),
    /// IMDS updates the addresses and groups of an ENI.
    ShowAddresses(InstanceId, EniId),
}

/// Scheduled changes in order of time. Changes at the same time keep the order of scheduling.
#[derive(Debug, Default)]
pub(crate) struct Transitions {
    queue: BTreeMap<(SimTime, u64), Transition>,
    n_scheduled: u64,
}

impl Transitions {
    pub(crate) fn schedule(&mut self, at: SimTime, transition: Transition) {
        self.n_scheduled += 1;
        self.queue.insert((at, self.n_scheduled), transition);
    }

    /// Removes the first change scheduled for `now` or earlier. Returns it with its time.
    pub(crate) fn pop(&mut self, now: SimTime) -> Option<(SimTime, Transition)> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((at, _), transition) = entry.remove_entry();
        Some((at, transition))
    }

    pub(crate) fn next_at(&self) -> Option<SimTime> {
        self.queue.keys().next().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_come_by_time_then_by_scheduling() {
        let mut transitions = Transitions::default();
        let at = SimTime::from_unix_millis;
        let running = |number| Transition::Running(InstanceId::from_number(number));
        transitions.schedule(at(20), running(1));
        transitions.schedule(at(10), running(2));
        transitions.schedule(at(10), running(3));
        assert_eq!(transitions.next_at(), Some(at(10)));
        assert_eq!(transitions.pop(at(9)), None);
        assert_eq!(transitions.pop(at(15)), Some((at(10), running(2))));
        assert_eq!(transitions.pop(at(15)), Some((at(10), running(3))));
        assert_eq!(transitions.pop(at(15)), None);
        assert_eq!(transitions.next_at(), Some(at(20)));
    }
}
