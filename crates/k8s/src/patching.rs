//! Changes of objects at the API server: the annotations, the taint and the condition of this Node, and the annotation of a
//! pod. Each is one request with a bound; whoever wants it repeats it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use ipam::id::Pod as PodId;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::following::is_object_name;
use crate::{Cluster, Fault};

/// The name of whoever changes something, for the API server's own records.
const MANAGER: &str = "tidepool-ipamd";

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchFault {
    /// The object is not there, or is another one of that name. Nothing is to be done.
    Gone,
    /// Somebody has changed it at the same time. It may be tried again at once.
    Conflict,
    /// It has failed.
    Failed(Fault),
}

/// `NetworkUnavailable`, as the Node is to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkCondition {
    /// Whether the network is unavailable.
    pub is_unavailable: bool,
    /// Its cause, one word in `CamelCase`.
    pub reason: &'static str,
    /// Its cause for people.
    pub message: String,
}

impl Cluster {
    /// Sets annotations of the Node `node`, and leaves others as they are.
    ///
    /// # Errors
    /// If the API server does not do it.
    pub async fn annotate_node(
        &self,
        node: &str,
        annotations: &BTreeMap<&str, String>,
    ) -> Result<(), PatchFault> {
        let patch = json!({ "metadata": { "annotations": annotations } });
        patch_object(&self.nodes(), node, &Patch::Merge(patch)).await
    }

    /// Takes the taints with the key `key` off the Node `node`. Returns whether there were any.
    ///
    /// # Errors
    /// If the API server does not do it. A change by somebody else meanwhile is a conflict, so that no taint of others is lost.
    pub async fn remove_taint(&self, node: &str, key: &str) -> Result<bool, PatchFault> {
        let api = self.nodes();
        let found = api.get(node).await.map_err(|fault| PatchFault::of(&fault))?;
        let taints = found.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let kept: Vec<_> = taints.iter().filter(|taint| taint.key != key).collect();
        if kept.len() == taints.len() {
            return Ok(false);
        }
        let metadata = json!({ "resourceVersion": found.metadata.resource_version });
        let patch = json!({ "metadata": metadata, "spec": { "taints": kept } });
        patch_object(&api, node, &Patch::Merge(patch)).await.map(|()| true)
    }

    /// Sets the condition `NetworkUnavailable` of the Node `node`, and leaves its other conditions as they are.
    ///
    /// # Errors
    /// If the API server does not do it.
    pub async fn set_network_condition(
        &self,
        node: &str,
        condition: &NetworkCondition,
    ) -> Result<(), PatchFault> {
        let NetworkCondition { is_unavailable, reason, message } = condition;
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({
            "type": "NetworkUnavailable",
            "status": if *is_unavailable { "True" } else { "False" },
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        });
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        let patched = self.nodes().patch_status(node, &parameters(), &patch).await;
        patched.map(|_| ()).map_err(|fault| PatchFault::of(&fault))
    }

    /// Sets an annotation of a pod.
    ///
    /// # Errors
    /// If the API server does not do it. A pod that has gone, or another one of its name, is left alone.
    pub async fn annotate_pod(
        &self,
        pod: &PodId,
        key: &str,
        value: &str,
    ) -> Result<(), PatchFault> {
        let PodId { namespace, name, uid } = pod;
        if !is_object_name(namespace) || !is_object_name(name) {
            return Err(PatchFault::Gone);
        }
        let mut metadata = json!({ "annotations": { key: value } });
        if !uid.is_empty() {
            metadata["uid"] = json!(uid);
        }
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        match patch_object(&api, name, &Patch::Merge(json!({ "metadata": metadata }))).await {
            // The uid is of another pod.
            Err(PatchFault::Conflict) => Err(PatchFault::Gone),
            done => done,
        }
    }

    /// Empties the annotation `key` of a pod, if it is `before`.
    ///
    /// # Errors
    /// If the API server does not do it. A pod that has gone, or another one of its name, is left alone.
    pub async fn empty_pod_annotation(
        &self,
        pod: &PodId,
        key: &str,
        before: &str,
    ) -> Result<(), PatchFault> {
        let PodId { namespace, name, uid } = pod;
        if !is_object_name(namespace) || !is_object_name(name) {
            return Err(PatchFault::Gone);
        }
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let found = api.get_metadata(name).await.map_err(|fault| PatchFault::of(&fault))?.metadata;
        let is_another = !uid.is_empty() && found.uid.as_deref() != Some(uid);
        let annotations = found.annotations.unwrap_or_default();
        if is_another || annotations.get(key).is_none_or(|value| value != before) {
            return Err(PatchFault::Gone);
        }
        let metadata = json!({
            "annotations": { key: "" },
            "resourceVersion": found.resource_version,
        });
        patch_object(&api, name, &Patch::Merge(json!({ "metadata": metadata }))).await
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }
}

async fn patch_object<K: Clone + DeserializeOwned + Debug, P: Serialize + Debug>(
    api: &Api<K>,
    name: &str,
    patch: &Patch<P>,
) -> Result<(), PatchFault> {
    let patched = api.patch(name, &parameters(), patch).await;
    patched.map(|_| ()).map_err(|fault| PatchFault::of(&fault))
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

impl PatchFault {
    fn of(fault: &kube::Error) -> Self {
        match fault {
            kube::Error::Api(status) if status.code == 404 => PatchFault::Gone,
            // A uid that differs is invalid for some versions of the API server.
            kube::Error::Api(status) if matches!(status.code, 409 | 422) => PatchFault::Conflict,
            fault => PatchFault::Failed(crate::watching::fault_of(fault)),
        }
    }
}
