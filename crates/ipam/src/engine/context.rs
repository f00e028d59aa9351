//! What every part of the engine may read: the node's identity, the policy, the limits, the present time and
//! how far the kernel has been checked.

use std::time::Duration;

use crate::jitter::Jitter;
use crate::policy::{Families, Limits, Node, Policy};
use crate::rest::Rests;
use crate::time::Timestamp;

/// The node's identity, EC2's limits, the user's policy and how far the kernel has been
/// checked: the only copy of each.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) node: Node,
    pub(super) limits: Limits,
    pub(super) policy: Policy,
    pub(super) jitter: Jitter,
    /// The releases before this time have been compared with a later kernel report; `None` if there has been none.
    pub(super) kernel_checked: Option<Timestamp>,
}

/// A [`Site`] at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) node: &'a Node,
    pub(super) limits: Limits,
    pub(super) policy: &'a Policy,
    pub(super) jitter: Jitter,
    pub(super) now: Timestamp,
    pub(super) kernel_checked: Option<Timestamp>,
}

impl Site {
    pub(super) fn at(&self, now: Timestamp) -> Context<'_> {
        let Self { node, limits, policy, jitter, kernel_checked } = self;
        let (limits, jitter, kernel_checked) = (*limits, *jitter, *kernel_checked);
        Context { node, limits, policy, jitter, now, kernel_checked }
    }
}

impl Context<'_> {
    /// Where pods' addresses come from on this instance.
    pub(super) fn families(self) -> Families {
        self.limits.families(self.policy)
    }

    pub(super) fn cooldown(self) -> Duration {
        self.policy.timing.cooldown
    }

    /// Which released addresses still rest.
    pub(super) fn rests(self) -> Rests {
        Rests { cooldown: self.cooldown(), now: self.now, kernel_checked: self.kernel_checked }
    }
}
