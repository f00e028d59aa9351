//! Alerts for the node itself: its kernel, its disk, its daemon, and what others change.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::{OTHER_GROUP, Spec};
use tests::exec::{ExecCluster, ExecNode};
use tests::obstacles::{Tmpfs, own_nat_table};
use tests::process::{PATIENCE, eventually, in_netns, output};
use tokio::process::Command;

use crate::{LEAN, MODIFY, watched};

/// How often something must be put back for an alert.
const AGAIN_AND_AGAIN: usize = 6;

async fn number(node: &ExecNode, sample: &str) -> Result<usize> {
    let found = node.scrape().await?.remove(sample);
    Ok(found.with_context(|| format!("no sample {sample}"))?.parse()?)
}

/// Damages something again as soon as the daemon has put it back.
async fn fight(
    node: &ExecNode,
    sample: &str,
    damage: impl AsyncFn() -> Result<String>,
) -> Result<()> {
    for _ in 0..AGAIN_AND_AGAIN {
        let before = number(node, sample).await?;
        damage().await?;
        eventually("repair", PATIENCE, async || {
            let now = number(node, sample).await?;
            ensure!(now > before, "{sample} is {now}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn disagreements_fire_their_alerts() -> Result<()> {
    watched(Spec::new("pnet", "t3.small", 1, &LEAN), async |cluster, prometheus| {
        let node = &cluster.nodes[0];
        let pods = node.runtime.run_all("p", 5).await?;
        let nft = || {
            let mut nft = in_netns(&node.netns, "nft");
            nft.args(["delete", "table", "ip", "tidepool"]);
            nft
        };
        let nat = "tidepool_host_network_repairs_total{part=\"nat\"}";
        fight(node, nat, async || output(&mut nft()).await).await?;
        prometheus.fires("TidepoolHostNetworkContested").await?;
        let route = |verb: &str| {
            let mut ip = in_netns(&node.netns, "ip");
            ip.args(["route", verb, &format!("{}/32", pods[0].ip)]);
            ip
        };
        let restored = "tidepool_pod_networks_restored_total";
        fight(node, restored, async || output(&mut route("del")).await).await?;
        prometheus.fires("TidepoolPodNetworksContested").await?;

        // A DEL whose namespace stays: the kernel keeps the link until the daemon removes it.
        node.runtime.del(&pods[4]).await?;
        prometheus.fires("TidepoolLinksStay").await?;
        prometheus.ends("TidepoolLinksStay").await?;

        let view = node.view().await?;
        let (primary, others): (Vec<_>, Vec<_>) = view.enis.iter().partition(|eni| eni.primary);
        ensure!(!others.is_empty(), "no second ENI");
        let parameters =
            [("NetworkInterfaceId", &*primary[0].id), ("SecurityGroupId.1", OTHER_GROUP)];
        cluster.sim.ec2(MODIFY, &parameters).await?;
        restart(cluster, 1).await?;
        prometheus.fires("TidepoolOtherSecurityGroups").await?;
        prometheus.ends("TidepoolOtherSecurityGroups").await?;

        let node = &cluster.nodes[0];
        let eni = node.view().await?.pods[0].address.clone().context("no address")?.eni;
        let unassign = json!({"unassign": {"eni": eni, "addresses": [pods[0].ip]}});
        cluster.sim.disturb(unassign).await?;
        restart(cluster, 3).await?;
        prometheus.fires("TidepoolDisagreement").await?;
        prometheus.fires("TidepoolRestarts").await?;
        cluster.nodes[0].runtime.remove_all(&pods).await?;
        prometheus.ends("TidepoolDisagreement").await?;
        cluster.nodes[0].kill_ipamd().await?;
        prometheus.fires("TidepoolDown").await?;
        cluster.nodes[0].start_ipamd().await?;
        prometheus.ends("TidepoolDown").await
    })
    .await
}

/// Restarts the daemon. Prometheus has seen each run: its start counts in whole seconds.
async fn restart(cluster: &mut ExecCluster, n: usize) -> Result<()> {
    let node = &mut cluster.nodes[0];
    for _ in 0..n {
        let before = number(node, "process_start_time_seconds").await?;
        eventually("later second", PATIENCE, async || {
            let now = output(Command::new("date").arg("+%s")).await?.trim().parse::<usize>()?;
            ensure!(now > before + 1, "{now}");
            Ok(())
        })
        .await?;
        node.stop_ipamd().await?;
        node.start_ipamd().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kernel_that_refuses_fires_the_alerts_for_the_node() -> Result<()> {
    watched(Spec::new("pkern", "t3.small", 1, &[]), async |cluster, prometheus| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        output(in_netns(&node.netns, "nft").args(["delete", "table", "ip", "tidepool"])).await?;
        let mut owner = own_nat_table(node).await?;
        node.start_ipamd_unready().await?;
        prometheus.fires("TidepoolNotReady").await?;
        prometheus.fires("TidepoolLinkFailing").await?;
        drop(owner.stdin.take());
        owner.wait().await?;
        prometheus.ends("TidepoolNotReady").await?;
        prometheus.ends("TidepoolLinkFailing").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_fires_its_alert() -> Result<()> {
    let state = Tmpfs::mount("pdisk").await?;
    let store = state.store();
    let settings = [("WARM_IP_TARGET", "9"), ("AWS_VPC_K8S_CNI_BACKING_STORE", store.as_str())];
    watched(Spec::new("pdisk", "m5.4xlarge", 1, &settings), async |cluster, prometheus| {
        let node = &cluster.nodes[0];
        state.fill()?;
        // The last page of the log has room for some more.
        let mut pods = vec![];
        while let Ok(pod) = node.runtime.run(&format!("p{}", pods.len())).await {
            pods.push(pod);
            ensure!(pods.len() < 40, "nothing is refused although the disk is full");
        }
        prometheus.fires("TidepoolStateUnwritable").await?;
        state.empty()?;
        prometheus.ends("TidepoolStateUnwritable").await?;
        node.runtime.remove_all(&pods).await
    })
    .await
}
