//! The configuration of the model. By default no state takes time and nothing is shown late. Only a
//! freed range rests, since that is a rule of the service.

use std::time::Duration;

use ec2_api::Delay;
use serde::{Deserialize, Serialize};

/// The configuration of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seeds all ids and delays.
    pub seed: u64,
    /// How long states last that end in `-in-progress` or begin with `pending-`.
    pub transitions: Transitions,
    /// How long a freed range is not allocated again.
    pub rest: Rest,
    /// How late the model knows what exists in the Regions.
    pub discovery: Discovery,
    /// How late the API shows new objects.
    pub consistency: Consistency,
    /// The limits of an account.
    pub quotas: Quotas,
}

/// How long each state lasts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transitions {
    /// `create-in-progress`
    pub create: Delay,
    /// `modify-in-progress`
    pub modify: Delay,
    /// `delete-in-progress`
    pub delete: Delay,
    /// `pending-provision`
    pub provision: Delay,
    /// `pending-deprovision`
    pub deprovision: Delay,
}

impl Transitions {
    /// Delays within the waits of Terraform's provider: three minutes for an object, ten for a CIDR.
    #[must_use]
    pub fn realistic() -> Self {
        Self {
            create: Delay::between(2_000, 15_000),
            modify: Delay::between(2_000, 15_000),
            delete: Delay::between(5_000, 30_000),
            provision: Delay::between(5_000, 30_000).with_tail(50, 120_000),
            deprovision: Delay::between(5_000, 60_000).with_tail(50, 300_000),
        }
    }
}

/// How long a freed range rests. AWS names "a few minutes" and "up to 48 hours".
/// <https://docs.aws.amazon.com/vpc/latest/ipam/release-alloc-ipam.html>
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rest {
    /// In the Advanced Tier.
    pub advanced: Delay,
    /// In the Free Tier.
    pub free: Delay,
}

impl Default for Rest {
    fn default() -> Self {
        Self { advanced: Delay::exactly(5 * 60_000), free: Delay::exactly(48 * 3_600_000) }
    }
}

/// How late the model knows what exists.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// From one sample of an account and Region to the next, in milliseconds.
    pub period_ms: u64,
    /// From a sample until the API shows it and acts on it.
    pub lag: Delay,
}

impl Discovery {
    /// From one sample to the next.
    #[must_use]
    pub const fn period(&self) -> Duration {
        Duration::from_millis(self.period_ms)
    }

    /// Users saw an allocation go 20 to 30 minutes after its VPC
    /// (<https://github.com/hashicorp/terraform-provider-aws/issues/31211>).
    #[must_use]
    pub fn realistic() -> Self {
        Self { period_ms: 10 * 60_000, lag: Delay::between(5 * 60_000, 20 * 60_000) }
    }
}

/// How late the API shows new objects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consistency {
    /// How often, in thousandths, a new object is not found at first.
    pub hidden_permille: u16,
    /// How long it is not found.
    pub hidden: Delay,
}

impl Consistency {
    /// <https://github.com/hashicorp/terraform-provider-aws/issues/28913> has an allocation that was
    /// not found at once.
    #[must_use]
    pub fn realistic() -> Self {
        Self { hidden_permille: 50, hidden: Delay::between(200, 5_000) }
    }
}

/// The limits of an account. The defaults are those of a new account.
/// <https://docs.aws.amazon.com/vpc/latest/ipam/quotas-ipam.html>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// IPAMs of one account in one Region.
    pub ipams: usize,
    /// Scopes of one IPAM, with the two default ones.
    pub scopes: usize,
    /// Pools in one scope.
    pub pools_per_scope: usize,
    /// CIDRs of one pool.
    pub cidrs_per_pool: usize,
    /// How deep pools nest. A pool without a source pool has depth 1.
    pub pool_depth: usize,
    /// Resource discoveries of one account in one Region.
    pub discoveries: usize,
    /// Associations of one IPAM with resource discoveries, without the default one.
    pub associations: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            ipams: 1,
            scopes: 5,
            pools_per_scope: 50,
            cidrs_per_pool: 50,
            pool_depth: 10,
            discoveries: 1,
            associations: 5,
        }
    }
}
