//! The Node and its pods at the API server: demand that is seen early, and what the daemon shows there.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::kube::{self, ApiServer, EVENTS, NODE_NAME, NODES, PODS};
use tests::process::{PATIENCE, eventually};

use crate::all_reachable;

const TAINT: &str = "example.com/agent-not-ready";

fn bound(name: &str) -> Value {
    json!({ "kind": "Pod", "apiVersion": "v1",
        "metadata": { "namespace": "default", "name": name },
        "spec": { "nodeName": NODE_NAME }, "status": { "phase": "Pending" } })
}

fn tainted() -> Value {
    json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": NODE_NAME },
        "spec": { "taints": [
            { "key": TAINT, "effect": "NoSchedule" }, { "key": "theirs", "effect": "NoSchedule" },
        ] },
        "status": { "conditions": [{ "type": "Ready", "status": "False" }] } })
}

async fn restart_with(
    node: &mut ExecNode,
    settings: &[(&'static str, &'static str)],
) -> Result<()> {
    node.stop_ipamd().await?;
    node.configure(&kube::SETTINGS);
    node.configure(settings);
    node.start_ipamd().await
}

/// Waits until the pool has `n_free` free addresses, and counts `n_expected` pods that are about to start.
async fn until(node: &ExecNode, n_free: u64, n_expected: u64) -> Result<()> {
    eventually("free addresses for the pods that are bound", PATIENCE, async || {
        let view = node.view().await?;
        let counts = view.counts.context("no counts")?;
        ensure!((counts.free, counts.expected) == (n_free, n_expected), "{counts:?}");
        ensure!(view.in_flight.is_empty(), "{:?}", view.in_flight);
        Ok(())
    })
    .await
}

/// The addresses of pods that are bound are here before their ADDs. No ADD makes a call.
#[tokio::test(flavor = "multi_thread")]
async fn bound_pods_have_addresses_before_they_ask() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fbnd", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let api = ApiServer::start(node).await?;
        restart_with(node, &[]).await?;
        until(node, 1, 0).await.context("at rest")?;
        let names: Vec<String> = (0..5).map(|n| format!("soon{n}")).collect();
        for name in &names {
            api.put(PODS, &bound(name)).await?;
        }
        until(node, 6, 5).await.context("with pods that are bound")?;
        let metrics = node.scrape().await?;
        let n = metrics.get("tidepool_expected_pods").map(String::as_str);
        ensure!(n == Some("5"), "metric: {n:?}");
        let mut pods = Vec::new();
        for name in &names {
            pods.push(node.runtime.run(name).await?);
        }
        until(node, 1, 0).await.context("with pods that have started")?;
        all_reachable(node, &pods).await?;

        // With the setting off they count for nothing.
        restart_with(node, &[("TIDEPOOL_EARLY_DEMAND", "false")]).await?;
        api.put(PODS, &bound("never")).await?;
        until(node, 1, 0).await.context("switched off")?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// Waits until the Node fits.
async fn until_node(api: &ApiServer, what: &str, fits: impl Fn(&Value) -> bool) -> Result<()> {
    eventually(what, PATIENCE, async || {
        let node = api.get(&format!("{NODES}/{NODE_NAME}")).await?;
        ensure!(fits(&node), "{node:#}");
        Ok(())
    })
    .await
}

/// The daemon has no permission at first: that is a line in its status, which names the rule, and pods are served. Then it
/// takes its taint off, and shows capacity and condition.
#[tokio::test(flavor = "multi_thread")]
async fn node_shows_that_its_network_works() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fnod", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let api = ApiServer::start(node).await?;
        api.put(NODES, &tainted()).await?;
        api.put(PODS, &bound("web")).await?;
        api.behave("refusing 403").await?;
        let options = [
            ("TIDEPOOL_STARTUP_TAINT", TAINT),
            ("TIDEPOOL_NODE_CONDITION", "true"),
            ("TIDEPOOL_NODE_ANNOTATIONS", "true"),
            ("ANNOTATE_POD_IP", "true"),
        ];
        restart_with(node, &options).await?;
        eventually("rules that are missing", PATIENCE, async || {
            let blocked = node.view().await?.blocked;
            let names = |rule: &str| blocked.iter().any(|line| line.contains(rule));
            ensure!(names("lacks nodes: get, patch"), "the taint: {blocked:?}");
            ensure!(names("lacks nodes/status: patch"), "the condition: {blocked:?}");
            // Nobody has asked for these.
            ensure!(!names("pods: list") && !names("configmaps"), "{blocked:?}");
            Ok(())
        })
        .await?;
        let pod = node.runtime.run("web").await?;
        api.behave("well").await?;
        until_node(&api, "Node without the taint", |node| {
            node["spec"]["taints"] == json!([{ "key": "theirs", "effect": "NoSchedule" }])
        })
        .await?;
        until_node(&api, "annotations", |node| {
            let of = |key: &str| node["metadata"]["annotations"][key].clone();
            (of("tidepool.io/address-capacity"), of("tidepool.io/max-pods"))
                == (json!("27"), json!("29"))
        })
        .await?;
        until_node(&api, "condition", |node| {
            let conditions = node["status"]["conditions"].as_array();
            let is_well =
                |it: &Value| it["type"] == "NetworkUnavailable" && it["status"] == "False";
            conditions.is_some_and(|all| all.len() == 2 && all.iter().any(is_well))
        })
        .await?;
        eventually("annotation of the pod", PATIENCE, async || {
            let shown = api.get(&format!("{PODS}/web")).await?;
            let ip = &shown["metadata"]["annotations"]["vpc.amazonaws.com/pod-ips"];
            ensure!(*ip == json!(pod.ip), "{ip}, not {}", pod.ip);
            Ok(())
        })
        .await?;
        node.runtime.remove(&pod).await?;
        eventually("annotation without the address", PATIENCE, async || {
            let shown = api.get(&format!("{PODS}/web")).await?;
            let ip = &shown["metadata"]["annotations"]["vpc.amazonaws.com/pod-ips"];
            ensure!(*ip == json!(""), "{ip}");
            Ok(())
        })
        .await?;
        eventually("status without faults", PATIENCE, async || {
            let blocked = node.view().await?.blocked;
            // The next event says that events are sent again.
            let faults =
                |line: &String| line.contains("API server") && !line.starts_with("events:");
            ensure!(!blocked.iter().any(faults), "{blocked:?}");
            Ok(())
        })
        .await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// A permission that somebody needs and that is missing is an event on the Node, with the rule. One that nobody has asked
/// for is none.
#[tokio::test(flavor = "multi_thread")]
async fn missing_permission_is_an_event_on_the_node() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fforb", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let api = ApiServer::start(node).await?;
        api.put(NODES, &tainted()).await?;
        api.forbid(NODES).await?;
        restart_with(node, &[("TIDEPOOL_NODE_ANNOTATIONS", "true")]).await?;
        let notes = eventually("event about the permission", PATIENCE, async || {
            let events = api.get(EVENTS).await?;
            let of_permission = |event: &&Value| event["reason"] == "API_FORBIDDEN";
            let events = events["items"].as_array().cloned().unwrap_or_default();
            let found: Vec<_> = events.iter().filter(of_permission).cloned().collect();
            ensure!(!found.is_empty(), "no such event: {events:#?}");
            Ok(found)
        })
        .await?;
        let event = &notes[0];
        let regarding = &event["regarding"];
        ensure!(regarding["kind"] == "Node" && regarding["name"] == NODE_NAME, "{event:#}");
        ensure!(event["type"] == "Warning" && event["action"] == "Request", "{event:#}");
        let note = event["note"].as_str().unwrap_or_default();
        let names = note.contains("annotations") && note.contains("lacks nodes: patch");
        ensure!(notes.len() == 1 && names, "{notes:#?}");
        let pod = node.runtime.run("web").await?;
        node.runtime.remove(&pod).await?;

        api.forbid("").await?;
        until_node(&api, "annotations", |node| {
            node["metadata"]["annotations"]["tidepool.io/max-pods"] == json!("29")
        })
        .await?;
        cluster.books_agree(&[]).await
    })
    .await
}
