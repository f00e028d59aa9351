//! The only place that reads wall time. Its clock never goes back while the daemon runs. It notices that the
//! machine's clock has gone back.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipam::record::{Assignment, Change, Record};
use ipam::time::Timestamp;

use crate::notes::Notes;

/// A machine whose clock shows an earlier time does not know the time: 2025-01-01, in ms.
const PLAUSIBLE: Timestamp = Timestamp::from_millis(1_735_689_600_000);
/// How often the machine's clock is compared with the daemon's.
const WATCH_EVERY: Duration = Duration::from_secs(60);
/// How far the machine's clock goes back without a word.
const TOLERANCE: Duration = Duration::from_secs(3600);
/// The matter of the line in `ipamd status`.
const NOTE: &str = "CLOCK_WENT_BACK";

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
        Self { start: wall().max(not_before), started: Instant::now() }
    }

    /// Says in the log and in `notes` when the machine's clock has gone back behind this one by an hour or more.
    pub(crate) async fn watch_forever(self, notes: Notes) -> Infallible {
        let mut said = false;
        let mut checks = tokio::time::interval(WATCH_EVERY);
        loop {
            checks.tick().await;
            let line = went_back(self.now().since(wall()));
            match &line {
                Some(line) if !said => {
                    tracing::error!("{line}");
                    notes.say(NOTE, line.clone());
                }
                Some(_) => {}
                None => notes.settle(NOTE),
            }
            said = line.is_some();
        }
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

/// The machine's clock. A time before 1970 counts as 1970.
fn wall() -> Timestamp {
    Timestamp::default() + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// What a person has to know if the machine's clock is behind the daemon's by `span`.
fn went_back(span: Duration) -> Option<String> {
    let hours = span.as_secs() / 3600;
    (span >= TOLERANCE).then(|| {
        format!(
            "the machine's clock has gone back by {hours} hours since ipamd started; times on record are too \
             late until ipamd is restarted"
        )
    })
}

/// The record without the times after `now`, and how many it had. They come from a clock that was wrong, so
/// each becomes `now`: a rest begins anew.
///
/// A `now` that the machine cannot have leaves the record as it is, since then `now` is what is wrong.
#[must_use]
pub(crate) fn without_future(record: Record, now: Timestamp) -> (Record, usize) {
    let is_future = |since: &&Timestamp| **since > now;
    let given = record.assignments().values().map(|assignment| &assignment.since);
    let n_future = record.cooling().values().chain(given).filter(is_future).count();
    if n_future == 0 || now < PLAUSIBLE {
        return (record, 0);
    }
    let mut corrected = Record::default();
    for change in record.changes() {
        let change = match change {
            Change::Resting { address, since } => {
                Change::Resting { address, since: since.min(now) }
            }
            Change::Assigned { key, assignment } => {
                let since = assignment.since.min(now);
                Change::Assigned { key, assignment: Assignment { since, ..assignment } }
            }
            Change::Released { .. }
            | Change::Rested { .. }
            | Change::Intended { .. }
            | Change::Settled { .. }
            | Change::Booted { .. }
            | Change::EniKnown(_)
            | Change::EniForgotten { .. }
            | Change::VpcRanges { .. }
            | Change::Delegated { .. } => change,
        };
        corrected.apply(&change).expect("no fact contradicts another one for its time");
    }
    (corrected, n_future)
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

    /// A daemon that started in 2262 has left these times.
    #[test]
    fn times_from_a_wrong_clock_become_the_present() {
        let [past, now, future] =
            [1_799_999_990_000, 1_800_000_000_000, 9_223_372_036_000].map(Timestamp::from_millis);
        let resting = |n: u8, since| Change::Resting { address: [10, 0, 0, n].into(), since };
        let record_of = |changes: &[Change]| {
            let mut record = Record::default();
            changes.iter().for_each(|change| record.apply(change).unwrap());
            record
        };
        let settled = Change::Settled { id: ipam::call::CallId(7) };
        let left = record_of(&[resting(1, past), resting(2, future), settled.clone()]);
        let right = record_of(&[resting(1, past), resting(2, now), settled]);
        assert_eq!(without_future(left.clone(), now), (right.clone(), 1));
        assert_eq!(without_future(right.clone(), now), (right, 0));
        // A clock without a battery shows 1970 until it is set.
        let no_time = Timestamp::from_millis(5);
        assert_eq!(without_future(left.clone(), no_time), (left, 0));
    }

    #[test]
    fn clock_that_went_back_is_said() {
        assert_eq!(went_back(Duration::from_secs(3599)), None);
        let line = went_back(Duration::from_secs(50 * 3600)).unwrap();
        assert!(line.contains("gone back by 50 hours"), "{line}");
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
