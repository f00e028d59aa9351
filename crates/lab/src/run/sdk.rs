//! The AWS SDK's standard retryer between a daemon and EC2: it retries calls that fail temporarily.
//!
//! Sources: AWS SDKs and Tools Reference Guide, "Retry behavior"; smithy-rs,
//! `aws-smithy-runtime/src/client/retries`; aws-sdk-go-v2, `aws/retry`.

use std::time::Duration;

use ec2_model::request::Request;

use super::{NodeState, Run, SimEvent};
use crate::daemon::{Input, Retryer};

/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// One attempt of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    n_left: u32,
    /// The longest wait before the next attempt.
    wait: Duration,
    /// Tokens that the quota gets back if the attempt succeeds.
    refund: u32,
}

impl Attempt {
    pub(super) fn first(retryer: Retryer) -> Self {
        let Retryer { attempts, first_wait } = retryer;
        Self { n_left: attempts - 1, wait: first_wait, refund: RetryQuota::OF_SUCCESS }
    }

    fn next(self) -> Self {
        let wait = (self.wait * 2).min(LONGEST_WAIT);
        Self { n_left: self.n_left - 1, wait, refund: RetryQuota::OF_RETRY }
    }
}

/// The tokens that a client may spend on retries. Failed retries use them up, so that no client
/// retries much for long.
#[derive(Debug)]
pub(super) struct RetryQuota(u32);

impl Default for RetryQuota {
    fn default() -> Self {
        Self(Self::FULL)
    }
}

impl RetryQuota {
    const FULL: u32 = 500;
    /// The cost of a retry, which its success gives back. After a time-out a retry costs twice as
    /// much, but EC2 always answers here.
    const OF_RETRY: u32 = 5;
    /// What a successful first attempt gives back.
    const OF_SUCCESS: u32 = 1;

    /// Takes the cost of a retry. False if there is not enough.
    fn pay(&mut self) -> bool {
        let left = self.0.checked_sub(Self::OF_RETRY);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    fn refund(&mut self, tokens: u32) {
        self.0 = (self.0 + tokens).min(Self::FULL);
    }
}

impl Run<'_> {
    /// Makes one attempt of a call. Schedules another one if it fails temporarily.
    pub(super) fn call(&mut self, node: usize, tag: u64, request: Box<Request>, attempt: Attempt) {
        let found = &mut self.nodes[node];
        if found.state == NodeState::Gone {
            return;
        }
        let (result, latency) = self.cloud.call(&found.site.instance, &request, self.now);
        if result.is_ok() {
            found.retry_quota.refund(attempt.refund);
        }
        let is_passing = result.as_ref().is_err_and(|error| error.status >= 500);
        if is_passing && attempt.n_left > 0 && found.retry_quota.pay() {
            let pause = attempt.wait.mul_f64(self.sdk.unit());
            let again = SimEvent::Call { node, tag, request, attempt: attempt.next() };
            self.push_in(latency + pause, again);
        } else {
            let input = Input::Reply { tag, result };
            self.push_in(latency, SimEvent::Tell { node, input });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_spend_quota_and_success_refunds_it() {
        let mut quota = RetryQuota::default();
        assert_eq!((1..=200).filter(|_| quota.pay()).count(), 100);
        quota.refund(RetryQuota::OF_RETRY);
        assert_eq!([quota.pay(), quota.pay()], [true, false]);
        (0..4).for_each(|_| quota.refund(RetryQuota::OF_SUCCESS));
        assert!(!quota.pay());
        quota.refund(1_000);
        assert_eq!(quota.0, RetryQuota::FULL);
    }

    #[test]
    fn retry_waits_double_up_to_limit() {
        let first = Attempt::first(Retryer { attempts: 7, first_wait: Duration::from_secs(1) });
        let attempts = std::iter::successors(Some(first), |attempt| {
            (attempt.n_left > 0).then(|| attempt.next())
        });
        let waits: Vec<_> = attempts.map(|attempt| attempt.wait.as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 20, 20]);
    }
}
