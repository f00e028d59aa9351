//! The policy that the settings make on an instance type. Only this file makes a [`Policy`] of settings.

use ipam::block::BlockKind;
use ipam::policy::{
    Families, FamilyPolicy, HOST_NETWORK_PODS, Limits, Placement, Policy, Provisioning, Targets,
    Timing, WarmSettings,
};

use crate::registry::{
    ENABLE_IPv6, MAX_ENI, MINIMUM_IP_TARGET, TIDEPOOL_DELEGATED_PREFIXES, WARM_ENI_TARGET,
    WARM_IP_TARGET, WARM_PREFIX_TARGET,
};
use crate::{SettingError, Settings};

/// The most pods with prefixes on instances with few and with many vCPUs.
/// Source: AWS, EKS best practices, "Prefix mode".
const PREFIX_MAX_PODS: (u32, u32) = (110, 250);
/// From this number on, an instance has many vCPUs.
const MANY_VCPUS: u32 = 30;

/// The policy on an instance with `limits` and `vcpus`; `None` if the number of vCPUs is unknown.
///
/// # Errors
/// [`SettingError`] if the instance cannot do what the settings ask for and has no substitute.
pub fn policy(
    settings: &Settings,
    limits: Limits,
    vcpus: Option<u32>,
) -> Result<Policy, SettingError> {
    let kind = kind_on(settings.kind, limits);
    let has_ipv6 = kind == BlockKind::V6Prefix || settings.dual.is_some();
    if has_ipv6 && !limits.prefixes {
        return Err(SettingError {
            variable: ENABLE_IPv6.name,
            value: "true".to_owned(),
            allowed: "this instance type takes no prefixes, from which pods on IPv6 get their \
                      addresses; use one that is built on the Nitro system"
                .to_owned(),
        });
    }
    if settings.delegated_prefixes.is_some_and(|n| n > 0) && !kind.is_prefix() {
        return Err(SettingError {
            variable: TIDEPOOL_DELEGATED_PREFIXES.name,
            value: settings.delegated_prefixes.unwrap_or_default().to_string(),
            allowed: "this instance type takes no prefixes; use one that is built on the Nitro \
                      system, or 0"
                .to_owned(),
        });
    }
    let for_pods = match settings.placement {
        Placement::LikePrimary | Placement::PrimarySubnet => limits,
        // Source: AWS, "Maximum Pods per instance type", with `--cni-custom-networking-enabled`.
        Placement::ByEniConfig => Limits { enis: limits.enis.saturating_sub(1), ..limits },
    };
    let family = FamilyPolicy::new(kind, settings.warm);
    Ok(Policy {
        families: match settings.dual {
            None => Families::single(family),
            Some(needs) => Families::dual(family, needs),
        },
        placement: settings.placement,
        provisioning: settings.provisioning,
        max_enis: settings.max_enis,
        max_pods: settings.max_pods.unwrap_or_else(|| max_pods(kind, for_pods, vcpus)),
        delegated_prefixes: settings.delegated_prefixes,
        connection_tracking: settings.connection_tracking,
        mtu: settings.mtu,
        pod_ipv6: settings.pod_ipv6,
        nat: settings.nat.clone(),
        timing: Timing {
            cooldown: settings.cooldown,
            add_wait: settings.add_wait,
            grow_delay: settings.grow_delay,
            shrink_delay: settings.shrink_delay,
            min_eni_age: settings.min_eni_age,
            leak_age: settings.leak_age,
        },
    })
}

/// The kind of blocks that the instance takes: single addresses where it takes no /28 prefixes. The
/// targets of a policy are those of this kind.
fn kind_on(kind: BlockKind, limits: Limits) -> BlockKind {
    match kind {
        BlockKind::V4Prefix if !limits.prefixes => BlockKind::V4Address,
        BlockKind::V4Address | BlockKind::V4Prefix | BlockKind::V6Prefix => kind,
    }
}

/// What the settings ask for and the daemon or the instance cannot do, one sentence each.
#[must_use]
pub fn warnings(settings: &Settings, policy: &Policy, limits: Limits) -> Vec<String> {
    let mut warnings = settings.warnings.clone();
    warnings.extend(pool_warnings(settings, policy, limits));
    warnings
}

/// The [`warnings`] that hold on every instance.
#[must_use]
pub fn setting_warnings(settings: &Settings) -> Vec<String> {
    let overridden = overridden(settings, settings.kind);
    settings.warnings.iter().cloned().chain(overridden).collect()
}

/// The [`warnings`] about the pool.
#[must_use]
pub fn pool_warnings(settings: &Settings, policy: &Policy, limits: Limits) -> Vec<String> {
    let kind = policy.families.policy().kind;
    let no_prefixes = (settings.kind != kind).then(|| {
        "ENABLE_PREFIX_DELEGATION: this instance type takes no prefixes; it gets secondary \
         addresses"
            .to_owned()
    });
    let overridden = overridden(settings, kind);
    let out_of_reach = match stays_as_it_is(settings.provisioning) {
        true => Vec::new(),
        false => out_of_reach(policy, limits),
    };
    no_prefixes.into_iter().chain(overridden).chain(out_of_reach).collect()
}

/// Whether the pool neither grows nor shrinks.
fn stays_as_it_is(provisioning: Provisioning) -> bool {
    match provisioning {
        Provisioning::Off | Provisioning::ImdsOnly => true,
        Provisioning::Always | Provisioning::WhileSchedulable => false,
    }
}

/// Targets that have no effect with blocks of `kind`, with what to set instead. The incumbent's manifest sets some
/// for everybody, so its value is no warning. 0 asks for nothing, so it is none either.
fn overridden(settings: &Settings, kind: BlockKind) -> Vec<String> {
    let (warm, default) = (settings.warm, WarmSettings::default());
    let enis = (WARM_ENI_TARGET.name, warm.warm_eni.into(), default.warm_eni.into());
    let prefixes = (WARM_PREFIX_TARGET.name, warm.warm_prefix.into(), default.warm_prefix.into());
    let ips = (WARM_IP_TARGET.name, warm.warm_ip, default.warm_ip);
    let minimum = (MINIMUM_IP_TARGET.name, warm.minimum_ip, default.minimum_ip);
    let max_enis = (MAX_ENI.name, settings.max_enis.map_or(0, u32::from), 0);
    let by_ips = warm.warm_ip != 0 || warm.minimum_ip != 0;
    let (without_effect, why) = match kind {
        _ if stays_as_it_is(settings.provisioning) => (
            vec![enis, prefixes, ips, minimum, max_enis],
            "while nothing is changed at EC2; leave it out, or assign addresses to the node's ENIs",
        ),
        BlockKind::V6Prefix => (
            vec![enis, prefixes, ips, minimum, max_enis],
            "with ENABLE_IPv6=true, where one prefix is enough; leave it out",
        ),
        BlockKind::V4Address | BlockKind::V4Prefix if by_ips => (
            vec![enis, prefixes],
            "beside WARM_IP_TARGET or MINIMUM_IP_TARGET; set WARM_IP_TARGET to as many free \
             addresses as are wanted",
        ),
        BlockKind::V4Prefix => {
            (vec![enis], "with ENABLE_PREFIX_DELEGATION=true; set WARM_PREFIX_TARGET instead")
        }
        BlockKind::V4Address if settings.kind == BlockKind::V4Prefix => {
            (vec![prefixes], "on an instance without prefixes; set WARM_ENI_TARGET instead")
        }
        BlockKind::V4Address => (
            vec![prefixes],
            "without prefixes; set ENABLE_PREFIX_DELEGATION=true, or WARM_ENI_TARGET instead",
        ),
    };
    let set = without_effect.into_iter().filter(|(_, n, default)| *n != 0 && n != default);
    set.map(|(name, n, _): (_, u32, _)| format!("{name}: {n} has no effect {why}")).collect()
}

/// Targets above what the node can ever hold, each with the most that it can reach.
fn out_of_reach(policy: &Policy, limits: Limits) -> Vec<String> {
    let capacity = limits.capacity(policy);
    let room = capacity.min(policy.max_pods);
    let per_eni = u32::from(limits.blocks_per_eni());
    let targets = match policy.families.policy().targets {
        Targets::WarmEni(n) => vec![(WARM_ENI_TARGET.name, n.into(), capacity / per_eni.max(1))],
        Targets::WarmPrefix(n) => vec![(WARM_PREFIX_TARGET.name, n.into(), capacity / 16)],
        Targets::Ip { warm, minimum } => {
            vec![(WARM_IP_TARGET.name, warm, room), (MINIMUM_IP_TARGET.name, minimum, room)]
        }
    };
    let beyond = targets.into_iter().filter(|(_, target, most)| target > most);
    let warning = |(name, target, most): (&str, u32, u32)| {
        format!(
            "{name}: {target} is never reached, since this node takes {capacity} addresses for at \
             most {} pods; set {most} or less",
            policy.max_pods
        )
    };
    beyond.map(warning).collect()
}

/// The kubelet's usual maximum on such an instance. If the number of vCPUs is unknown, the larger bound
/// holds, since too small a number would leave pods without addresses.
fn max_pods(kind: BlockKind, limits: Limits, vcpus: Option<u32>) -> u32 {
    let blocks = u32::from(limits.enis) * u32::from(limits.blocks_per_eni());
    let (few, many) = PREFIX_MAX_PODS;
    let most = if vcpus.is_some_and(|n| n < MANY_VCPUS) { few } else { many };
    match kind {
        BlockKind::V4Address => blocks + HOST_NETWORK_PODS,
        BlockKind::V4Prefix => (blocks * 16 + HOST_NETWORK_PODS).min(most),
        BlockKind::V6Prefix => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_out_of_reach_are_warnings_with_what_to_set() {
        let check = |variables: &[(&str, &str)], expect: &[(&str, &str)]| {
            let owned = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let settings = Settings::read(&owned.collect()).unwrap();
            let limits = Limits { enis: 3, addresses_per_eni: 4, prefixes: true };
            let policy = policy(&settings, limits, Some(2)).unwrap();
            let warnings = pool_warnings(&settings, &policy, limits);
            let matches = |(warning, (start, end)): (&String, &(&str, &str))| {
                warning.starts_with(start) && warning.ends_with(end)
            };
            assert_eq!(warnings.len(), expect.len(), "{variables:?}: {warnings:?}");
            assert!(warnings.iter().zip(expect).all(matches), "{variables:?}: {warnings:?}");
        };
        let prefixes = ("ENABLE_PREFIX_DELEGATION", "true");
        check(&[], &[]);
        check(&[("WARM_ENI_TARGET", "3")], &[]);
        check(&[("WARM_ENI_TARGET", "4")], &[("WARM_ENI_TARGET: 4 is ", "set 3 or less")]);
        check(&[prefixes, ("WARM_PREFIX_TARGET", "9")], &[]);
        let expect = ("WARM_PREFIX_TARGET: 10 is ", "set 9 or less");
        check(&[prefixes, ("WARM_PREFIX_TARGET", "10")], &[expect]);
        check(&[("MINIMUM_IP_TARGET", "9"), ("WARM_IP_TARGET", "9")], &[]);
        check(
            &[("MINIMUM_IP_TARGET", "10"), ("WARM_IP_TARGET", "11")],
            &[
                ("WARM_IP_TARGET: 11 is ", "set 9 or less"),
                ("MINIMUM_IP_TARGET: 10 is ", "set 9 or less"),
            ],
        );
        let minimum = ("MINIMUM_IP_TARGET", "10");
        let expect = ("MINIMUM_IP_TARGET: 10 is ", "set 6 or less");
        check(&[minimum, ("MAX_ENI", "2")], &[expect]);
        let expect = ("MINIMUM_IP_TARGET: 10 is ", "set 5 or less");
        check(&[prefixes, minimum, ("TIDEPOOL_MAX_PODS", "5")], &[expect]);
        let ipv6 = ("ENABLE_IPv6", "true");
        check(&[prefixes, ipv6, ("WARM_ENI_TARGET", "1"), ("WARM_PREFIX_TARGET", "1")], &[]);
        let off = ("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true");
        check(&[off, ("WARM_ENI_TARGET", "1")], &[]);
        let end = "has no effect while nothing is changed at EC2; leave it out, or assign addresses to the node's ENIs";
        check(&[off, ("WARM_IP_TARGET", "70")], &[("WARM_IP_TARGET: 70 ", end)]);
        let end = "has no effect with ENABLE_IPv6=true, where one prefix is enough; leave it out";
        let expect = [("MINIMUM_IP_TARGET: 10 ", end), ("MAX_ENI: 2 ", end)];
        check(&[prefixes, ipv6, minimum, ("MAX_ENI", "2")], &expect);
    }

    #[test]
    fn delegation_needs_an_instance_with_prefixes() {
        let of = |n: &str, prefixes| {
            let set = [("ENABLE_PREFIX_DELEGATION", "true"), ("TIDEPOOL_DELEGATED_PREFIXES", n)];
            let owned = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let settings = Settings::read(&owned.collect()).unwrap();
            policy(&settings, Limits { enis: 3, addresses_per_eni: 4, prefixes }, Some(2))
        };
        assert_eq!(of("1", true).unwrap().delegated_prefixes, Some(1));
        assert_eq!(of("0", false).unwrap().delegated_prefixes, Some(0));
        assert_eq!(of("1", false).unwrap_err().variable, "TIDEPOOL_DELEGATED_PREFIXES");
    }

    #[test]
    fn primary_eni_carries_no_pods_with_custom_networking() {
        let set = [
            ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"),
            ("CLUSTER_ENDPOINT", "https://api"),
            ("MY_NODE_NAME", "n1"),
        ];
        let owned = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let settings = Settings::read(&owned.collect()).unwrap();
        let limits = crate::known_limits("m5.large").unwrap();
        let policy = policy(&settings, limits, Some(2)).unwrap();
        assert_eq!(policy.placement, Placement::ByEniConfig);
        assert_eq!((limits.max_pods(&policy), limits.capacity(&policy)), (20, 18));
    }

    #[test]
    fn targets_without_effect_are_warnings_if_set() {
        let check = |prefixes, variables: &str, expect: &[(&str, &str)]| {
            let variables = variables.split_whitespace().filter_map(|set| set.split_once('='));
            let owned = variables.map(|(k, v)| (k.to_owned(), v.to_owned()));
            let settings = Settings::read(&owned.collect()).unwrap();
            let limits = Limits { enis: 15, addresses_per_eni: 50, prefixes };
            let policy = policy(&settings, limits, Some(96)).unwrap();
            let warnings = pool_warnings(&settings, &policy, limits);
            let warnings: Vec<_> = warnings.iter().filter(|w| w.contains("no effect")).collect();
            let matches = |(warning, (start, end)): (&&String, &(&str, &str))| {
                warning.starts_with(&format!("{start} has no effect ")) && warning.ends_with(end)
            };
            assert_eq!(warnings.len(), expect.len(), "{settings:?}: {warnings:?}");
            assert!(warnings.iter().zip(expect).all(matches), "{settings:?}: {warnings:?}");
        };
        let delegation = "ENABLE_PREFIX_DELEGATION=true";
        let by_ip = "set WARM_IP_TARGET to as many free addresses as are wanted";
        for manifest in ["", "WARM_ENI_TARGET=1 WARM_PREFIX_TARGET=1"] {
            for ours in ["", delegation, "WARM_IP_TARGET=5", "MINIMUM_IP_TARGET=5"] {
                check(true, &format!("{manifest} {ours}"), &[]);
                check(false, &format!("{manifest} {ours}"), &[]);
            }
        }
        check(true, "WARM_ENI_TARGET=2", &[]);
        check(true, "WARM_ENI_TARGET=0 WARM_IP_TARGET=5", &[]);
        check(true, "WARM_ENI_TARGET=2 WARM_IP_TARGET=5", &[("WARM_ENI_TARGET: 2", by_ip)]);
        check(true, "WARM_ENI_TARGET=2 MINIMUM_IP_TARGET=5", &[("WARM_ENI_TARGET: 2", by_ip)]);
        check(
            true,
            "WARM_ENI_TARGET=2 WARM_PREFIX_TARGET=3 WARM_IP_TARGET=5",
            &[("WARM_ENI_TARGET: 2", by_ip), ("WARM_PREFIX_TARGET: 3", by_ip)],
        );
        let expect = ("WARM_PREFIX_TARGET: 3", "or WARM_ENI_TARGET instead");
        check(true, "WARM_PREFIX_TARGET=3", &[expect]);
        let set = format!("{delegation} WARM_PREFIX_TARGET=3");
        check(true, &set, &[]);
        let without = "on an instance without prefixes; set WARM_ENI_TARGET instead";
        check(false, &set, &[("WARM_PREFIX_TARGET: 3", without)]);
        let set = format!("{delegation} WARM_ENI_TARGET=2");
        check(true, &set, &[("WARM_ENI_TARGET: 2", "set WARM_PREFIX_TARGET instead")]);
        check(false, &set, &[]);
        let set = format!("{set} WARM_IP_TARGET=5");
        check(true, &set, &[("WARM_ENI_TARGET: 2", by_ip)]);

        let targets = [("MINIMUM_IP_TARGET".to_owned(), "5".to_owned())];
        let ipv6 = Settings {
            kind: BlockKind::V6Prefix,
            ..Settings::read(&targets.into_iter().collect()).unwrap()
        };
        let warnings = overridden(&ipv6, BlockKind::V6Prefix);
        assert!(
            warnings[0].starts_with("MINIMUM_IP_TARGET: 5 has no effect with ENABLE_IPv6=true")
        );
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn max_pods_are_those_of_the_published_table() {
        let check = |name: &str, kind, expect| {
            let limits = crate::known_limits(name).expect(name);
            assert_eq!(max_pods(kind, limits, crate::known_vcpus(name)), expect, "{name} {kind:?}");
        };
        check("t3.small", BlockKind::V4Address, 11);
        check("t3.medium", BlockKind::V4Address, 17);
        check("m5.large", BlockKind::V4Address, 29);
        check("m5.4xlarge", BlockKind::V4Address, 234);
        check("p5.48xlarge", BlockKind::V4Address, 100);
        check("m5.large", BlockKind::V4Prefix, 110);
        check("t3.small", BlockKind::V4Prefix, 110);
        check("m5.24xlarge", BlockKind::V4Prefix, 250);
        check("t3.nano", BlockKind::V6Prefix, 110);
        check("m5.24xlarge", BlockKind::V6Prefix, 250);
        let new = Limits { enis: 3, addresses_per_eni: 10, prefixes: true };
        assert_eq!(max_pods(BlockKind::V4Prefix, new, None), 250);
    }
}
