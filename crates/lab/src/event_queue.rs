//! Future events of a simulation in a heap, so that time without events costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ipam::time::Timestamp;

/// Future events in order of time. Events at the same time keep the order of insertion.
#[derive(Debug)]
pub struct EventQueue<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    n_pushed: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Timestamp,
    number: u64,
    what: T,
}

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), n_pushed: 0 }
    }
}

impl<T> EventQueue<T> {
    /// Adds `what`, which happens at `at`.
    pub fn push(&mut self, at: Timestamp, what: T) {
        self.n_pushed += 1;
        self.heap.push(Reverse(Entry { at, number: self.n_pushed, what }));
    }

    /// Removes the next event, if it happens no later than `end`. Returns it with its time.
    pub fn pop(&mut self, end: Timestamp) -> Option<(Timestamp, T)> {
        self.heap.peek().filter(|Reverse(entry)| entry.at <= end)?;
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_by_insertion() {
        let at = Timestamp::from_millis;
        let mut queue = EventQueue::default();
        for (ms, what) in [(20, 'a'), (10, 'b'), (10, 'c'), (30, 'd')] {
            queue.push(at(ms), what);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(at(20))).collect();
        assert_eq!(order, [(at(10), 'b'), (at(10), 'c'), (at(20), 'a')]);
    }
}
