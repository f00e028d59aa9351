//! The settings of the cluster's `ConfigMap`s on disk. The last good ones are kept, so that a start without the API server
//! has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agent::{checked_file, error_chain};
use serde::{Deserialize, Serialize};
use settings::{ApiServer, ConfigMaps, Error, InForce, Settings, Variables};
use tracing::{error, info, warn};

/// The file, in the state directory.
const FILE: &str = "tidepool-config-maps.json";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct MapsFile {
    version: u32,
    cluster: BTreeMap<String, String>,
    group: BTreeMap<String, String>,
}

/// Where the maps are kept.
pub(crate) fn file(state_directory: &Path) -> PathBuf {
    state_directory.join(FILE)
}

/// The settings at a start, with the maps that an earlier run has kept. Maps that do not fit the environment any more are
/// left out.
pub(crate) fn recall(in_force: InForce) -> (InForce, ConfigMaps) {
    let Settings { api_server, settings_maps, state_directory, .. } = &in_force.settings;
    let are_wanted = matches!(api_server, ApiServer::Used { .. }) && settings_maps.is_some();
    let maps = if are_wanted { kept(&file(state_directory)) } else { ConfigMaps::default() };
    if maps == ConfigMaps::default() {
        return (in_force, maps);
    }
    match with(&maps) {
        Ok(with_maps) => {
            info!(?maps, "settings of ConfigMaps as an earlier run has kept them");
            (with_maps, maps)
        }
        Err(fault) => {
            let fault = error_chain(&fault);
            error!(fault, ?maps, "kept settings of ConfigMaps are refused and left out");
            (in_force, ConfigMaps::default())
        }
    }
}

fn with(maps: &ConfigMaps) -> Result<InForce, Error> {
    Ok(InForce::read(Variables::of_process_with(maps)?)?)
}

fn kept(file: &Path) -> ConfigMaps {
    match checked_file::read::<MapsFile>(file) {
        Ok(Some(MapsFile { version: VERSION, cluster, group })) => ConfigMaps { cluster, group },
        Ok(Some(_) | None) => ConfigMaps::default(),
        Err(fault) => {
            warn!(fault = format!("{fault:#}"), "kept settings of ConfigMaps cannot be used");
            ConfigMaps::default()
        }
    }
}

/// Keeps `maps` for the next start.
pub(crate) fn keep(file: &Path, maps: &ConfigMaps) {
    let ConfigMaps { cluster, group } = maps.clone();
    if let Err(fault) = checked_file::write(file, &MapsFile { version: VERSION, cluster, group }) {
        warn!(
            fault = format!("{fault:#}"),
            "settings of ConfigMaps cannot be kept for the next start"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_maps_are_read_again_or_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path());
        assert_eq!(kept(&file), ConfigMaps::default());
        let set = |value: &str| [("WARM_IP_TARGET".to_owned(), value.to_owned())].into();
        let maps = ConfigMaps { cluster: set("2"), group: set("3") };
        keep(&file, &maps);
        assert_eq!(kept(&file), maps);
        std::fs::write(&file, "[\"00000000\",{}]\n").unwrap();
        assert_eq!(kept(&file), ConfigMaps::default());
    }
}
