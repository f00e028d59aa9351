//! Whether AWS's network policy agent is used, and what it cannot police.

use crate::family::Asked;
use crate::registry::{
    AWS_VPC_K8S_CNI_VETHPREFIX, NETWORK_POLICY_ENFORCING_MODE, TIDEPOOL_DUAL_STACK,
};
use crate::{SettingError, Variables};

/// How pods start under network policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnforcingMode {
    /// A pod may send and receive everything until its policies are known.
    Standard,
    /// A pod may send and receive nothing until then.
    Strict,
}

/// `None` if the agent is not used. What the agent cannot police is an error with `strict`. With `standard` it is a
/// warning, since an agent that enforces nothing may be on the node.
pub(crate) fn mode(
    variables: &Variables,
    asked: Asked,
) -> Result<(Option<EnforcingMode>, Vec<String>), SettingError> {
    let setting = &NETWORK_POLICY_ENFORCING_MODE;
    let mode = match &*variables.text(setting).unwrap_or_default().to_ascii_lowercase() {
        "" | "none" => return Ok((None, Vec::new())),
        "standard" => EnforcingMode::Standard,
        "strict" => EnforcingMode::Strict,
        _ => return Err(variables.error(setting, "expected standard, strict or none")),
    };
    let prefix = &AWS_VPC_K8S_CNI_VETHPREFIX;
    let other_names = variables.text(prefix).is_some_and(|text| text != "eni");
    let unpoliced = [
        (
            other_names,
            prefix,
            "the network policy agent finds only links whose names begin with eni",
        ),
        (
            asked.dual.is_some(),
            &TIDEPOOL_DUAL_STACK,
            "the network policy agent polices one family of addresses",
        ),
    ];
    let mut warnings = Vec::new();
    for (_, beside, why) in unpoliced.into_iter().filter(|(applies, ..)| *applies) {
        match mode {
            EnforcingMode::Strict => {
                let why = format!("not beside {}: {why}", beside.name);
                return Err(variables.error(setting, &why));
            }
            EnforcingMode::Standard => warnings.push(format!("{}: {why}", setting.name)),
        }
    }
    Ok((Some(mode), warnings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let owned = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Settings::read(&owned.collect())
    }

    const MODE: &str = "NETWORK_POLICY_ENFORCING_MODE";

    #[test]
    fn mode_is_read_in_any_case_and_unset_means_no_agent() {
        let check = |value: &str, expect: Option<EnforcingMode>| {
            let settings = read(&[(MODE, value)]).unwrap();
            assert_eq!(settings.network_policies, expect, "{value}");
            assert_eq!(settings.warnings, read(&[]).unwrap().warnings, "{value}");
        };
        assert_eq!(read(&[]).unwrap().network_policies, None);
        check("", None);
        check("None", None);
        check("standard", Some(EnforcingMode::Standard));
        check("STRICT", Some(EnforcingMode::Strict));
        let error = read(&[(MODE, "loose")]).unwrap_err().to_string();
        assert!(error.ends_with("expected standard, strict or none"), "{error}");
    }

    #[test]
    fn what_the_agent_cannot_police_is_refused_or_warned_of() {
        let dual = [
            ("ENABLE_IPv4", "true"),
            ("ENABLE_IPv6", "true"),
            ("ENABLE_PREFIX_DELEGATION", "true"),
        ];
        for (beside, part) in [
            (&[("AWS_VPC_K8S_CNI_VETHPREFIX", "cali")][..], "begin with eni"),
            (&dual[..], "one family"),
        ] {
            let with = |mode| read(&[beside, &[(MODE, mode)]].concat());
            let error = with("strict").unwrap_err().to_string();
            assert!(error.starts_with(MODE) && error.contains(part), "{error}");
            let warnings = with("standard").unwrap().warnings;
            assert!(warnings.iter().any(|it| it.contains(part)), "{warnings:?}");
            let warnings = with("none").unwrap().warnings;
            assert!(!warnings.iter().any(|it| it.contains(part)), "{warnings:?}");
        }
        let ipv6 =
            [("ENABLE_IPv6", "true"), ("ENABLE_PREFIX_DELEGATION", "true"), (MODE, "strict")];
        assert_eq!(read(&ipv6).unwrap().network_policies, Some(EnforcingMode::Strict));
    }
}
