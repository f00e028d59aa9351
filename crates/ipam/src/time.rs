//! Time as an argument: nothing in this crate reads a clock.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, or since the start of a simulation.
///
/// It never goes back while an engine lives; the caller ensures that.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// `ms` milliseconds since the epoch.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `span` earlier, not before the epoch.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The moment in UTC with whole seconds: `2026-11-21T08:12:04Z`. RFC 3339 ends with the year 9999; later
    /// moments give the last second that the calendar has.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let last = jiff::Timestamp::MAX.as_second();
        let seconds = i64::try_from(self.0 / 1000).map_or(last, |seconds| seconds.min(last));
        let moment = jiff::Timestamp::from_second(seconds).expect("the second is in the calendar");
        format!("{moment:.0}")
    }

    /// Parses an RFC 3339 date and time with an offset from UTC: `2026-11-21T09:12:04+01:00`. Drops
    /// fractions of a second. `None` for anything else, and for moments before the epoch.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let moment: jiff::Timestamp = text.parse().ok()?;
        Some(Self(u64::try_from(moment.as_second()).ok()?.saturating_mul(1000)))
    }

    /// The time since `earlier`; zero if `earlier` lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at the end of time, half a billion years ahead.
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_survive_rfc3339_to_the_second() {
        let check = |ms, expect: &str| {
            assert_eq!(Timestamp::from_millis(ms).to_rfc3339(), expect);
            let whole_seconds = Timestamp::from_millis(ms / 1000 * 1000);
            assert_eq!(Timestamp::from_rfc3339(expect), Some(whole_seconds));
        };
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399_999, "2000-02-28T23:59:59Z");
        check(951_782_400_000, "2000-02-29T00:00:00Z");
        check(1_795_248_724_000, "2026-11-21T08:12:04Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00Z");
    }

    #[test]
    fn timestamp_beyond_the_calendar_is_its_last_second() {
        assert_eq!(Timestamp::from_millis(u64::MAX).to_rfc3339(), "9999-12-30T22:00:00Z");
    }

    #[test]
    fn rfc3339_with_offset_is_read_and_nonsense_is_not() {
        let read = |text: &str| Timestamp::from_rfc3339(text).map(Timestamp::as_millis);
        let expect = Some(1_795_248_724_000);
        assert_eq!(read("2026-11-21T08:12:04Z"), expect);
        assert_eq!(read("2026-11-21T09:12:04+01:00"), expect);
        assert_eq!(read("2026-11-20T23:42:04-08:30"), expect);
        assert_eq!(read("2026-11-21T08:12:04.123456789Z"), expect);
        // RFC 3339 allows both; Go's `time.RFC3339`, which amazon-vpc-cni-k8s writes, has neither.
        assert_eq!(read("2026-11-21 08:12:04Z"), expect);
        assert_eq!(read("2026-11-21t08:12:04z"), expect);
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T08:12:04",
            "2026-13-21T08:12:04Z",
            "2026-11-32T08:12:04Z",
            "2026-02-31T08:12:04Z",
            "2026-11-21T24:12:04Z",
            "2026-11-21T08:12:04+1:00",
            "2026-11-21T08:12:04+01:00Z",
            "+026-11-21T08:12:04Z",
            "1969-12-31T23:59:59Z",
            "2026-11-21T08:12:0\u{e9}Z",
            "yesterday",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
