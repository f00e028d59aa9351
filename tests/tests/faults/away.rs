//! EC2 cannot be reached at all, or somebody changes the node's ENIs.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually, in_netns, output};

use crate::{all_reachable, names_code, run_patiently};

/// Applies a verdict of nftables to packets from the node to EC2. Other packets pass.
pub(crate) async fn cut_off(node: &ExecNode, verdict: &str) -> Result<()> {
    cut_off_from(node, "tcp dport 8773", verdict).await
}

/// Applies the verdict to the node's packets that match.
pub(crate) async fn cut_off_from(node: &ExecNode, packets: &str, verdict: &str) -> Result<()> {
    let rules = format!(
        "table ip away {{ chain out {{ type filter hook output priority 0; \
         {packets} {verdict}; }}; }}"
    );
    output(in_netns(&node.netns, "nft").arg(rules)).await.map(|_| ())
}

pub(crate) async fn reconnect(node: &ExecNode) -> Result<()> {
    output(in_netns(&node.netns, "nft").arg("delete table ip away")).await.map(|_| ())
}

/// `go` makes EC2 unreachable, and `come` brings it back.
async fn ec2_is_away(
    name: &str,
    add_wait: &str,
    go: impl AsyncFnOnce(&ExecCluster) -> Result<()>,
    come: impl AsyncFnOnce(&ExecCluster) -> Result<()>,
) -> Result<()> {
    let settings = [("WARM_IP_TARGET", "3"), ("TIDEPOOL_ADD_WAIT", add_wait)];
    let spec = Spec::new(name, "m5.large", 1, &settings);
    ExecCluster::with(spec, async |cluster| {
        go(cluster).await?;
        let node = &mut cluster.nodes[0];
        // No call succeeds until EC2 is back, so what is served here needs none.
        let mut pods = node.runtime.run_all("p", 3).await?;
        node.runtime.remove(&pods.remove(0)).await?;
        let refusal = node.runtime.refusal("empty").await?;
        names_code(&refusal, "EC2_FAILING")?;

        node.kill_ipamd().await?;
        node.start_ipamd_unready().await?;
        let refusal = node.runtime.refusal("still").await?;
        ensure!(refusal.msg.starts_with("EC2_FAILING: "), "after a restart: {refusal}");
        node.runtime.remove(&pods.remove(0)).await.context("DEL after a restart")?;

        come(cluster).await?;
        let node = &cluster.nodes[0];
        pods.push(run_patiently(node, "back", PATIENCE).await?);
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_ec2_leaves_the_warm_pool_and_is_named() -> Result<()> {
    let away = json!({"when": "each", "effect": {"fail": {"code": "Unavailable"}}});
    let go = async |cluster: &ExecCluster| cluster.sim.fault(away).await.map(|_| ());
    ec2_is_away("f503", "4s", go, async |cluster| cluster.sim.mend(1).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_pool_serves_while_ec2_is_refused() -> Result<()> {
    let go =
        async |cluster: &ExecCluster| cut_off(&cluster.nodes[0], "reject with tcp reset").await;
    ec2_is_away("frst", "4s", go, async |cluster| reconnect(&cluster.nodes[0]).await).await
}

/// A call times out after ten seconds, and the daemon notices only then.
#[tokio::test(flavor = "multi_thread")]
async fn warm_pool_serves_while_ec2_is_dropped() -> Result<()> {
    let go = async |cluster: &ExecCluster| cut_off(&cluster.nodes[0], "drop").await;
    ec2_is_away("fhole", "14s", go, async |cluster| reconnect(&cluster.nodes[0]).await).await
}

/// Neither EC2 nor the metadata service answers. The credentials come from the latter.
#[tokio::test(flavor = "multi_thread")]
async fn warm_pool_serves_while_all_services_are_dropped() -> Result<()> {
    let go = async |cluster: &ExecCluster| {
        cut_off_from(&cluster.nodes[0], "ip daddr 169.254.169.254", "drop").await
    };
    ec2_is_away("fall", "14s", go, async |cluster| reconnect(&cluster.nodes[0]).await).await
}

/// The pool's free single addresses, each with its ENI.
async fn free_addresses(node: &ExecNode) -> Result<Vec<(String, String)>> {
    let view = node.view().await?;
    let blocks = view.enis.iter().flat_map(|eni| eni.blocks.iter().map(|b| (eni.id.clone(), b)));
    let free = blocks.filter(|(_, block)| block.free == 1);
    Ok(free.map(|(eni, b)| (eni, b.cidr.trim_end_matches("/32").to_owned())).collect())
}

/// Somebody takes an idle address. A daemon that starts polls EC2 and does not offer the address from then on.
#[tokio::test(flavor = "multi_thread")]
async fn address_taken_from_ec2_is_not_offered_after_a_restart() -> Result<()> {
    let spec = Spec::new("fgone", "m5.large", 1, &[("WARM_IP_TARGET", "3")]);
    ExecCluster::with(spec, async |cluster| {
        let free = free_addresses(&cluster.nodes[0]).await?;
        let (eni, gone) = free.first().context("no free address")?;
        cluster.sim.disturb(json!({"unassign": {"eni": eni, "addresses": [gone]}})).await?;
        cluster.nodes[0].stop_ipamd().await?;
        cluster.nodes[0].start_ipamd().await?;
        let node = &cluster.nodes[0];
        // On a busy machine EC2's answer may come after the start; see `boot`.
        eventually("EC2's answer", PATIENCE, async || {
            let free = free_addresses(node).await?;
            ensure!(free.iter().all(|(_, address)| address != gone), "{gone} is still there");
            Ok(())
        })
        .await?;
        let pods = node.runtime.run_all("p", 6).await?;
        ensure!(pods.iter().all(|pod| pod.ip != *gone), "{gone} is not at EC2 any more");
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// The kernel reports that the device is gone. The daemon polls EC2 and attaches the ENI again. No pod gets an
/// address on it before.
#[tokio::test(flavor = "multi_thread")]
async fn eni_detached_by_somebody_is_unused_until_it_is_back() -> Result<()> {
    let spec = Spec::new("fdet", "t3.small", 1, &[]);
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let first = node.runtime.run_all("a", 3).await?;
        let eni = eventually("a free secondary ENI", PATIENCE, async || {
            let view = node.view().await?;
            let ready = view.enis.iter().find(|eni| !eni.primary && eni.state == "ready");
            Ok(ready.context("no secondary ENI")?.clone())
        })
        .await?;
        cluster.sim.disturb(json!({"detach_eni": {"eni": eni.id}})).await?;
        let second = node.runtime.run_all("b", 3).await?;
        all_reachable(node, &[first, second].concat()).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
