//! The one place where wall time is read, made so that it never goes back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipam::record::Record;
use ipam::time::Timestamp;

/// Wall time at its start plus what has truly elapsed since: steps of the machine's clock do not
/// reach the engine while it lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Timestamp,
    started: Instant,
}

impl Clock {
    /// Starts at the machine's wall time, or at `not_before` if that is later.
    #[must_use]
    pub(crate) fn start(not_before: Timestamp) -> Self {
        // A clock before 1970 counts as 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wall = Timestamp::default() + wall;
        Self { start: wall.max(not_before), started: Instant::now() }
    }

    /// The present.
    #[must_use]
    pub(crate) fn now(self) -> Timestamp {
        self.start + self.started.elapsed()
    }

    /// How long from now until `when`; zero if that has passed.
    #[must_use]
    pub(crate) fn until(self, when: Timestamp) -> Duration {
        when.since(self.now())
    }
}

/// A moment after all that `record` knows. If the machine's clock was set back since, a clock that
/// starts here still ends every cooldown in time, and what the kernel shows at the start is newer than
/// the record.
#[must_use]
pub(crate) fn after(record: &Record) -> Timestamp {
    let released = record.cooling().values().copied();
    let given = record.assignments().values().map(|assignment| assignment.since);
    let newest = released.chain(given).max().unwrap_or_default();
    newest + Duration::from_millis(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_no_earlier_than_told_and_never_goes_back() {
        let future = Timestamp::from_millis(u64::MAX / 2);
        let clock = Clock::start(future);
        let (first, second) = (clock.now(), clock.now());
        assert!(future <= first && first <= second);
        assert!(
            Clock::start(Timestamp::default()).now() > Timestamp::from_millis(1_600_000_000_000)
        );
        assert_eq!(clock.until(Timestamp::default()), Duration::ZERO);
    }

    #[test]
    fn what_is_seen_at_the_start_is_newer_than_the_record() {
        let since = Timestamp::from_millis(u64::MAX / 2);
        let mut record = Record::default();
        let address = [10, 0, 0, 7].into();
        record.apply(&ipam::record::Change::Resting { address, since }).unwrap();
        assert!(Clock::start(after(&record)).now() > since);
    }
}
