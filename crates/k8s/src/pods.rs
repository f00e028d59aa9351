//! The pods that are bound to this node and have not started, by a watch of this node's pods alone.
//!
//! Of each pod only its identity is kept, and only while it counts. So memory is bounded by the node's pods.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::pin;

use ipam::id::Pod;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::Deserialize;

use crate::watching::{self, Fault};
use crate::{Cluster, News};

/// The part of the work, in the words of `ipamd status`.
const PART: &str = "this node's pods";

/// A pod as the API server shows it, with the few fields that matter here.
#[derive(Debug, Clone, Deserialize)]
struct PodObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    host_network: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
}

impl Resource for PodObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl PodObject {
    /// Whether its ADD is still to come. A pod without a phase is new.
    fn is_expected(&self) -> bool {
        let is_pending = matches!(&*self.status.phase, "" | "Pending");
        let is_ending = self.metadata.deletion_timestamp.is_some();
        is_pending && !is_ending && !self.spec.host_network && self.status.pod_ip.is_empty()
    }

    fn name(&self) -> Name {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        (part(&self.metadata.namespace), part(&self.metadata.name))
    }
}

/// Namespace and name.
type Name = (String, String);

/// The pods that count, each with its uid.
#[derive(Debug, Default)]
struct Expected {
    pods: BTreeMap<Name, String>,
    /// The pods of a list that is not complete yet.
    listed: BTreeMap<Name, String>,
}

impl Expected {
    /// Takes an event in. Returns whether what it says is complete.
    fn take_in(&mut self, event: Event<PodObject>) -> bool {
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(pod) => {
                put(&mut self.listed, &pod);
                false
            }
            Event::InitDone => {
                self.pods = std::mem::take(&mut self.listed);
                true
            }
            Event::Apply(pod) => {
                put(&mut self.pods, &pod);
                true
            }
            Event::Delete(pod) => {
                self.pods.remove(&pod.name());
                true
            }
        }
    }

    fn all(&self) -> BTreeSet<Pod> {
        let pod = |((namespace, name), uid): (&Name, &String)| Pod {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
        };
        self.pods.iter().map(pod).collect()
    }
}

fn put(pods: &mut BTreeMap<Name, String>, pod: &PodObject) {
    if pod.is_expected() {
        pods.insert(pod.name(), pod.metadata.uid.clone().unwrap_or_default());
    } else {
        pods.remove(&pod.name());
    }
}

/// Watches the pods of the Node `node`, and tells `tell` at each change which of them have not started.
pub async fn follow_pods(cluster: &Cluster, node: &str, mut tell: impl FnMut(News)) -> Infallible {
    let pods = cluster.watched(Api::<PodObject>::all(cluster.client.clone()));
    let selected = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    // Any version will do: the API server answers from its cache, by an index, as it does for the kubelet.
    let mut events = pin!(watching::events(pods, selected.any_semantic()));
    let (mut expected, mut told) = (Expected::default(), None);
    loop {
        match watching::next(&mut events).await {
            Ok(event) => {
                if !expected.take_in(event) {
                    continue;
                }
                tell(News::Health { of: PART, fault: None });
                let news = expected.all();
                if told.as_ref() != Some(&news) {
                    told = Some(news.clone());
                    tell(News::PodsExpected(news));
                }
            }
            Err(fault) => tell(News::Health { of: PART, fault: Some(Fault::of(&fault).into()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use mangle::hostile;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, spec: Value, status: Value) -> PodObject {
        let metadata = json!({ "namespace": "default", "name": name, "uid": "u" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status }))
            .unwrap()
    }

    #[test]
    fn pods_that_start_with_an_address_of_their_own_are_expected() {
        let check = |spec: Value, status: Value, expect: bool| {
            assert_eq!(
                pod("a", spec.clone(), status.clone()).is_expected(),
                expect,
                "{spec} {status}"
            );
        };
        check(json!({}), json!({}), true);
        check(json!({ "nodeName": "n" }), json!({ "phase": "Pending" }), true);
        check(json!({ "hostNetwork": false }), json!({ "phase": "Pending", "podIP": "" }), true);
        check(json!({ "hostNetwork": true }), json!({ "phase": "Pending" }), false);
        check(json!({}), json!({ "phase": "Pending", "podIP": "10.0.0.1" }), false);
        for phase in ["Running", "Succeeded", "Failed", "Unknown"] {
            check(json!({}), json!({ "phase": phase }), false);
        }
        let mut ending = pod("a", json!({}), json!({}));
        ending.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(!ending.is_expected());
    }

    #[test]
    fn list_replaces_what_was_known() {
        let names = |expected: &Expected| -> Vec<_> {
            expected.all().into_iter().map(|pod| pod.name).collect()
        };
        let new = |name: &str| pod(name, json!({}), json!({}));
        let mut expected = Expected::default();
        assert!(!expected.take_in(Event::Init));
        assert!(!expected.take_in(Event::InitApply(new("a"))));
        assert!(names(&expected).is_empty(), "the list is not complete");
        assert!(expected.take_in(Event::InitDone));
        assert!(expected.take_in(Event::Apply(new("b"))));
        assert_eq!(names(&expected), ["a", "b"]);
        expected.take_in(Event::Apply(pod("a", json!({}), json!({ "podIP": "10.0.0.1" }))));
        assert_eq!(names(&expected), ["b"]);
        expected.take_in(Event::Init);
        expected.take_in(Event::InitApply(new("c")));
        expected.take_in(Event::InitDone);
        assert_eq!(names(&expected), ["c"]);
        expected.take_in(Event::Delete(new("c")));
        assert!(names(&expected).is_empty());
    }

    const GOOD: &str = r#"{"metadata":{"name":"a","namespace":"default","uid":"u"},
        "spec":{"nodeName":"n1","hostNetwork":false},"status":{"phase":"Pending","podIP":"10.0.0.1"}}"#;

    proptest! {
        /// A damaged pod is no pod, or one that is expected or not.
        #[test]
        fn fuzz_pod(document in hostile(vec![GOOD.as_bytes().to_vec()])) {
            let Ok(object) = serde_json::from_slice::<PodObject>(&document) else { return Ok(()) };
            let mut expected = Expected::default();
            let counts = object.is_expected();
            expected.take_in(Event::Apply(object));
            prop_assert_eq!(expected.all().len(), usize::from(counts));
        }
    }
}
