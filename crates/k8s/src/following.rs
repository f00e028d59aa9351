//! Follows what the cluster says to a node: the Node shows whether it is cordoned, and names its ENIConfig and its group. The
//! objects of these names say the rest.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::{Pin, pin};

use futures::Stream;
use ipam::eni_config::{EniConfigAnswer, EniConfigKeys};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::eni_config::EniConfigObject;
use crate::node::NodeObject;
use crate::watching::{self, Seen, Watched};
use crate::{Cluster, News};

/// The longest name of an object, in bytes. Source: RFC 1123, section 2.1, as Kubernetes uses it.
const LONGEST_NAME: usize = 253;

/// What is followed beside the Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The ENIConfig, by where the node names it.
    pub eni_config: Option<EniConfigKeys>,
    /// The `ConfigMap`s of settings.
    pub settings: Option<SettingsMaps>,
}

/// Where the cluster has settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsMaps {
    /// The namespace of the `ConfigMap`s.
    pub namespace: String,
    /// The name of the one for all nodes. That for a group of nodes is `<name>-<group>`.
    pub name: String,
    /// The node's label that names its group.
    pub group_label: String,
}

/// Watches the Node `node` and the objects that follow from it, and tells `tell` what they show.
pub async fn follow(
    cluster: &Cluster,
    node: &str,
    wanted: &Wanted,
    mut tell: impl FnMut(News),
) -> Infallible {
    let Wanted { eni_config, settings } = wanted;
    let nodes = Api::<NodeObject>::all(cluster.client.clone());
    let mut nodes = pin!(watching::one(cluster.watched(nodes), node));
    let mut was_cordoned = None;
    let mut config: Option<Named<EniConfigObject>> = None;
    let mut maps = settings.as_ref().map(|settings| Maps::new(cluster, settings));
    loop {
        tokio::select! {
            seen = watching::next(&mut nodes) => {
                tell(News::Health { of: "this Node", fault: fault_of_node(&seen, node) });
                let Seen::Present(node) = seen else { continue };
                let is_cordoned = node.is_cordoned();
                if was_cordoned.replace(is_cordoned) != Some(is_cordoned) {
                    tell(News::Cordoned(is_cordoned));
                }
                if let Some(keys) = eni_config {
                    let name = keys.name(node.labels(), node.annotations());
                    if config.as_ref().is_none_or(|config| config.name != name) {
                        let api = cluster.watched(Api::all(cluster.client.clone()));
                        config = Some(Named::watch(api, name));
                    }
                }
                if let Some(maps) = &mut maps {
                    maps.set_group(node.labels());
                    maps.news().into_iter().for_each(&mut tell);
                }
            }
            seen = next_of(&mut config) => {
                let Some(config) = &mut config else { continue };
                config_news(config, &seen).into_iter().for_each(&mut tell);
            }
            news = next_map(&mut maps) => news.into_iter().for_each(&mut tell),
        }
    }
}

fn fault_of_node<K>(seen: &Seen<K>, node: &str) -> Option<crate::Fault> {
    match seen {
        Seen::Present(_) => None,
        Seen::Absent => {
            Some(format!("there is no Node {node}; MY_NODE_NAME must be its name").into())
        }
        Seen::Failed(fault) => Some(fault.clone().into()),
    }
}

/// The watch of an object whose name another object gives.
struct Named<K> {
    name: String,
    seen: Pin<Box<dyn Stream<Item = Seen<K>> + Send>>,
    /// Whether the API server has said what the object is.
    is_answered: bool,
}

impl<K: Resource + Clone + Debug + DeserializeOwned + Send + 'static> Named<K> {
    fn watch(api: Watched<K>, name: &str) -> Self {
        let seen: Pin<Box<dyn Stream<Item = _> + Send>> = match is_object_name(name) {
            true => Box::pin(watching::one(api, name)),
            // No object can have this name, so nobody need be asked.
            false => Box::pin(futures::stream::once(async { Seen::Absent })),
        };
        Self { name: name.to_owned(), seen, is_answered: false }
    }
}

/// What the watch shows next. Never ready while there is none.
async fn next_of<K>(named: &mut Option<Named<K>>) -> Seen<K> {
    match named {
        Some(named) => watching::next(&mut named.seen).await,
        None => std::future::pending().await,
    }
}

fn config_news(config: &mut Named<EniConfigObject>, seen: &Seen<EniConfigObject>) -> Vec<News> {
    let missing = || EniConfigAnswer::Missing { name: config.name.clone() };
    let (answer, fault) = match seen {
        Seen::Present(object) => (Some(object.answer(&config.name)), None),
        Seen::Absent => (Some(missing()), None),
        // The kind is not installed. An answer that was there before is worth more than one such failure.
        Seen::Failed(fault) if fault.kind_is_unknown && !config.is_answered => {
            (Some(missing()), Some(fault.clone().into()))
        }
        Seen::Failed(fault) => (None, Some(fault.clone().into())),
    };
    config.is_answered |= answer.is_some();
    let answer = answer.map(News::EniConfig);
    answer.into_iter().chain([News::Health { of: "its ENIConfig", fault }]).collect()
}

/// The two `ConfigMap`s of settings.
struct Maps<'a> {
    cluster: &'a Cluster,
    wanted: &'a SettingsMaps,
    of_cluster: Option<Named<ConfigMap>>,
    of_group: Option<Named<ConfigMap>>,
    /// What each of them says; `None` until the API server has answered.
    said_to_all: Option<BTreeMap<String, String>>,
    said_to_group: Option<BTreeMap<String, String>>,
}

impl<'a> Maps<'a> {
    fn new(cluster: &'a Cluster, wanted: &'a SettingsMaps) -> Self {
        let api = cluster.watched(Api::namespaced(cluster.client.clone(), &wanted.namespace));
        Self {
            cluster,
            wanted,
            of_cluster: Some(Named::watch(api, &wanted.name)),
            of_group: None,
            said_to_all: None,
            said_to_group: None,
        }
    }

    /// Watches the map of the group that the node's labels name. A node without a group has an empty one.
    fn set_group(&mut self, labels: &BTreeMap<String, String>) {
        let group = labels.get(&self.wanted.group_label).filter(|group| !group.is_empty());
        let Some(group) = group else {
            (self.of_group, self.said_to_group) = (None, Some(BTreeMap::new()));
            return;
        };
        let name = format!("{}-{group}", self.wanted.name);
        if self.of_group.as_ref().is_none_or(|map| map.name != name) {
            let api = Api::namespaced(self.cluster.client.clone(), &self.wanted.namespace);
            let api = self.cluster.watched(api);
            (self.of_group, self.said_to_group) = (Some(Named::watch(api, &name)), None);
        }
    }

    /// What both say together, once both have.
    fn news(&self) -> Option<News> {
        let (Some(cluster), Some(group)) = (&self.said_to_all, &self.said_to_group) else {
            return None;
        };
        Some(News::Settings { cluster: cluster.clone(), group: group.clone() })
    }
}

/// What one of the maps shows next. Never ready if none is wanted.
async fn next_map(maps: &mut Option<Maps<'_>>) -> Vec<News> {
    let Some(maps) = maps else { return std::future::pending().await };
    let (of, seen, said) = tokio::select! {
        seen = next_of(&mut maps.of_cluster) => ("settings for all nodes", seen, &mut maps.said_to_all),
        seen = next_of(&mut maps.of_group) => ("settings for its group", seen, &mut maps.said_to_group),
    };
    let fault = match seen {
        Seen::Present(map) => {
            *said = Some(map.data.unwrap_or_default());
            None
        }
        Seen::Absent => {
            *said = Some(BTreeMap::new());
            None
        }
        Seen::Failed(fault) => Some(fault.into()),
    };
    let news = maps.news().filter(|_| fault.is_none());
    news.into_iter().chain([News::Health { of, fault }]).collect()
}

/// Whether an object may have this name. Another text would be more than a name in a selector.
pub(crate) fn is_object_name(name: &str) -> bool {
    let is_part =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(is_part)
}
