//! The permissions that each part of the work at the API server needs, for people who have to grant them.

use std::collections::BTreeSet;

use ipam::policy::Placement;
use settings::Settings;

/// The reason of the event about a permission that is missing.
pub(super) const REASON: &str = "API_FORBIDDEN";

/// The Node's annotations.
pub(super) const NODE_ANNOTATIONS: &str = "the Node's annotations";
/// The Node's taint.
pub(super) const NODE_TAINT: &str = "the Node's start-up taint";
/// The Node's condition.
pub(super) const NODE_CONDITION: &str = "the Node's condition";
/// The annotations of pods.
pub(super) const POD_ANNOTATIONS: &str = "the annotations of pods";

/// The rule of a role that a part needs; `None` for a part without one.
pub(super) fn rule(of: &str) -> Option<&'static str> {
    Some(match of {
        "this Node" => "nodes: list, watch",
        "this node's pods" => "pods: list, watch",
        "its ENIConfig" => "eniconfigs of crd.k8s.amazonaws.com: list, watch",
        "settings for all nodes" | "settings for its group" => "configmaps: list, watch",
        "events" => "events of events.k8s.io: create, patch",
        NODE_ANNOTATIONS => "nodes: patch",
        NODE_TAINT => "nodes: get, patch",
        NODE_CONDITION => "nodes/status: patch",
        POD_ANNOTATIONS => "pods: get, patch",
        _ => return None,
    })
}

/// The parts that work by default, so that a role without the permission is no mistake.
pub(super) fn may_be_missing(settings: &Settings) -> BTreeSet<&'static str> {
    let mut parts = BTreeSet::new();
    if !settings.on_node.early_demand_is_set {
        parts.insert("this node's pods");
    }
    let maps_are_set = settings.settings_maps.as_ref().is_some_and(|maps| maps.is_set);
    if !maps_are_set {
        parts.extend(["settings for all nodes", "settings for its group"]);
    }
    // The Node names the group, and with custom networking the ENIConfig. It shows a cordon.
    let by_eni_config = settings.placement == Placement::ByEniConfig;
    if !maps_are_set && !by_eni_config && !settings.on_node.cordon_is_set {
        parts.insert("this Node");
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_may_be_missing_for_what_nobody_has_set() {
        let check = |text: &str, expect: &[&str]| {
            let set = text.split_whitespace().filter_map(|set| set.split_once('='));
            let variables = set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let parts = may_be_missing(&Settings::read(&variables).unwrap());
            assert_eq!(parts.into_iter().collect::<Vec<_>>(), expect, "{text}");
        };
        let maps = ["settings for all nodes", "settings for its group"];
        check("", &[&maps[..], &["this Node", "this node's pods"]].concat());
        check("TIDEPOOL_EARLY_DEMAND=true", &[&maps[..], &["this Node"]].concat());
        check("TIDEPOOL_SETTINGS=kube-system/ours", &["this node's pods"]);
        let all = [&maps[..], &["this Node", "this node's pods"]].concat();
        check("TIDEPOOL_SETTINGS=off", &all);
        let heeding = "AWS_MANAGE_ENIS_NON_SCHEDULABLE=false";
        check(heeding, &[&maps[..], &["this node's pods"]].concat());
        check("AWS_MANAGE_ENIS_NON_SCHEDULABLE=true", &all);
        let custom =
            "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true CLUSTER_ENDPOINT=http://a MY_NODE_NAME=n";
        check(custom, &[&maps[..], &["this node's pods"]].concat());
    }
}
