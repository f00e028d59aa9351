//! Settings that ask for a feature that is not built. If a user has switched it on, the daemon does not start,
//! since ignoring the setting would be worse. If only the default asks for it, there is a warning, since an
//! error would stop every start. A setting of another part of amazon-vpc-cni-k8s is a warning too.

use crate::registry::{ALL, Support};
use crate::{SettingError, Variables};

/// One line for each feature that is asked for by default and not built, and for each setting without effect.
pub(crate) fn warnings(variables: &Variables) -> Result<Vec<String>, SettingError> {
    let mut warnings = Vec::new();
    for setting in ALL {
        let name = setting.name;
        match setting.support {
            Support::Missing { without, what } => {
                if variables.boolean(setting)? != without {
                    warnings.push(format!("{name}: {what}"));
                }
            }
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
    Ok(warnings)
}

/// Refuses the first setting that asks for a feature that is not built.
pub(crate) fn check(variables: &Variables) -> Result<(), SettingError> {
    for setting in ALL {
        match setting.support {
            Support::Full
            | Support::Missing { .. }
            | Support::NoEffect { .. }
            | Support::Ignored => {}
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
