//! Virtual time. It follows the machine's clock or stands still, and can be advanced.
//!
//! This module must not know what is timed with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ec2_model::SimTime;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

/// Whether virtual time passes by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// It passes as fast as the machine's clock.
    #[default]
    Real,
    /// It passes only when it is advanced.
    Manual,
}

/// A clock that never goes back.
#[derive(Debug)]
pub struct Clock {
    pace: Pace,
    /// The machine's time when this clock was started, and the start itself.
    start: (SimTime, Instant),
    /// How far it has been advanced.
    skipped: watch::Sender<Duration>,
}

impl Clock {
    /// A clock that shows the machine's time now.
    #[must_use]
    pub fn start(pace: Pace) -> Self {
        Self { pace, start: (wall(), Instant::now()), skipped: watch::Sender::new(Duration::ZERO) }
    }

    /// How the clock runs.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> SimTime {
        let (start, at) = self.start;
        let ran = match self.pace {
            Pace::Real => at.elapsed(),
            Pace::Manual => Duration::ZERO,
        };
        start + ran + *self.skipped.borrow()
    }

    /// Advances the clock.
    pub fn skip(&self, by: Duration) {
        self.skipped.send_modify(|skipped| *skipped = skipped.saturating_add(by));
    }

    /// Waits until the clock reaches `at`.
    pub async fn reach(&self, at: SimTime) {
        let mut skipped = self.skipped.subscribe();
        loop {
            let left = at.since(self.now());
            if left.is_zero() {
                return;
            }
            let passed = async {
                match self.pace {
                    Pace::Real => tokio::time::sleep(left).await,
                    Pace::Manual => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passed => {}
                changed = skipped.changed() => changed.expect("the sender lives as long as self"),
            }
        }
    }
}

/// The machine's time.
#[must_use]
pub fn wall() -> SimTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    SimTime::default() + since_epoch
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures::FutureExt;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn running_clock_reaches_time_by_waiting_or_skipping() {
        let clock = Clock::start(Pace::Real);
        let start = clock.now();
        clock.reach(start + Duration::from_millis(5)).await;
        assert!(clock.now().since(start) >= Duration::from_millis(5));
        tokio::join!(clock.reach(start + HOUR), async { clock.skip(HOUR) });
        assert!(clock.now().since(start) >= HOUR);
    }

    #[tokio::test]
    async fn manual_clock_moves_only_when_advanced() {
        let clock = Clock::start(Pace::Manual);
        let start = clock.now();
        assert_eq!(clock.reach(start + HOUR).now_or_never(), None);
        clock.skip(HOUR / 2);
        assert_eq!(clock.reach(start + HOUR).now_or_never(), None);
        clock.skip(HOUR / 2);
        assert_eq!(clock.reach(start + HOUR).now_or_never(), Some(()));
        assert_eq!(clock.now(), start + HOUR);
    }
}
