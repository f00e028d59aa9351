//! The Node, with the few fields that matter here.

use std::borrow::Cow;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

/// The taint of a cordoned node. Source: Kubernetes, "Well-Known Labels, Annotations and Taints".
const UNSCHEDULABLE: (&str, &str) = ("node.kubernetes.io/unschedulable", "NoSchedule");

/// A Node as the API server shows it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NodeObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Spec {
    unschedulable: Option<bool>,
    taints: Option<Vec<Taint>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Taint {
    key: String,
    effect: String,
}

impl NodeObject {
    /// Whether `kubectl cordon` or a taint keeps new pods off the node. The taint follows a cordon after a moment, and a node
    /// may join with the taint alone.
    pub(crate) fn is_cordoned(&self) -> bool {
        let mut taints = self.spec.taints.iter().flatten();
        self.spec.unschedulable == Some(true)
            || taints.any(|taint| (&*taint.key, &*taint.effect) == UNSCHEDULABLE)
    }
}

impl Resource for NodeObject {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use mangle::hostile;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn cordon_and_its_taint_count() {
        let check = |spec: Value, expect: bool| {
            let object = json!({ "metadata": { "name": "n1" }, "spec": spec });
            let node: NodeObject = serde_json::from_value(object).unwrap();
            assert_eq!(node.is_cordoned(), expect, "{spec}");
        };
        let taint =
            |key: &str, effect: &str| json!({ "taints": [{ "key": key, "effect": effect }] });
        check(json!({}), false);
        check(json!({ "unschedulable": true }), true);
        check(json!({ "unschedulable": null, "taints": null }), false);
        check(taint("node.kubernetes.io/unschedulable", "NoSchedule"), true);
        check(taint("node.kubernetes.io/unschedulable", "PreferNoSchedule"), false);
        check(taint("node.kubernetes.io/not-ready", "NoSchedule"), false);
    }

    const GOOD: &str = r#"{"metadata":{"name":"n1","labels":{"a":"b"}},"spec":{"unschedulable":true,
        "taints":[{"key":"node.kubernetes.io/unschedulable","effect":"NoSchedule","timeAdded":null}]}}"#;

    proptest! {
        /// A damaged Node is no Node, or one that is cordoned or not.
        #[test]
        fn fuzz_node(document in hostile(vec![GOOD.as_bytes().to_vec()])) {
            if let Ok(node) = serde_json::from_slice::<NodeObject>(&document) {
                node.is_cordoned();
            }
        }
    }
}
