//! What the daemon does at the API server for its Node and its pods, as `kubectl get` shows it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::k8s::{Kubernetes, PATIENCE};
use tests::process::eventually;
use tests::story::Story;

use crate::changes::set_env;
use crate::workload::{deployment, gone, idle};

const TAINT: &str = "example.com/agent-not-ready";
/// The pods whose volume is missing at first.
const BOUND: usize = 6;

/// The rules that the options need, as the chart grants them.
fn rules() -> [Value; 2] {
    let rule = |resource: &str, verbs: &[&str]| json!({"apiGroups": [""], "resources": [resource], "verbs": verbs});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "aws-node-options"},
        "rules": [
            rule("nodes", &["get", "patch"]), rule("nodes/status", &["patch"]), rule("pods", &["get", "patch"]),
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "aws-node-options"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "aws-node-options"},
        "subjects": [{"kind": "ServiceAccount", "name": "aws-node", "namespace": "kube-system"}],
    });
    [role, binding]
}

async fn get(k8s: &Kubernetes, words: &[&str]) -> Result<Value> {
    let printed = k8s.kubectl(&[&["get", "--output=json"], words].concat()).await?;
    serde_json::from_str(&printed).context("read what kubectl prints")
}

/// The start-up taint, the condition, the annotations of nodes and of pods.
pub(crate) async fn node_object(k8s: &Kubernetes, story: &Story) -> Result<()> {
    k8s.kubectl(&["taint", "nodes", "--all", &format!("{TAINT}=true:NoSchedule")]).await?;
    let [role, binding] = rules();
    let options = [
        &format!("TIDEPOOL_STARTUP_TAINT={TAINT}")[..],
        "TIDEPOOL_NODE_CONDITION=true",
        "TIDEPOOL_NODE_ANNOTATIONS=true",
        "ANNOTATE_POD_IP=true",
    ];
    set_env(k8s, &options).await?;
    eventually("line that names the missing rule", PATIENCE, async || {
        for node in &k8s.cluster.nodes {
            let blocked = node.view().await?.blocked;
            ensure!(
                blocked.iter().any(|line| line.contains("lacks nodes: get, patch")),
                "{blocked:?}"
            );
        }
        Ok(())
    })
    .await?;
    k8s.apply(&role).await?;
    k8s.apply(&binding).await?;
    eventually("Nodes that show their network", PATIENCE, async || {
        let nodes = get(k8s, &["nodes"]).await?;
        for node in nodes["items"].as_array().context("no nodes")? {
            let taints = node["spec"]["taints"].as_array().into_iter().flatten();
            ensure!(
                taints.filter(|it| it["key"] == TAINT).count() == 0,
                "tainted: {}",
                node["spec"]
            );
            let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            let is_well =
                |it: &&Value| it["type"] == "NetworkUnavailable" && it["status"] == "False";
            ensure!(conditions.filter(is_well).count() == 1, "{}", node["status"]["conditions"]);
            let annotations = &node["metadata"]["annotations"];
            ensure!(annotations["tidepool.io/address-capacity"] == "27", "{annotations}");
            ensure!(annotations["tidepool.io/max-pods"] == "29", "{annotations}");
        }
        Ok(())
    })
    .await?;
    story.good("taint off, condition and annotations on, once the role has the rules");
    k8s.apply(&deployment("annotated", 4, idle())).await?;
    k8s.ready("annotated", 4).await?;
    eventually("annotated pods", PATIENCE, async || {
        let pods = get(k8s, &["pods", "--selector=app=annotated"]).await?;
        for pod in pods["items"].as_array().context("no pods")? {
            let annotation = &pod["metadata"]["annotations"]["vpc.amazonaws.com/pod-ips"];
            ensure!(annotation == &pod["status"]["podIP"], "{annotation} on {}", pod["status"]);
        }
        Ok(())
    })
    .await?;
    story.good("4 pods have their address as annotation");
    k8s.kubectl(&["delete", "deployment", "annotated"]).await?;
    gone(k8s, "annotated").await?;
    let names = options.map(|set| format!("{}-", set.split_once('=').unwrap_or((set, "")).0));
    set_env(k8s, &names.each_ref().map(String::as_str)).await
}

/// Pods that are bound and cannot start, since a volume is missing: their addresses are here before their ADDs.
pub(crate) async fn bound_pods(k8s: &Kubernetes, story: &Story) -> Result<()> {
    set_env(k8s, &["WARM_IP_TARGET=1"]).await?;
    let mut container = idle();
    container["volumeMounts"] = json!([{"name": "late", "mountPath": "/late"}]);
    let mut pods = deployment("bound", BOUND, container);
    pods["spec"]["template"]["spec"]["volumes"] =
        json!([{"name": "late", "configMap": {"name": "late"}}]);
    k8s.apply(&pods).await?;
    eventually("addresses for the pods that are bound", PATIENCE, async || {
        let (mut n_expected, mut n_free) = (0, 0);
        for node in &k8s.cluster.nodes {
            let counts = node.view().await?.counts.context("no counts")?;
            n_expected += counts.expected;
            n_free += counts.free;
        }
        let wanted = BOUND as u64;
        ensure!(n_expected == wanted && n_free >= wanted, "{n_expected} expected, {n_free} free");
        Ok(())
    })
    .await?;
    k8s.kubectl(&["create", "configmap", "late", "--from-literal=a=b"]).await?;
    k8s.ready("bound", BOUND).await?;
    story.good(&format!("{BOUND} pods wait for a volume, and their addresses are here"));
    k8s.kubectl(&["delete", "deployment/bound", "configmap/late"]).await?;
    gone(k8s, "bound").await?;
    set_env(k8s, &["WARM_IP_TARGET-"]).await
}
