//! State changes that happen without a call, in order of time.

use std::collections::BTreeMap;

use crate::time::SimTime;

/// Scheduled changes in order of time. Changes at the same time keep the order of scheduling.
#[derive(Debug)]
pub struct Schedule<T> {
    queue: BTreeMap<(SimTime, u64), T>,
    n_scheduled: u64,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self { queue: BTreeMap::new(), n_scheduled: 0 }
    }
}

impl<T> Schedule<T> {
    /// Adds a change for the time `at`.
    pub fn schedule(&mut self, at: SimTime, transition: T) {
        self.n_scheduled += 1;
        self.queue.insert((at, self.n_scheduled), transition);
    }

    /// Removes the first change scheduled for `now` or earlier. Returns it with its time.
    pub fn pop(&mut self, now: SimTime) -> Option<(SimTime, T)> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((at, _), transition) = entry.remove_entry();
        Some((at, transition))
    }

    /// The time of the first change.
    #[must_use]
    pub fn next_at(&self) -> Option<SimTime> {
        self.queue.keys().next().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_come_by_time_then_by_scheduling() {
        let mut transitions = Schedule::default();
        let at = SimTime::from_unix_millis;
        transitions.schedule(at(20), 1);
        transitions.schedule(at(10), 2);
        transitions.schedule(at(10), 3);
        assert_eq!(transitions.next_at(), Some(at(10)));
        assert_eq!(transitions.pop(at(9)), None);
        assert_eq!(transitions.pop(at(15)), Some((at(10), 2)));
        assert_eq!(transitions.pop(at(15)), Some((at(10), 3)));
        assert_eq!(transitions.pop(at(15)), None);
        assert_eq!(transitions.next_at(), Some(at(20)));
    }
}
