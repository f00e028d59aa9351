//! What is put on the node for the container runtime: where, and what the plugin's part of it says.

use std::path::PathBuf;

use crate::registry::{
    AWS_VPC_K8S_PLUGIN_LOG_FILE, AWS_VPC_K8S_PLUGIN_LOG_LEVEL, ENABLE_BANDWIDTH_PLUGIN,
    HOST_CNI_BIN_PATH, HOST_CNI_CONFDIR_PATH,
};
use crate::{Error, LogLevel, SettingError, Variables, log_level};

/// The settings of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallSettings {
    /// `HOST_CNI_BIN_PATH`: the runtime's directory of plugins.
    pub plugins: PathBuf,
    /// `HOST_CNI_CONFDIR_PATH`: the runtime's directory of conflists.
    pub conflists: PathBuf,
    /// `AWS_VPC_K8S_PLUGIN_LOG_FILE`; `None` if it is `stderr`.
    pub plugin_log_file: Option<PathBuf>,
    /// `AWS_VPC_K8S_PLUGIN_LOG_LEVEL`.
    pub plugin_log_level: LogLevel,
    /// `ENABLE_BANDWIDTH_PLUGIN`.
    pub limits_bandwidth: bool,
}

impl InstallSettings {
    /// Reads them from this process's environment, and no other settings. A settings file that is not there is left out, and
    /// returned: an init container gets the environment of all containers, and the file may be another's.
    ///
    /// # Errors
    /// For the first bad value among them, and for a settings file that is there and cannot be used.
    pub fn from_process() -> Result<(Self, Option<PathBuf>), Error> {
        let (variables, missing) = Variables::of_process_without_missing_file()?;
        Ok((settings(&variables)?, missing))
    }
}

pub(crate) fn settings(variables: &Variables) -> Result<InstallSettings, SettingError> {
    Ok(InstallSettings {
        plugins: variables.path(&HOST_CNI_BIN_PATH)?,
        conflists: variables.path(&HOST_CNI_CONFDIR_PATH)?,
        plugin_log_file: plugin_log_file(variables)?,
        plugin_log_level: log_level(variables, &AWS_VPC_K8S_PLUGIN_LOG_LEVEL)?,
        limits_bandwidth: variables.boolean(&ENABLE_BANDWIDTH_PLUGIN)?,
    })
}

/// `stdout` is refused, since the runtime reads the plugin's result there.
fn plugin_log_file(variables: &Variables) -> Result<Option<PathBuf>, SettingError> {
    let setting = &AWS_VPC_K8S_PLUGIN_LOG_FILE;
    if variables.text(setting).is_some_and(|text| text.eq_ignore_ascii_case("stderr")) {
        return Ok(None);
    }
    let path = variables.path(setting);
    path.map(Some).map_err(|_| variables.error(setting, "expected stderr or an absolute path"))
}
