//! When a released address may serve again.

use std::time::Duration;

use crate::time::Timestamp;

/// Which rests last at one moment. The rest of an address begins at its release.
///
/// It lasts for the cooldown. It also lasts until the kernel has been read after the release: the kernel may still
/// route the address to the pod that released it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rests {
    pub(crate) cooldown: Duration,
    pub(crate) now: Timestamp,
    /// The releases before this time have been compared with a later kernel report. `None` if there has never been
    /// a report; then the cooldown alone counts.
    pub(crate) kernel_checked: Option<Timestamp>,
}

impl Rests {
    /// Whether an address that was released at `since` still rests.
    pub(crate) fn is_resting(self, since: Timestamp) -> bool {
        since + self.cooldown > self.now || self.is_unchecked(since)
    }

    /// Whether an address that was released at `since` rests only because the kernel has not been read since.
    pub(crate) fn waits_for_the_kernel(self, since: Timestamp) -> bool {
        since + self.cooldown <= self.now && self.is_unchecked(since)
    }

    /// Whether no kernel report shows yet what has become of an address released at `since`.
    pub(crate) fn is_unchecked(self, since: Timestamp) -> bool {
        self.kernel_checked.is_some_and(|at| at <= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_lasts_for_the_cooldown_and_until_the_kernel_is_read() {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let check = |since, kernel_checked: Option<u64>, lasts| {
            let (cooldown, now) = (Duration::from_secs(30), at(100));
            let rests = Rests { cooldown, now, kernel_checked: kernel_checked.map(at) };
            assert_eq!(rests.is_resting(at(since)), lasts, "{since} {kernel_checked:?}");
        };
        check(71, None, true);
        check(70, None, false);
        check(71, Some(99), true);
        check(70, Some(71), false);
        check(70, Some(70), true);
        check(70, Some(40), true);
    }

    #[test]
    fn rest_waits_for_the_kernel_after_the_cooldown_alone() {
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let check = |since, kernel_checked: Option<u64>, waits| {
            let (cooldown, now) = (Duration::from_secs(30), at(100));
            let rests = Rests { cooldown, now, kernel_checked: kernel_checked.map(at) };
            assert_eq!(rests.waits_for_the_kernel(at(since)), waits, "{since} {kernel_checked:?}");
        };
        check(71, Some(40), false);
        check(70, Some(40), true);
        check(70, Some(71), false);
        check(70, None, false);
    }
}
