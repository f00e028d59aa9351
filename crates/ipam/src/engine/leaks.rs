//! ENIs of the cluster that no node holds: made by one that ended before it had attached, marked or
//! deleted them. Any node of the cluster removes them. Those of this very instance are not among
//! them, since every reading of its ENIs finds these (`inventory`).

use std::time::Duration;

use super::Engine;
use super::inventory::{AUDIT, Look};
use crate::call::{Action, CallError, CallErrorKind, CallOutput, Ec2Call, EniFacts};
use crate::id::EniId;
use crate::jitter::Jitter;
use crate::ownership;
use crate::policy::{Mode, Node, Policy};
use crate::time::Timestamp;

/// Removed after one search at most, since pods may need EC2's tokens.
const MAX_AT_ONCE: usize = 20;
/// Tells the chances of this search from those of others.
const SALT: u32 = 0x1ea4;

/// The searches to come: the first soon after the start, since there are nodes that live for an hour,
/// and with it the account's other nodes if all start together, at a moment of this instance's own.
pub(super) fn first_look(node: &Node, policy: &Policy, jitter: Jitter, now: Timestamp) -> Look {
    let call = Ec2Call::DescribeUnattached { cluster: node.cluster.clone().unwrap_or_default() };
    match policy.leak_age.filter(|_| node.cluster.is_some() && policy.mode != Mode::Ipv6) {
        Some(age) => Look::due(call, now + jitter.about(age / 2, [SALT.into(), 0])),
        None => Look::never(call),
    }
}

/// Between the two searches that must both find an ENI.
fn pause(age: Duration) -> Duration {
    age / 6
}

impl Engine {
    /// The search has ended. Failed, it holds up no other reading: it has time until tomorrow.
    pub(super) fn search_done(&mut self, result: &Result<CallOutput, CallError>, now: Timestamp) {
        self.search_again_tomorrow(now);
        match result {
            Ok(CallOutput::Enis(enis)) => self.judge_unattached(enis, now),
            Err(error) if error.kind == CallErrorKind::Throttled => {
                self.action_failed(&self.leaks_look.call.clone(), error, now);
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Removes those of `enis` that have leaked and that a search some time ago has found too.
    fn judge_unattached(&mut self, enis: &[EniFacts], now: Timestamp) {
        let Some(age) = self.policy.leak_age else { return };
        let before = std::mem::take(&mut self.unattached);
        let mut leaked = Vec::new();
        for eni in enis.iter().filter(|eni| !self.pool.enis.contains_key(&eni.id)) {
            let Some(created_at) = ownership::left_by_another(eni, &self.node) else { continue };
            let seen_at = before.get(&eni.id).copied().unwrap_or(now);
            self.unattached.insert(eni.id.clone(), seen_at);
            let due = (created_at + age).max(seen_at + pause(age));
            if due <= now {
                leaked.push(eni.id.clone());
            } else {
                self.leaks_look.ask(due);
            }
        }
        if leaked.len() > MAX_AT_ONCE {
            self.leaks_look.ask(now + pause(age));
        }
        for eni in leaked.into_iter().take(MAX_AT_ONCE) {
            self.remove_leaked(eni, now);
        }
    }

    fn search_again_tomorrow(&mut self, now: Timestamp) {
        self.leaks_look.ask(now + self.jitter.lengthened(AUDIT, SALT));
    }

    /// What cannot be tried now or fails is found again tomorrow.
    fn remove_leaked(&mut self, eni: EniId, now: Timestamp) {
        let is_held = self.action_hold(Action::DeleteEni, now).is_some();
        if !is_held && self.record_hold(now).is_none() && !self.is_busy(&eni) {
            self.start(Ec2Call::DeleteEni { eni }, now);
        }
    }
}
