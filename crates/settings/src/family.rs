//! Which family pods' addresses are of, and what they come from.

use ipam::policy::Mode;

use super::SettingError;
use super::parse::Environment;

/// Switches that contradict pods on IPv6.
const NOT_WITH_IPV6: [&str; 3] =
    ["AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "ENABLE_V6_EGRESS", "DISABLE_POD_V6"];

/// The mode that the switches make together.
///
/// # Errors
///
/// For the first that does not go with the others, with what to set instead.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`, `isConfigValid`.
pub(super) fn mode(env: &Environment) -> Result<Mode, SettingError> {
    let ipv6 = env.boolean("ENABLE_IPv6", false)?;
    let ipv4 = env.boolean("ENABLE_IPv4", !ipv6)?;
    let prefixes = env.boolean("ENABLE_PREFIX_DELEGATION", false)?;
    match (ipv4, ipv6) {
        (true, false) if prefixes => Ok(Mode::Prefix),
        (true, false) => Ok(Mode::SecondaryIp),
        (false, true) if prefixes => check_ipv6(env).map(|()| Mode::Ipv6),
        (false, true) => Err(env.error(
            "ENABLE_IPv6",
            "pods get their IPv6 addresses from a prefix: set ENABLE_PREFIX_DELEGATION=true too",
        )),
        (true, true) => Err(env.error(
            "ENABLE_IPv4",
            "pods have addresses of one family: with ENABLE_IPv6=true set ENABLE_IPv4=false",
        )),
        (false, false) => Err(env.error(
            "ENABLE_IPv4",
            "pods have addresses of one family: set ENABLE_IPv4=true or ENABLE_IPv6=true",
        )),
    }
}

fn check_ipv6(env: &Environment) -> Result<(), SettingError> {
    for name in NOT_WITH_IPV6 {
        if env.boolean(name, false)? {
            return Err(env.error(name, "not with ENABLE_IPv6=true: set one of the two to false"));
        }
    }
    Ok(())
}
