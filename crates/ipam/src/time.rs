//! Time as an argument: nothing in this crate reads a clock.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, or since the start of a simulation.
///
/// The caller sees to it that it never goes back while an engine lives.
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

    /// The moment in UTC with whole seconds: `2026-11-21T08:12:04Z`.
    ///
    /// The calendar is Howard Hinnant's `civil_from_days`, for days since the epoch and later.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let seconds = self.0 / 1000;
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
    }

    /// What [`to_rfc3339`](Self::to_rfc3339) has written, or another program with an offset from UTC:
    /// `2026-11-21T09:12:04+01:00`. Fractions of a second are not counted.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| {
            let digits = text.get(from..to)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
        };
        let marks = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
        if marks.iter().any(|(at, mark)| text.get(*at..at + 1) != Some(mark)) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let rest = text.get(19..)?;
        let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
        let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
        if !is_date || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60;
        let since_epoch = seconds + second - seconds_east(zone)?;
        Some(Self(u64::try_from(since_epoch).ok()?.saturating_mul(1000)))
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Howard Hinnant's `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `Z`, `+01:00` or `-01:00`, in seconds.
fn seconds_east(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, offset) = match zone.split_at_checked(1)? {
        ("+", offset) => (1, offset),
        ("-", offset) => (-1, offset),
        _ => return None,
    };
    let (hours, minutes) = offset.split_once(':')?;
    let two_digits = |text: &str| text.parse::<u8>().ok().filter(|_| text.len() == 2);
    Some(sign * (i64::from(two_digits(hours)?) * 3_600 + i64::from(two_digits(minutes)?) * 60))
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
    fn calendar() {
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
    fn times_of_other_zones_are_understood_and_nonsense_is_not() {
        let read = |text: &str| Timestamp::from_rfc3339(text).map(Timestamp::as_millis);
        let expect = Some(1_795_248_724_000);
        assert_eq!(read("2026-11-21T08:12:04Z"), expect);
        assert_eq!(read("2026-11-21T09:12:04+01:00"), expect);
        assert_eq!(read("2026-11-20T23:42:04-08:30"), expect);
        assert_eq!(read("2026-11-21T08:12:04.123456789Z"), expect);
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T08:12:04",
            "2026-11-21 08:12:04Z",
            "2026-13-21T08:12:04Z",
            "2026-11-32T08:12:04Z",
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
