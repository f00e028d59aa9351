//! What will happen when: a heap, so that the time between two events costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ipam::time::Timestamp;

/// Future events in the order of their time; of those at one time, in the order of entry.
#[derive(Debug)]
pub struct Agenda<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    n_entered: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Timestamp,
    number: u64,
    what: T,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), n_entered: 0 }
    }
}

impl<T> Agenda<T> {
    /// Adds `what`, which happens at `at`.
    pub fn enter(&mut self, at: Timestamp, what: T) {
        self.n_entered += 1;
        self.heap.push(Reverse(Entry { at, number: self.n_entered, what }));
    }

    /// The next event that happens no later than `end`.
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
    fn in_order_of_time_then_of_entry() {
        let at = Timestamp::from_millis;
        let mut agenda = Agenda::default();
        for (ms, what) in [(20, 'a'), (10, 'b'), (10, 'c'), (30, 'd')] {
            agenda.enter(at(ms), what);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop(at(20))).collect();
        assert_eq!(order, [(at(10), 'b'), (at(10), 'c'), (at(20), 'a')]);
    }
}
