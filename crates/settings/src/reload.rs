//! New settings for a daemon that runs.

use ipam::policy::{Limits, Policy};

use crate::registry::{ALL, Setting, TakesEffect};
use crate::{Error, SettingError, Settings, Variables, policy};

/// The settings in force in a daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// Settings that need a restart have their values from the start. The others have the values read last.
    pub variables: Variables,
    /// The settings that `variables` make up.
    pub settings: Settings,
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq)]
pub struct Reloaded {
    /// The settings from now on.
    pub in_force: InForce,
    /// The policy from now on.
    pub policy: Policy,
    /// The live settings that have changed, in the registry's order.
    pub changed: Vec<&'static Setting>,
    /// The settings that differ from those in force, but take effect only at the next start; in the
    /// registry's order.
    pub at_next_start: Vec<&'static Setting>,
}

impl InForce {
    /// Reads [`Variables::of_process`].
    ///
    /// # Errors
    /// For the first line of the file that is wrong, or the first bad value.
    pub fn of_process() -> Result<Self, Error> {
        Ok(Self::read(Variables::of_process()?)?)
    }

    /// Reads `variables`, as a daemon does at its start.
    ///
    /// # Errors
    /// For the first bad value.
    pub fn read(variables: Variables) -> Result<Self, SettingError> {
        let settings = Settings::read(&variables)?;
        Ok(Self { variables, settings })
    }
}

/// The settings in force after the daemon has read `next`. `limits` and `vcpus` are as for [`policy`]. Live
/// settings come from `next`; the others stay as in `current`.
///
/// # Errors
/// For the first bad value of `next`, even if it would take effect only at the next start. Also if
/// the live settings of `next` contradict the others of `current`, or the instance cannot do what
/// they ask for. Nothing has changed then.
pub fn reload(
    current: &InForce,
    next: &Variables,
    limits: Limits,
    vcpus: Option<u32>,
) -> Result<Reloaded, SettingError> {
    Settings::read(next)?;
    let differ = |setting: &&&'static Setting| {
        current.variables.effective(setting).0 != next.effective(setting).0
    };
    let (changed, at_next_start): (Vec<&'static Setting>, Vec<_>) =
        ALL.iter().filter(differ).partition(|setting| setting.takes_effect == TakesEffect::Live);
    let mut variables = current.variables.clone();
    for setting in ALL.iter().filter(|setting| setting.takes_effect == TakesEffect::Live) {
        variables.take(setting, next);
    }
    let in_force = InForce::read(variables)?;
    let policy = policy(&in_force.settings, limits, vcpus)?;
    Ok(Reloaded { in_force, policy, changed, at_next_start })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ipam::block::BlockKind;
    use ipam::policy::Targets;

    use super::*;
    use crate::LogLevel;

    const LIMITS: Limits = Limits { enis: 3, addresses_per_eni: 10, prefixes: true };

    fn variables(text: &str) -> Variables {
        let set = text.split_whitespace().filter_map(|set| set.split_once('='));
        set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn in_force(text: &str) -> InForce {
        InForce::read(variables(text)).unwrap()
    }

    fn names(settings: &[&Setting]) -> String {
        settings.iter().map(|setting| setting.name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn reload_takes_live_settings_and_names_the_others() {
        let check = |before: &str, next: &str, changed: &str, at_next_start: &str| {
            let current = in_force(before);
            let reloaded = reload(&current, &variables(next), LIMITS, Some(2)).unwrap();
            assert_eq!(names(&reloaded.changed), changed, "{next}");
            assert_eq!(names(&reloaded.at_next_start), at_next_start, "{next}");
            let again = reload(&reloaded.in_force, &variables(next), LIMITS, Some(2)).unwrap();
            assert_eq!(names(&again.changed), "", "{next}");
            assert_eq!(names(&again.at_next_start), at_next_start, "{next}");
            assert_eq!(again.policy, reloaded.policy);
            reloaded
        };
        check("", "", "", "");
        check("", "WARM_ENI_TARGET=1 MAX_ENI=", "", "");
        let grown = check("", "WARM_IP_TARGET=5", "WARM_IP_TARGET", "");
        assert_eq!(grown.policy.families.policy().targets, Targets::Ip { warm: 5, minimum: 0 });
        let shrunk = check("WARM_IP_TARGET=5", "", "WARM_IP_TARGET", "");
        assert_eq!(shrunk.policy.families.policy().targets, Targets::WarmEni(1));
        let next = "ENABLE_PREFIX_DELEGATION=true IP_COOLDOWN_PERIOD=0 CLUSTER_NAME=blue";
        let both = check("", next, "IP_COOLDOWN_PERIOD", "ENABLE_PREFIX_DELEGATION CLUSTER_NAME");
        let family = both.policy.families.policy();
        assert_eq!(family.kind, BlockKind::V4Address);
        assert_eq!(both.policy.timing.cooldown, Duration::ZERO);
        assert_eq!(both.in_force.settings.cluster, None);
        let off = check("", "DISABLE_LEAKED_ENI_CLEANUP=true", "DISABLE_LEAKED_ENI_CLEANUP", "");
        assert_eq!(off.policy.timing.leak_age, None);
    }

    #[test]
    fn reload_refuses_what_a_start_would_refuse() {
        let check = |before: &str, next: &str, expect: &str| {
            let error = reload(&in_force(before), &variables(next), LIMITS, Some(2)).unwrap_err();
            assert!(error.to_string().starts_with(expect), "{error}");
        };
        check("", "WARM_IP_TARGET=many", "WARM_IP_TARGET=\"many\": expected ");
        check("", "WARM_IP_TARGET=5 HTTP_TIMEOUT=1", "HTTP_TIMEOUT=\"1\": expected ");
        check("", "ENABLE_POD_ENI=true", "ENABLE_POD_ENI=\"true\": not supported yet");
    }

    /// The next start has no prefixes, so no prefix target is needed then. Until then there are prefixes.
    #[test]
    fn reload_refuses_live_settings_that_contradict_the_start() {
        let current = in_force("ENABLE_PREFIX_DELEGATION=true");
        let error = reload(&current, &variables("WARM_PREFIX_TARGET=0"), LIMITS, None).unwrap_err();
        assert_eq!((error.variable, &*error.value), ("WARM_PREFIX_TARGET", "0"));
    }

    #[test]
    fn log_level_changes_at_a_reload_and_the_format_does_not() {
        let next = variables("AWS_VPC_K8S_CNI_LOGLEVEL=warn TIDEPOOL_LOG_FORMAT=text");
        let reloaded = reload(&in_force(""), &next, LIMITS, Some(2)).unwrap();
        assert_eq!(reloaded.in_force.settings.log_level, LogLevel::Warn);
        assert_eq!(names(&reloaded.changed), "AWS_VPC_K8S_CNI_LOGLEVEL");
        assert_eq!(names(&reloaded.at_next_start), "TIDEPOOL_LOG_FORMAT");
    }

    /// A setting is live exactly if only the policy depends on it, or only the log.
    #[test]
    fn every_live_setting_is_part_of_the_policy() {
        let samples = "WARM_ENI_TARGET=3 WARM_PREFIX_TARGET=3 WARM_IP_TARGET=3 MINIMUM_IP_TARGET=3 \
                       MAX_ENI=2 TIDEPOOL_MAX_PODS=7 TIDEPOOL_DELEGATED_PREFIXES=0 IP_COOLDOWN_PERIOD=7 TIDEPOOL_ADD_WAIT=7s \
                       TIDEPOOL_GROW_DELAY=7s TIDEPOOL_SHRINK_DELAY=7s TIDEPOOL_MIN_ENI_AGE=7s \
                       TIDEPOOL_LEAK_AGE=7s DISABLE_LEAKED_ENI_CLEANUP=true \
                       AWS_VPC_K8S_CNI_EXTERNALSNAT=true AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=198.51.100.0/24 \
                       AWS_VPC_K8S_CNI_RANDOMIZESNAT=none AWS_VPC_CNI_NODE_PORT_SUPPORT=false \
                       AWS_VPC_K8S_CNI_CONNMARK=0x40 AWS_EXTERNAL_SERVICE_CIDRS=198.51.100.0/24 \
                       AWS_VPC_K8S_CNI_VETHPREFIX=cali TIDEPOOL_DUAL_STACK=preferred \
                       ENABLE_V4_EGRESS=false ENABLE_V6_EGRESS=true \
                       TIDEPOOL_TCP_ESTABLISHED_TIMEOUT=350 TIDEPOOL_UDP_STREAM_TIMEOUT=120 TIDEPOOL_UDP_TIMEOUT=45 \
                       DISABLE_POD_V6=true AWS_MANAGE_ENIS_NON_SCHEDULABLE=true \
                       DISABLE_NETWORK_RESOURCE_PROVISIONING=true";
        let is_of_the_policy = |setting: &&&Setting| {
            setting.takes_effect == TakesEffect::Live && setting.name != "AWS_VPC_K8S_CNI_LOGLEVEL"
        };
        let live = ALL.iter().filter(is_of_the_policy);
        assert_eq!(samples.split_whitespace().count(), live.clone().count());
        for sample in samples.split_whitespace() {
            let name = sample.split('=').next().unwrap();
            assert!(live.clone().any(|setting| setting.name == name), "{name}");
            let start = match name {
                "WARM_PREFIX_TARGET" => "ENABLE_PREFIX_DELEGATION=true",
                "TIDEPOOL_DUAL_STACK" => "ENABLE_IPv6=true ENABLE_IPv4=true",
                "ENABLE_V4_EGRESS" => "ENABLE_IPv6=true ENABLE_PREFIX_DELEGATION=true",
                _ => "",
            };
            let before = in_force(start);
            let next = variables(&format!("{start} {sample}"));
            let after = reload(&before, &next, LIMITS, Some(2)).unwrap();
            assert_ne!(after.policy, policy(&before.settings, LIMITS, Some(2)).unwrap(), "{name}");
        }
    }
}
