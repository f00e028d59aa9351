//! Settings from the cluster's `ConfigMap`s: for all nodes, and for a group of nodes. Only live settings may be there, since
//! the daemon that reads them runs already.

use std::collections::BTreeMap;

use crate::Variables;
use crate::misspelt;
use crate::registry::{ALL, TakesEffect};
use crate::variables::Source;

/// What the two maps set, as names and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigMaps {
    /// For all nodes of the cluster.
    pub cluster: BTreeMap<String, String>,
    /// For the group that this node is in. It overrides the other.
    pub group: BTreeMap<String, String>,
}

/// Why the maps are refused, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigMapError {
    /// No setting has that name.
    #[error("{from}: {name:?} is no setting of ipamd{}", hint(*.meant))]
    UnknownName {
        /// The map.
        from: Source,
        /// The name, shortened.
        name: String,
        /// The setting with nearly that name.
        meant: Option<&'static str>,
    },
    /// The setting takes effect only at a start.
    #[error("{from}: {name} takes effect at the start alone; set it in the environment")]
    NotLive {
        /// The map.
        from: Source,
        /// The setting.
        name: &'static str,
    },
}

fn hint(meant: Option<&'static str>) -> String {
    meant.map_or_else(String::new, |name| format!("; is {name} meant?"))
}

/// How much of a wrong name is shown, in characters.
const SHOWN: usize = 100;

impl Variables {
    /// These variables, overridden by those in `maps`.
    ///
    /// # Errors
    /// For the first name that is no setting, or no live one.
    pub(crate) fn with_config_maps(mut self, maps: &ConfigMaps) -> Result<Self, ConfigMapError> {
        let ConfigMaps { cluster, group } = maps;
        for (from, map) in [(Source::ClusterMap, cluster), (Source::GroupMap, group)] {
            for (name, value) in map {
                let Some(setting) = ALL.iter().find(|setting| setting.name == name) else {
                    let meant = misspelt::meant(name).map(|setting| setting.name);
                    let name = name.chars().take(SHOWN).collect();
                    return Err(ConfigMapError::UnknownName { from, name, meant });
                };
                if setting.takes_effect != TakesEffect::Live {
                    return Err(ConfigMapError::NotLive { from, name: setting.name });
                }
                self.set(setting, value.trim().to_owned(), from);
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::registry::WARM_IP_TARGET;

    fn map(text: &str) -> BTreeMap<String, String> {
        let set = text.split_whitespace().filter_map(|set| set.split_once('='));
        set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn with(environment: &str, cluster: &str, group: &str) -> Result<Variables, ConfigMapError> {
        let maps = ConfigMaps { cluster: map(cluster), group: map(group) };
        map(environment).into_iter().collect::<Variables>().with_config_maps(&maps)
    }

    #[test]
    fn group_overrides_cluster_and_both_the_environment() {
        let check = |environment: &str, cluster: &str, group: &str, n: u32, from: Source| {
            let variables = with(environment, cluster, group).unwrap();
            assert_eq!(Settings::read(&variables).unwrap().warm.warm_ip, n, "{cluster} {group}");
            assert_eq!(variables.effective(&WARM_IP_TARGET).1, from);
        };
        let warm = |n: u32| format!("WARM_IP_TARGET={n}");
        check(&warm(1), "", "", 1, Source::Environment);
        check(&warm(1), &warm(2), "", 2, Source::ClusterMap);
        check(&warm(1), &warm(2), &warm(3), 3, Source::GroupMap);
        check("", "MAX_ENI=2", &warm(3), 3, Source::GroupMap);
    }

    #[test]
    fn maps_with_other_names_are_refused() {
        let check = |cluster: &str, group: &str, expect: &str| {
            assert_eq!(with("", cluster, group).unwrap_err().to_string(), expect);
        };
        let map = "ConfigMap: ";
        check("WARM_IP=2", "", &format!("{map}\"WARM_IP\" is no setting of ipamd"));
        let expect = "CLUSTER_NAME takes effect at the start alone; set it in the environment";
        check("", "CLUSTER_NAME=a", &format!("node group's {map}{expect}"));
        let meant = "\"WARM_IP_TARGT\" is no setting of ipamd; is WARM_IP_TARGET meant?";
        check("WARM_IP_TARGT=1", "", &format!("{map}{meant}"));
    }
}
