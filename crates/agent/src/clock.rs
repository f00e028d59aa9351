//! The only place that reads wall time. Its clock never goes back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipam::record::Record;
use ipam::time::Timestamp;

/// Wall time at the start plus the monotonic time since then. Steps of the machine's clock do not reach
/// the engine while it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Timestamp,
    started: Instant,
}

impl Clock {
    /// Starts at the machine's wall time, or at `not_before` if that is later.
    #[must_use]
    pub(crate) fn start(not_before: Timestamp) -> Self {
        // A clock that shows a time before 1970 counts as 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wall = Timestamp::default() + wall;
        Self { start: wall.max(not_before), started: Instant::now() }
    }

    /// The current time.
    #[must_use]
    pub(crate) fn now(self) -> Timestamp {
        self.start + self.started.elapsed()
    }

    /// The time from now until `when`; zero if `when` has passed.
    #[must_use]
    pub(crate) fn until(self, when: Timestamp) -> Duration {
        when.since(self.now())
    }
}

/// A time after every timestamp in `record`. The machine's clock may have been set back since. A clock that
/// starts here still ends every cooldown in time, and the kernel report at the start is newer than the
/// record.
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
    fn clock_starts_after_its_minimum_and_never_goes_back() {
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
    fn clock_after_record_is_newer_than_every_timestamp() {
        let since = Timestamp::from_millis(u64::MAX / 2);
        let mut record = Record::default();
        let address = [10, 0, 0, 7].into();
        record.apply(&ipam::record::Change::Resting { address, since }).unwrap();
        assert!(Clock::start(after(&record)).now() > since);
    }
}
