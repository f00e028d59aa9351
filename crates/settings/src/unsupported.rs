//! Settings that ask for a feature that is not built. The daemon does not start with them, since ignoring them would be
//! worse. A setting of another part of amazon-vpc-cni-k8s is a warning.

use crate::registry::{ALL, Support};
use crate::{SettingError, Variables};

/// One line for each setting without effect.
pub(crate) fn warnings(variables: &Variables) -> Vec<String> {
    let mut warnings = Vec::new();
    for setting in ALL {
        let name = setting.name;
        match setting.support {
            Support::NoEffect { unless, why } => {
                let Some(value) = variables.text(setting) else { continue };
                if !unless.iter().any(|one| one.eq_ignore_ascii_case(value)) {
                    let value = variables.shown(setting);
                    warnings.push(format!("{name}: {value:?} has no effect {why}"));
                }
            }
            Support::Full | Support::OnlyBoolean(_) | Support::Ignored => {}
        }
    }
    warnings
}

/// Refuses the first setting that asks for a feature that is not built.
pub(crate) fn check(variables: &Variables) -> Result<(), SettingError> {
    for setting in ALL {
        match setting.support {
            Support::Full | Support::NoEffect { .. } | Support::Ignored => {}
            Support::OnlyBoolean(built) => {
                if variables.boolean(setting)? != built {
                    let allowed = format!("not supported yet; only {built} is");
                    return Err(variables.error(setting, &allowed));
                }
            }
        }
    }
    Ok(())
}
