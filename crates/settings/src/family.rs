//! Which address family pods have, and which blocks EC2 is asked for.

use ipam::block::BlockKind;

use crate::registry::{
    AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG, DISABLE_POD_V6, ENABLE_IPv4, ENABLE_IPv6,
    ENABLE_PREFIX_DELEGATION, ENABLE_V6_EGRESS, Setting,
};
use crate::{SettingError, Variables};

/// Switches that contradict pods on IPv6.
static NOT_WITH_IPV6: [&Setting; 3] =
    [&AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG, &ENABLE_V6_EGRESS, &DISABLE_POD_V6];

/// The kind of blocks that the switches ask for together.
///
/// # Errors
/// For the first switch that contradicts the others, with what to set instead.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`, `isConfigValid`.
pub(crate) fn kind(variables: &Variables) -> Result<BlockKind, SettingError> {
    let ipv6 = variables.boolean(&ENABLE_IPv6)?;
    let ipv4 = variables.optional_boolean(&ENABLE_IPv4)?.unwrap_or(!ipv6);
    let prefixes = variables.boolean(&ENABLE_PREFIX_DELEGATION)?;
    match (ipv4, ipv6) {
        (true, false) if prefixes => Ok(BlockKind::V4Prefix),
        (true, false) => Ok(BlockKind::V4Address),
        (false, true) if prefixes => check_ipv6(variables).map(|()| BlockKind::V6Prefix),
        (false, true) => Err(variables.error(
            &ENABLE_IPv6,
            "pods get their IPv6 addresses from a prefix: set ENABLE_PREFIX_DELEGATION=true too",
        )),
        (true, true) => Err(variables.error(
            &ENABLE_IPv4,
            "pods have addresses of one family: with ENABLE_IPv6=true set ENABLE_IPv4=false",
        )),
        (false, false) => Err(variables.error(
            &ENABLE_IPv4,
            "pods have addresses of one family: set ENABLE_IPv4=true or ENABLE_IPv6=true",
        )),
    }
}

fn check_ipv6(variables: &Variables) -> Result<(), SettingError> {
    for setting in NOT_WITH_IPV6 {
        if variables.boolean(setting)? {
            let instead = "not with ENABLE_IPv6=true: set one of the two to false";
            return Err(variables.error(setting, instead));
        }
    }
    Ok(())
}
