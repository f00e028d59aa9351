//! Nodes with pods on IPv6. Neither faults nor restarts add a second prefix to a node, and no address serves two
//! pods at once.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use proto::v1::ViewReply;
use serde_json::json;
use tests::cluster::{IPV6_SETTINGS, Spec};
use tests::exec::{ExecCluster, ExecNode};

use crate::{all_reachable, called, end_burst, n_calls, start_burst};

const ASSIGN_IPV6: &str = "AssignIpv6Addresses";

/// Each pod's attachment and address.
fn pods(view: &ViewReply) -> Vec<String> {
    view.pods.iter().map(|pod| format!("{:?} {:?}", pod.attachment, pod.address)).collect()
}

/// The node's one prefix.
async fn prefix(node: &ExecNode) -> Result<String> {
    let view = node.view().await?;
    let blocks: Vec<_> = view.enis.iter().flat_map(|eni| &eni.blocks).collect();
    let [block] = blocks[..] else { anyhow::bail!("not one prefix but {blocks:?}") };
    ensure!(block.cidr.ends_with("/80"), "{} is no /80", block.cidr);
    Ok(block.cidr.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_keep_addresses_and_bring_none_back() -> Result<()> {
    let spec = Spec::ipv6("f6keep", "m5.large", 1, &[("IP_COOLDOWN_PERIOD", "0")]);
    ExecCluster::with(spec, async |cluster| {
        let before = prefix(&cluster.nodes[0]).await?;
        let mut seen = BTreeSet::new();
        for round in 0..3 {
            let node = &mut cluster.nodes[0];
            let running = node.runtime.run_all(&format!("p{round}-"), 5).await?;
            for pod in &running {
                ensure!(seen.insert(pod.ip.clone()), "{} serves again", pod.ip);
            }
            let held = pods(&node.view().await?);
            match round {
                0 => node.stop_ipamd().await?,
                _ => node.kill_ipamd().await?,
            }
            ExecNode::ping(&running[0].netns, &running[4].ip).await.context("without a daemon")?;
            node.start_ipamd().await?;
            ensure!(pods(&node.view().await?) == held, "a restart changed {held:?}");
            all_reachable(node, &running).await?;
            cluster.books_agree(&[]).await?;
            cluster.nodes[0].runtime.remove_all(&running).await?;
        }
        let node = &cluster.nodes[0];
        ensure!(prefix(node).await? == before, "the prefix has changed");
        ensure!(n_calls(cluster, ASSIGN_IPV6).await? == 1, "one call in a node's life");
        cluster.books_agree(&[]).await
    })
    .await
}

/// A node with IPv6 and with pods on IPv4. Its daemon is down.
fn not_yet(name: &str) -> Spec {
    Spec { ipv6: true, ..Spec::new(name, "m5.large", 1, &[("WARM_IP_TARGET", "1")]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_reply_doubles_no_prefix() -> Result<()> {
    ExecCluster::with(not_yet("f6lost"), async |cluster| {
        let rule = json!({"action": ASSIGN_IPV6, "when": {"nth": 1}, "effect": "lose_reply"});
        cluster.sim.fault(rule).await?;
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        node.configure(&IPV6_SETTINGS);
        node.start_ipamd().await?;
        let running = node.runtime.run_all("p", 3).await?;
        all_reachable(node, &running).await?;
        prefix(node).await?;
        ensure!(n_calls(cluster, ASSIGN_IPV6).await? == 1, "it was asked twice");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_within_an_assign_doubles_no_prefix() -> Result<()> {
    ExecCluster::with(not_yet("f6crash"), async |cluster| {
        let delay =
            json!({"action": ASSIGN_IPV6, "when": "each", "effect": {"delay": {"ms": 8000}}});
        let delay = cluster.sim.fault(delay).await?;
        cluster.nodes[0].stop_ipamd().await?;
        cluster.nodes[0].configure(&IPV6_SETTINGS);
        cluster.nodes[0].start_ipamd_unready().await?;
        let burst = start_burst(&cluster.nodes[0], "p", 3).await?;
        called(cluster, ASSIGN_IPV6, 1).await?;
        cluster.nodes[0].kill_ipamd().await?;
        cluster.sim.mend(delay).await?;
        cluster.nodes[0].start_ipamd().await?;
        let running = end_burst(&cluster.nodes[0], burst).await?;
        all_reachable(&cluster.nodes[0], &running).await?;
        prefix(&cluster.nodes[0]).await?;
        ensure!(n_calls(cluster, ASSIGN_IPV6).await? == 1, "it was asked twice");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn subnet_without_ipv6_is_named_with_advice() -> Result<()> {
    let settings = [("TIDEPOOL_ADD_WAIT", "1s")];
    ExecCluster::with(Spec::new("f6none", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        node.configure(&IPV6_SETTINGS);
        node.start_ipamd_unready().await?;
        let refusal = node.runtime.refusal("p").await?;
        ensure!(refusal.msg.starts_with("EC2_FAILING: "), "{refusal}");
        ensure!(refusal.msg.contains("associate one with the subnet of eni-"), "{refusal}");
        let calls = n_calls(cluster, ASSIGN_IPV6).await?;
        ensure!((1..=4).contains(&calls), "{calls} calls within a second or two");
        Ok(())
    })
    .await
}
