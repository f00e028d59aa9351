//! What every part of the engine may read: the node's identity, the policy, the limits and the present time.

use std::time::Duration;

use crate::call::Action;
use crate::jitter::Jitter;
use crate::policy::{FamilyPolicy, Limits, Node, Policy};
use crate::time::Timestamp;

/// The node's identity, EC2's limits and the user's policy: the only copy of each.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) node: Node,
    pub(super) limits: Limits,
    pub(super) policy: Policy,
    pub(super) jitter: Jitter,
}

/// A [`Site`] at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) node: &'a Node,
    pub(super) limits: Limits,
    pub(super) policy: &'a Policy,
    pub(super) jitter: Jitter,
    pub(super) now: Timestamp,
}

impl Site {
    pub(super) fn at(&self, now: Timestamp) -> Context<'_> {
        let Self { node, limits, policy, jitter } = self;
        Context { node, limits: *limits, policy, jitter: *jitter, now }
    }
}

impl Context<'_> {
    /// Where pods' addresses come from on this instance.
    pub(super) fn family(self) -> FamilyPolicy {
        self.limits.family(self.policy)
    }

    /// The action that adds addresses to an ENI.
    pub(super) fn assign_action(self) -> Action {
        self.family().kind.assign_action()
    }

    pub(super) fn cooldown(self) -> Duration {
        self.policy.timing.cooldown
    }
}
