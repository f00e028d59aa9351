//! Settings that would change what the daemon does, but for which it has nothing yet. Asking for
//! one stops the start: ignoring it in silence would be worse than not running. What the defaults
//! ask for and is not there is a warning, or no node would start.

use ipam::policy::Mode;

use super::SettingError;
use super::parse::Environment;

/// Features that are off unless switched on.
const SWITCHES: [&str; 9] = [
    "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
    "ENABLE_POD_ENI",
    "ENABLE_MULTI_NIC",
    "ANNOTATE_POD_IP",
    "ENABLE_V6_EGRESS",
    "DISABLE_NETWORK_RESOURCE_PROVISIONING",
    "ENABLE_IMDS_ONLY_MODE",
    "DISABLE_POD_V6",
    "ENABLE_BANDWIDTH_PLUGIN",
];

/// Variables of which only some values are what the daemon does; the first is the default.
const CHOICES: [(&str, &[&str]); 7] = [
    ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", &["prng"]),
    ("AWS_VPC_K8S_CNI_CONNMARK", &["0x80", "128"]),
    ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", &[""]),
    ("AWS_EXTERNAL_SERVICE_CIDRS", &[""]),
    ("NETWORK_POLICY_ENFORCING_MODE", &["standard", "none"]),
    ("ENI_CONFIG_ANNOTATION_DEF", &["k8s.amazonaws.com/eniConfig"]),
    ("ENI_CONFIG_LABEL_DEF", &["k8s.amazonaws.com/eniConfig"]),
];

/// A feature that is on unless switched off: the variable, its default, its value without the
/// feature, and what is missing.
type NotYet = (&'static str, bool, bool, &'static str);

/// For pods on IPv4.
const IPV4_NOT_YET: [NotYet; 2] = [
    (
        "AWS_VPC_K8S_CNI_EXTERNALSNAT",
        false,
        true,
        "pods' source addresses are not translated yet; the internet needs a NAT gateway",
    ),
    (
        "AWS_VPC_CNI_NODE_PORT_SUPPORT",
        true,
        false,
        "node ports do not lead to pods on secondary ENIs yet",
    ),
];

/// For pods on IPv6.
const IPV6_NOT_YET: [NotYet; 1] =
    [("ENABLE_V4_EGRESS", true, false, "pods on IPv6 do not reach IPv4 addresses yet")];

/// For all.
const NOT_YET: [NotYet; 2] = [
    (
        "AWS_MANAGE_ENIS_NON_SCHEDULABLE",
        false,
        true,
        "ENIs of unschedulable nodes are managed like all others, as yet",
    ),
    ("DISABLE_INTROSPECTION", false, true, "no introspection is served yet"),
];

/// One line for each feature that is on but not there.
pub(super) fn warnings(env: &Environment, mode: Mode) -> Result<Vec<String>, SettingError> {
    let of_family = match mode {
        Mode::SecondaryIp | Mode::Prefix => &IPV4_NOT_YET[..],
        Mode::Ipv6 => &IPV6_NOT_YET,
    };
    let mut warnings = Vec::new();
    for &(name, default, without, missing) in of_family.iter().chain(&NOT_YET) {
        if env.boolean(name, default)? != without {
            warnings.push(format!("{name}: {missing}"));
        }
    }
    Ok(warnings)
}

/// Stops at the first setting that asks for something that is not there.
pub(super) fn check(env: &Environment) -> Result<(), SettingError> {
    for name in SWITCHES {
        if env.boolean(name, false)? {
            return Err(env.error(name, "not supported yet; only false is"));
        }
    }
    if !env.boolean("ENABLE_SUBNET_DISCOVERY", true)? {
        return Err(env.error("ENABLE_SUBNET_DISCOVERY", "not supported yet; only true is"));
    }
    for (name, allowed) in CHOICES {
        let value = env.text(name).unwrap_or_default().to_ascii_lowercase();
        if !value.is_empty() && !allowed.iter().any(|choice| choice.eq_ignore_ascii_case(&value)) {
            let allowed: Vec<&str> = allowed.iter().copied().filter(|c| !c.is_empty()).collect();
            let allowed = if allowed.is_empty() { "no value".into() } else { allowed.join(", ") };
            return Err(env.error(name, &format!("not supported yet; only {allowed} is")));
        }
    }
    Ok(())
}
