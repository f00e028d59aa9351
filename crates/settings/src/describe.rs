//! Limits and policy in words, for the commands that print them.

use ipam::block::BlockKind;
use ipam::policy::{Families, Limits, Policy, Provisioning, Targets};

/// One line: `3 ENIs, 10 addresses on each, prefixes`.
#[must_use]
pub fn limits_text(limits: Limits) -> String {
    let Limits { enis, addresses_per_eni, prefixes } = limits;
    let prefixes = if prefixes { "prefixes" } else { "no prefixes" };
    format!("{enis} ENIs, {addresses_per_eni} addresses on each, {prefixes}")
}

/// The families of pods, one word each, IPv4 first: `prefix+ipv6`.
#[must_use]
pub fn families_text(families: Families) -> String {
    let modes: Vec<_> = families.policies().map(|family| family.kind.mode()).collect();
    modes.join("+")
}

/// One line: the target in force, with the variable that sets it.
#[must_use]
pub fn targets_text(policy: &Policy) -> String {
    let family = policy.families.policy();
    match policy.provisioning {
        Provisioning::Off | Provisioning::ImdsOnly => {
            return "none: the pool stays as it is".to_owned();
        }
        Provisioning::Always | Provisioning::WhileSchedulable => {}
    }
    if family.kind == BlockKind::V6Prefix {
        return "one /80 prefix for all pods".to_owned();
    }
    let targets = match family.targets {
        Targets::WarmEni(n) => format!("free addresses worth {n} ENIs (WARM_ENI_TARGET)"),
        Targets::WarmPrefix(n) => format!("{n} free prefixes (WARM_PREFIX_TARGET)"),
        Targets::Ip { warm, minimum } => {
            format!("{warm} free addresses (WARM_IP_TARGET), {minimum} in all (MINIMUM_IP_TARGET)")
        }
    };
    match policy.families {
        Families::V4(_) | Families::V6(_) => targets,
        Families::Dual { .. } => format!("IPv4: {targets}; IPv6: one /80 prefix for all pods"),
    }
}

/// What may be changed at EC2, with the variable that says so.
#[must_use]
pub fn changes_text(provisioning: Provisioning) -> &'static str {
    match provisioning {
        Provisioning::Always => "as targets and pods want (AWS_MANAGE_ENIS_NON_SCHEDULABLE)",
        Provisioning::WhileSchedulable => {
            "as targets and pods want; while the node is cordoned, as pods want (AWS_MANAGE_ENIS_NON_SCHEDULABLE)"
        }
        Provisioning::Off => "none (DISABLE_NETWORK_RESOURCE_PROVISIONING)",
        Provisioning::ImdsOnly => "none, and EC2 is not asked (ENABLE_IMDS_ONLY_MODE)",
    }
}
