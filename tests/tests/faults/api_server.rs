//! The Kubernetes API server is away, or refuses, or answers nonsense. Pods come and go all the same.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::kube::{self, ApiServer, CONFIG_MAPS, ENI_CONFIGS, EVENTS, NODE_NAME, NODES};
use tests::process::{PATIENCE, eventually};

use crate::{all_reachable, run_patiently};

const CUSTOM: (&str, &str) = ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true");

fn this_node() -> Value {
    json!({ "kind": "Node", "apiVersion": "v1",
        "metadata": { "name": NODE_NAME, "annotations": { "k8s.amazonaws.com/eniConfig": "pods" } } })
}

fn eni_config(subnet: &str) -> Value {
    json!({ "kind": "ENIConfig", "apiVersion": "crd.k8s.amazonaws.com/v1alpha1",
        "metadata": { "name": "pods" }, "spec": { "subnets": [subnet] } })
}

/// The subnet of the node's primary ENI, the only one there is.
async fn subnet(node: &ExecNode) -> Result<String> {
    let view = node.view().await?;
    let primary = view.enis.iter().find(|eni| eni.primary).context("no primary ENI")?;
    Ok(primary.subnet.clone())
}

/// The pods are on ENIs other than the primary one.
async fn primary_carries_none(node: &ExecNode, pods: &[Pod]) -> Result<()> {
    let view = node.view().await?;
    let primary = view.enis.iter().find(|eni| eni.primary).context("no primary ENI")?;
    let of_primary = primary.blocks.iter().map(|block| block.cidr.trim_end_matches("/32"));
    let on_it: Vec<_> = of_primary.filter(|ip| pods.iter().any(|pod| pod.ip == *ip)).collect();
    ensure!(on_it.is_empty(), "{on_it:?} are on the primary ENI");
    Ok(())
}

/// The daemon restarts with custom networking, and its API server has the ENIConfig.
async fn with_eni_config(node: &mut ExecNode) -> Result<ApiServer> {
    let api = ApiServer::start(node).await?;
    api.put(NODES, &this_node()).await?;
    api.put(ENI_CONFIGS, &eni_config(&subnet(node).await?)).await?;
    node.stop_ipamd().await?;
    node.configure(&kube::SETTINGS);
    node.configure(&[CUSTOM]);
    node.start_ipamd().await?;
    Ok(api)
}

/// Pods come and go: from the warm pool, after a restart of the daemon, and on a new ENI.
async fn pods_come_and_go(node: &mut ExecNode, round: &str) -> Result<()> {
    let pods = node.runtime.run_all(&format!("{round}a"), 2).await?;
    node.stop_ipamd().await?;
    node.start_ipamd().await?;
    node.runtime.remove(&pods[0]).await?;
    let more = run_patiently(node, &format!("{round}b"), PATIENCE).await?;
    let all = [&pods[1..], &[more]].concat();
    all_reachable(node, &all).await?;
    primary_carries_none(node, &all).await?;
    node.runtime.remove_all(&all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_served_whatever_the_api_server_does() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fapi", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let api = with_eni_config(node).await?;
        pods_come_and_go(node, "well").await?;
        for mood in ["refusing 401", "refusing 503", "silent", "garbled", "slow 2000"] {
            api.behave(mood).await?;
            let round = mood.split(' ').next().unwrap_or(mood);
            pods_come_and_go(node, round).await.with_context(|| format!("API server: {mood}"))?;
        }
        api.kill().await?;
        pods_come_and_go(node, "gone").await.context("without an API server")?;
        // More than one ENI holds: the next one follows the ENIConfig that is kept.
        let pods = node.runtime.run_all("many", 12).await?;
        primary_carries_none(node, &pods).await?;
        all_reachable(node, &pods).await?;
        let log = std::fs::read_to_string(node.log()).context("read the log")?;
        ensure!(log.contains("ENIConfig as an earlier run has kept it"), "it is not kept");
        cluster.books_agree(&[]).await
    })
    .await
}

/// Nothing says where an ENI for pods goes, so the node is not ready and says what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn node_waits_for_its_eni_config_and_names_it() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("TIDEPOOL_ADD_WAIT", "4s")];
    ExecCluster::with(Spec::new("fcfg", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let subnet = subnet(node).await?;
        let api = ApiServer::start(node).await?;
        node.stop_ipamd().await?;
        node.configure(&kube::SETTINGS);
        node.configure(&[CUSTOM]);
        node.start_ipamd_unready().await?;
        let refusal = node.runtime.refusal("early").await?;
        ensure!(refusal.code == 119 && refusal.msg.starts_with("ENI_CONFIG: "), "{refusal}");

        api.put(NODES, &this_node()).await?;
        eventually("name of the ENIConfig", PATIENCE, async || {
            let blocked = node.view().await?.blocked;
            let names_it = |line: &String| line.contains("there is no ENIConfig pods");
            ensure!(blocked.iter().any(names_it), "{blocked:?}");
            Ok(())
        })
        .await?;
        api.put(ENI_CONFIGS, &eni_config(&subnet)).await?;
        let pod = run_patiently(node, "late", PATIENCE).await?;
        primary_carries_none(node, &[pod]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// The pod that gets no address has an event with the refusal's code, and the node one that names what IAM denies.
#[tokio::test(flavor = "multi_thread")]
async fn refusal_and_denied_call_are_events() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), ("TIDEPOOL_ADD_WAIT", "4s")];
    ExecCluster::with(Spec::new("fevt", "t3.small", 1, &settings), async |cluster| {
        let denied = json!({
            "action": "CreateNetworkInterface", "when": "each",
            "effect": { "fail": { "code": "UnauthorizedOperation" } },
        });
        cluster.sim.fault(denied).await?;
        let node = &mut cluster.nodes[0];
        let api = ApiServer::start(node).await?;
        node.stop_ipamd().await?;
        node.configure(&kube::SETTINGS);
        node.start_ipamd().await?;
        node.runtime.run_all("p", 3).await?;
        let refusal = node.runtime.refusal("full").await?;
        ensure!(refusal.msg.starts_with("ACCESS_DENIED: "), "{refusal}");
        eventually("events on pod and node", PATIENCE, async || {
            let events = api.get(EVENTS).await?;
            let has = |kind: &str, name: &str, note: &str| {
                events["items"].as_array().into_iter().flatten().any(|event| {
                    let on = &event["regarding"];
                    let text = event["note"].as_str().unwrap_or_default();
                    on["kind"] == kind
                        && on["name"] == name
                        && event["reason"] == "ACCESS_DENIED"
                        && text.contains(note)
                })
            };
            ensure!(has("Pod", "full", "no free address"), "no event on the pod: {events:#}");
            let note = "ec2:CreateNetworkInterface";
            ensure!(has("Node", NODE_NAME, note), "no event on the node: {events:#}");
            Ok(())
        })
        .await?;
        cluster.books_agree(&[]).await
    })
    .await
}

fn settings_map(name: &str, warm: &str) -> Value {
    json!({ "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": { "name": name }, "data": { "WARM_IP_TARGET": warm } })
}

/// Waits until the pool is at rest with `n_free` free addresses.
async fn until_free(node: &ExecNode, n_free: u64) -> Result<()> {
    eventually("wanted number of free addresses", PATIENCE, async || {
        let view = node.view().await?;
        let free = view.counts.context("no counts")?.free;
        ensure!(free == n_free && view.in_flight.is_empty(), "{free} free, not {n_free}");
        Ok(())
    })
    .await
}

/// No restart and no signal: the group's map overrides the cluster's, and that the environment. A bad map changes
/// nothing and is said. A start without the API server has the last good ones.
#[tokio::test(flavor = "multi_thread")]
async fn config_maps_change_settings_of_a_running_daemon() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fmap", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let api = ApiServer::start(node).await?;
        let mut this = this_node();
        this["metadata"]["labels"] = json!({ "eks.amazonaws.com/nodegroup": "blue" });
        api.put(NODES, &this).await?;
        node.stop_ipamd().await?;
        node.configure(&kube::SETTINGS);
        node.start_ipamd().await?;
        let ipamd = node.ipamd_pid()?;
        until_free(node, 1).await.context("by the environment")?;
        api.put(CONFIG_MAPS, &settings_map("tidepool-settings", "3")).await?;
        until_free(node, 3).await.context("by the cluster's map")?;
        api.put(CONFIG_MAPS, &settings_map("tidepool-settings-blue", "4")).await?;
        until_free(node, 4).await.context("by the group's map")?;

        api.put(CONFIG_MAPS, &settings_map("tidepool-settings-blue", "many")).await?;
        eventually("refusal in status, metric and event", PATIENCE, async || {
            let blocked = node.view().await?.blocked;
            let is_it = |line: &String| line.starts_with("SETTINGS_REFUSED: ");
            ensure!(blocked.iter().any(is_it), "not in the status: {blocked:?}");
            let metrics = node.scrape().await?;
            let n = metrics.get("tidepool_settings_refused_total").map(String::as_str);
            ensure!(n == Some("1"), "metric: {n:?}");
            let events = api.get(EVENTS).await?;
            let mut events = events["items"].as_array().into_iter().flatten();
            ensure!(events.any(|event| event["reason"] == "SETTINGS_REFUSED"), "no event");
            Ok(())
        })
        .await?;
        until_free(node, 4).await.context("by the last good map")?;
        ensure!(node.ipamd_pid()? == ipamd, "the daemon has been restarted");

        api.kill().await?;
        node.stop_ipamd().await?;
        node.start_ipamd().await?;
        until_free(node, 4).await.context("after a start without the API server")?;
        cluster.books_agree(&[]).await
    })
    .await
}
