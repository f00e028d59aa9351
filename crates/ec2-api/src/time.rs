//! Virtual time, which the caller passes in.
//!
//! Nothing in this crate reads a clock.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// A time of the simulation, in milliseconds since 1970-01-01T00:00:00Z. `Display` gives EC2's
/// format: `2026-11-21T08:12:04.000Z`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SimTime(u64);

impl SimTime {
    /// The time `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn unix_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this one. Zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// EC2's format without the fraction, as in IMDS documents.
    #[must_use]
    pub fn to_seconds_string(self) -> String {
        format!("{:.0}", self.moment())
    }

    /// The calendar ends with the year 9999; what lies beyond counts as its last moment.
    fn moment(self) -> jiff::Timestamp {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl Add<Duration> for SimTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl FromStr for SimTime {
    type Err = ApiError;

    /// Reads `2026-11-21T08:12:04Z`, with or without a fraction. A time before 1970 is its beginning.
    fn from_str(text: &str) -> Result<Self, ApiError> {
        let moment: jiff::Timestamp = text
            .parse()
            .map_err(|_| ApiError::parameter_value(format!("'{text}' is no timestamp")))?;
        Ok(Self(u64::try_from(moment.as_millisecond()).unwrap_or(0)))
    }
}

impl fmt::Display for SimTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.moment())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_uses_ec2_format() {
        let check = |millis, expect: &str| {
            assert_eq!(SimTime::from_unix_millis(millis).to_string(), expect);
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_399_999, "2000-02-28T23:59:59.999Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(1_795_248_724_000, "2026-11-21T08:12:04.000Z");
        check(1_798_761_599_001, "2026-12-31T23:59:59.001Z");
    }

    #[test]
    fn text_is_read_as_it_is_written() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(text.parse::<SimTime>().ok().map(SimTime::unix_millis), expect, "{text}");
        };
        check("2026-11-21T08:12:04.001Z", Some(1_795_248_724_001));
        check("2026-11-21T08:12:04Z", Some(1_795_248_724_000));
        check("1969-12-31T23:59:59Z", Some(0));
        check("2026-11-21", None);
        check("", None);
    }

    #[test]
    fn time_arithmetic_saturates() {
        let (early, late) = (SimTime::from_unix_millis(5), SimTime::from_unix_millis(9));
        assert_eq!(late.since(early), Duration::from_millis(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!((late + Duration::MAX).unix_millis(), u64::MAX);
    }
}
