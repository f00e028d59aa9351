//! Which address families pods have, and which blocks EC2 is asked for.

use ipam::block::BlockKind;
use ipam::policy::Needs;

use crate::registry::{
    AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG, DISABLE_POD_V6, ENABLE_IPv4, ENABLE_IPv6,
    ENABLE_PREFIX_DELEGATION, ENABLE_V6_EGRESS, Setting, TIDEPOOL_DUAL_STACK,
};
use crate::{SettingError, Variables};

/// Switches that contradict pods on IPv6, each with the reason.
static NOT_WITH_IPV6: [(&Setting, &str); 3] = [
    (
        &AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG,
        "pods' IPv6 addresses are on the primary ENI, which carries no pods with custom networking",
    ),
    (&ENABLE_V6_EGRESS, "it is for pods that have no IPv6 address of the VPC"),
    (&DISABLE_POD_V6, "it switches IPv6 off inside the pods"),
];

/// The blocks that the switches ask for together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Of the only family, or of IPv4 where there are two.
    pub(crate) kind: BlockKind,
    /// With both families, what a pod needs to start.
    pub(crate) dual: Option<Needs>,
}

impl Asked {
    fn one(kind: BlockKind) -> Self {
        Self { kind, dual: None }
    }
}

/// The blocks that the switches ask for together.
///
/// # Errors
/// For the first switch that contradicts the others, with what to set instead.
/// Source, but for both families: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`, `isConfigValid`.
pub(crate) fn asked(variables: &Variables) -> Result<Asked, SettingError> {
    let ipv6 = variables.boolean(&ENABLE_IPv6)?;
    let ipv4 = variables.optional_boolean(&ENABLE_IPv4)?.unwrap_or(!ipv6);
    let prefixes = variables.boolean(&ENABLE_PREFIX_DELEGATION)?;
    let needs = needs(variables)?;
    let of_ipv4 = if prefixes { BlockKind::V4Prefix } else { BlockKind::V4Address };
    match (ipv4, ipv6) {
        (true, false) => Ok(Asked::one(of_ipv4)),
        (false, true) if prefixes => {
            check_ipv6(variables).map(|()| Asked::one(BlockKind::V6Prefix))
        }
        (false, true) => Err(variables.error(
            &ENABLE_IPv6,
            "pods get their IPv6 addresses from a prefix: set ENABLE_PREFIX_DELEGATION=true too",
        )),
        (true, true) => check_ipv6(variables).map(|()| Asked { kind: of_ipv4, dual: Some(needs) }),
        (false, false) => Err(variables.error(
            &ENABLE_IPv4,
            "pods have addresses of one family at least: set ENABLE_IPv4=true or ENABLE_IPv6=true",
        )),
    }
}

fn needs(variables: &Variables) -> Result<Needs, SettingError> {
    match variables.text(&TIDEPOOL_DUAL_STACK) {
        None | Some("required") => Ok(Needs::Each),
        Some("preferred") => Ok(Needs::Any),
        Some(_) => Err(variables.error(&TIDEPOOL_DUAL_STACK, "expected required or preferred")),
    }
}

fn check_ipv6(variables: &Variables) -> Result<(), SettingError> {
    for (setting, why) in NOT_WITH_IPV6 {
        if variables.boolean(setting)? {
            let instead =
                format!("not with ENABLE_IPv6=true, since {why}: set one of the two to false");
            return Err(variables.error(setting, &instead));
        }
    }
    Ok(())
}
