//! Nodes that change nothing at EC2, by setting or while they are cordoned, and nodes that do not even ask EC2.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::kube::{self, ApiServer, NODE_NAME, NODES};
use tests::process::{PATIENCE, eventually};

use crate::{ASSIGN, CREATE, all_reachable, n_calls, run_patiently};

const OFF: (&str, &str) = ("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true");
const IMDS_ONLY: (&str, &str) = ("ENABLE_IMDS_ONLY_MODE", "true");
/// The daemon looks once a minute for what somebody else has assigned.
const NOTICED: Duration = Duration::from_secs(150);
const BY_HAND: [&str; 2] = ["10.0.0.200", "10.0.0.201"];

async fn restart_with(node: &mut ExecNode, setting: (&'static str, &'static str)) -> Result<()> {
    node.stop_ipamd().await?;
    node.configure(&[setting]);
    node.start_ipamd().await
}

/// Somebody puts addresses on the primary ENI.
async fn assign_by_hand(cluster: &ExecCluster) -> Result<()> {
    let view = cluster.nodes[0].view().await?;
    let primary = view.enis.iter().find(|eni| eni.primary).context("no primary ENI")?;
    let [first, second] = BY_HAND;
    let addresses = [
        ("NetworkInterfaceId", primary.id.as_str()),
        ("PrivateIpAddress.1", first),
        ("PrivateIpAddress.2", second),
    ];
    cluster.sim.ec2(ASSIGN, &addresses).await.map(|_| ())
}

/// The next ADD is refused for want of addresses that nobody may ask EC2 for. Everyone whom a user may ask says so.
async fn refused_everywhere(
    node: &ExecNode,
    (setting, _): (&str, &str),
    state: &str,
) -> Result<()> {
    let refusal = node.runtime.refusal("full").await?;
    ensure!(refusal.code == 172 && refusal.msg.starts_with("PROVISIONING_OFF: "), "{refusal}");
    ensure!(refusal.msg.contains(setting), "{refusal}");
    let (_, why, _) = node.ipamd(&["why", "default/full"]).await?;
    ensure!(why.contains("PROVISIONING_OFF") && why.contains(setting), "{why}");
    let status = node.status().await?;
    ensure!(status.contains("changes at EC2: none") && status.contains(setting), "{status}");
    let metrics = node.scrape().await?;
    let gauge = format!("tidepool_provisioning{{state=\"{state}\"}}");
    ensure!(metrics.get(&gauge).map(String::as_str) == Some("1"), "no {gauge}");
    Ok(())
}

/// The calls of EC2 that change something, whoever has made them.
async fn changes(cluster: &ExecCluster) -> Result<BTreeMap<String, u64>> {
    let mut calls = cluster.sim.calls().await?;
    calls.retain(|action, _| !action.starts_with("Describe"));
    Ok(calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn node_by_metadata_alone_makes_no_call_of_ec2() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "3"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fimds", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let mut pods = vec![node.runtime.run("before").await?];
        eventually("warm pool", PATIENCE, async || {
            let view = node.view().await?;
            ensure!(view.counts.is_some_and(|counts| counts.free == 3), "{:?}", view.counts);
            Ok(())
        })
        .await?;
        node.stop_ipamd().await?;
        // Nothing that an earlier start has learnt of EC2 is left but the record.
        std::fs::remove_file(node.state_directory().join("tidepool-limits.json"))?;
        let before = cluster.sim.calls().await?;
        node.configure(&[IMDS_ONLY]);
        node.start_ipamd().await?;
        pods.extend(node.runtime.run_all("p", 3).await?);
        all_reachable(node, &pods).await?;
        refused_everywhere(node, IMDS_ONLY, "imds_only").await?;
        node.runtime.remove(&pods.remove(1)).await?;
        pods.push(run_patiently(node, "next", PATIENCE).await?);
        ensure!(cluster.sim.calls().await? == before, "EC2 has been called");

        assign_by_hand(cluster).await?;
        let before = cluster.sim.calls().await?;
        let node = &cluster.nodes[0];
        let late = run_patiently(node, "late", NOTICED).await?;
        ensure!(BY_HAND.contains(&late.ip.as_str()), "{late:?} is not from the new ones");
        pods.push(late);
        all_reachable(node, &pods).await?;
        ensure!(cluster.sim.calls().await? == before, "EC2 has been called");
        let metrics = node.scrape().await?;
        let n_calls = metrics.keys().filter(|name| name.starts_with("awscni_ec2api_req_count"));
        ensure!(n_calls.count() == 0, "calls are counted: {metrics:?}");
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn node_without_provisioning_serves_what_others_assign() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1"), ("CLUSTER_NAME", "c")];
    ExecCluster::with(Spec::new("foff", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let mut pods = node.runtime.run_all("a", 2).await?;
        eventually("warm pool", PATIENCE, async || {
            let view = node.view().await?;
            ensure!(view.counts.is_some_and(|counts| counts.free == 2), "{:?}", view.counts);
            Ok(())
        })
        .await?;
        restart_with(node, OFF).await?;
        let before = changes(cluster).await?;
        let node = &cluster.nodes[0];
        pods.extend(node.runtime.run_all("b", 2).await?);
        refused_everywhere(node, OFF, "off").await?;
        ensure!(changes(cluster).await? == before, "something has been changed");

        assign_by_hand(cluster).await?;
        let before = changes(cluster).await?;
        let late = run_patiently(node, "late", NOTICED).await?;
        ensure!(BY_HAND.contains(&late.ip.as_str()), "{late:?} is not from the new ones");
        pods.push(late);
        all_reachable(node, &pods).await?;
        node.runtime.remove_all(&pods).await?;
        ensure!(changes(cluster).await? == before, "something has been changed");
        Ok(())
    })
    .await
}

fn this_node(is_cordoned: bool) -> Value {
    json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": NODE_NAME },
        "spec": { "unschedulable": is_cordoned } })
}

/// Waits until the daemon heeds the cordon, or its end, and has `n_free` free addresses.
async fn until(node: &ExecNode, changes: &str, n_free: u64) -> Result<()> {
    eventually("cordon, and free addresses", PATIENCE, async || {
        let view = node.view().await?;
        let free = view.counts.context("no counts")?.free;
        ensure!(view.changes == changes && free == n_free, "{}, {free} free", view.changes);
        ensure!(view.in_flight.is_empty(), "{:?}", view.in_flight);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn cordoned_node_keeps_no_address_ready_and_lets_no_pod_wait() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fcord", "t3.small", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let api = ApiServer::start(node).await?;
        api.put(NODES, &this_node(false)).await?;
        node.stop_ipamd().await?;
        node.configure(&kube::SETTINGS);
        node.start_ipamd().await?;
        until(node, "by_targets", 2).await.context("before")?;
        api.put(NODES, &this_node(true)).await?;
        until(node, "cordoned", 2).await.context("cordoned")?;
        let assigned = n_calls(cluster, ASSIGN).await?;
        let node = &cluster.nodes[0];
        let mut pods = node.runtime.run_all("p", 2).await?;
        until(node, "cordoned", 0).await.context("with pods")?;
        ensure!(n_calls(cluster, ASSIGN).await? == assigned, "addresses are kept ready");
        let status = node.status().await?;
        ensure!(status.contains("since the node is cordoned"), "{status}");

        // The next two need an address more, and a second ENI.
        pods.push(run_patiently(node, "daemon", PATIENCE).await?);
        pods.push(run_patiently(node, "another", PATIENCE).await?);
        ensure!(n_calls(cluster, CREATE).await? == 1, "no second ENI");
        all_reachable(node, &pods).await?;
        // Nobody can say that the cordon has ended, and the last word holds.
        api.behave("refusing 503").await?;
        until(node, "cordoned", 0).await.context("without the API server")?;
        api.behave("well").await?;
        api.put(NODES, &this_node(false)).await?;
        until(node, "by_targets", 2).await.context("after")?;
        cluster.books_agree(&[]).await
    })
    .await
}
