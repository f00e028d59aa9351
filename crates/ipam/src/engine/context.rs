//! What every part of the engine may read: the node's identity, the policy, the limits, the present time and
//! how far the kernel has been checked.

use std::time::Duration;

use crate::eni_config::{EniConfig, EniConfigAnswer};
use crate::jitter::Jitter;
use crate::policy::{Families, Limits, Node, Placement, Policy, Provisioning};
use crate::rest::Rests;
use crate::time::Timestamp;
use crate::view::Changes;

/// The node's identity, EC2's limits, the user's policy and how far the kernel has been
/// checked: the only copy of each.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) node: Node,
    pub(super) limits: Limits,
    pub(super) policy: Policy,
    /// The cluster's last answer; `None` until there is one.
    pub(super) eni_config: Option<EniConfigAnswer>,
    /// Whether no pod may be scheduled on the node, in the API server's last answer.
    pub(super) is_cordoned: bool,
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
    eni_config: Option<&'a EniConfigAnswer>,
    is_cordoned: bool,
    pub(super) jitter: Jitter,
    pub(super) now: Timestamp,
    pub(super) kernel_checked: Option<Timestamp>,
}

/// The permission to start a call that changes something at EC2. Only [`Context::may_change`] gives it, so no part of the
/// engine can forget to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct MayChange(());

/// Where new ENIs go, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NewEnis<'a> {
    /// Where the primary ENI is, or another subnet that is tagged for pods.
    LikePrimary,
    /// Where the primary ENI is, whatever the tags of subnets say.
    PrimarySubnet,
    /// Where the ENIConfig says.
    By(&'a EniConfig),
    /// The ENIConfig is not known, or cannot be used.
    Nowhere,
}

impl Site {
    pub(super) fn at(&self, now: Timestamp) -> Context<'_> {
        let Self { node, limits, policy, eni_config, is_cordoned, jitter, kernel_checked } = self;
        let (limits, jitter, kernel_checked) = (*limits, *jitter, *kernel_checked);
        let (eni_config, is_cordoned) = (eni_config.as_ref(), *is_cordoned);
        Context { node, limits, policy, eni_config, is_cordoned, jitter, now, kernel_checked }
    }
}

impl<'a> Context<'a> {
    /// Where pods' addresses come from on this instance.
    pub(super) fn families(self) -> Families {
        self.limits.families(self.policy)
    }

    /// What may be changed at EC2.
    pub(super) fn changes(self) -> Changes {
        match self.policy.provisioning {
            Provisioning::WhileSchedulable if self.is_cordoned => Changes::Cordoned,
            Provisioning::Always | Provisioning::WhileSchedulable => Changes::ByTargets,
            Provisioning::Off => Changes::Off,
            Provisioning::ImdsOnly => Changes::ImdsOnly,
        }
    }

    /// Who describes what this node holds, for people.
    pub(super) fn who_describes(self) -> &'static str {
        match self.changes() {
            Changes::ByTargets | Changes::Cordoned | Changes::Off => "EC2",
            Changes::ImdsOnly => "the metadata service",
        }
    }

    /// The permission for calls that change something, if the policy gives it.
    pub(super) fn may_change(self) -> Option<MayChange> {
        match self.changes() {
            Changes::ByTargets | Changes::Cordoned => Some(MayChange(())),
            Changes::Off | Changes::ImdsOnly => None,
        }
    }

    /// Where new ENIs go.
    pub(super) fn new_enis(self) -> NewEnis<'a> {
        match (self.policy.placement, self.eni_config) {
            (Placement::LikePrimary, _) => NewEnis::LikePrimary,
            (Placement::PrimarySubnet, _) => NewEnis::PrimarySubnet,
            (Placement::ByEniConfig, Some(EniConfigAnswer::Found(config))) => NewEnis::By(config),
            (
                Placement::ByEniConfig,
                Some(EniConfigAnswer::Missing { .. } | EniConfigAnswer::Unusable { .. }) | None,
            ) => NewEnis::Nowhere,
        }
    }

    /// The name of the node's ENIConfig, if custom networking asks for one and the cluster has named it.
    pub(super) fn eni_config_name(self) -> Option<&'a str> {
        let answer = self.eni_config.filter(|_| self.policy.placement == Placement::ByEniConfig)?;
        Some(match answer {
            EniConfigAnswer::Found(config) => &config.name,
            EniConfigAnswer::Missing { name } | EniConfigAnswer::Unusable { name, .. } => name,
        })
    }

    /// Why no ENIConfig can be used, while custom networking asks for one.
    pub(super) fn eni_config_fault(self) -> Option<String> {
        match (self.policy.placement, self.eni_config) {
            (Placement::LikePrimary | Placement::PrimarySubnet, _) => None,
            (Placement::ByEniConfig, None) => Some(
                "the API server has not said yet which ENIConfig this node uses, and no earlier answer is kept"
                    .to_owned(),
            ),
            (Placement::ByEniConfig, Some(answer)) => answer.fault(),
        }
    }

    pub(super) fn cooldown(self) -> Duration {
        self.policy.timing.cooldown
    }

    /// Which released addresses still rest.
    pub(super) fn rests(self) -> Rests {
        Rests { cooldown: self.cooldown(), now: self.now, kernel_checked: self.kernel_checked }
    }
}
