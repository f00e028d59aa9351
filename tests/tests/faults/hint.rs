//! What the metadata service tells a daemon that runs: that EC2 is worth reading, and nothing else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::eventually;

use crate::{CREATE, all_reachable};

/// Two hints, a minute apart, after what was changed last.
const NOTICED: Duration = Duration::from_secs(200);
const READINGS: &str = "awscni_ec2api_req_count{fn=\"DescribeNetworkInterfaces\"}";
const DIFFERENT: &str = "tidepool_disagreements{kind=\"metadata_block\"}";

async fn sample(node: &ExecNode, name: &str) -> Result<u64> {
    let samples = node.scrape().await?;
    samples.get(name).with_context(|| format!("no {name}"))?.parse().context("no number")
}

/// Somebody takes an idle address of the node for an ENI of his own: the address, and that.
async fn take_idle_address(cluster: &ExecCluster, node: &ExecNode) -> Result<(String, String)> {
    let view = node.view().await?;
    let mut blocks = view.enis.iter().flat_map(|eni| eni.blocks.iter().map(move |it| (eni, it)));
    let (eni, block) = blocks.find(|(_, block)| block.free == 1).context("no idle address")?;
    let taken = block.cidr.split('/').next().context("no address")?.to_owned();
    cluster.sim.disturb(json!({"unassign": {"eni": eni.id, "addresses": [taken]}})).await?;
    let his = [("SubnetId", eni.subnet.as_str()), ("PrivateIpAddress", taken.as_str())];
    let created = cluster.sim.ec2(CREATE, &his).await?;
    let (_, rest) = created.split_once("<networkInterfaceId>").context("no id")?;
    let his = rest.split('<').next().context("no id")?.to_owned();
    Ok((taken, his))
}

/// On one node somebody takes an address; on another the service stands still while the pool grows.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_behind_a_running_daemon_is_noticed_and_a_lie_costs_one_reading() -> Result<()>
{
    let settings = [("WARM_IP_TARGET", "4"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fhint", "m5.large", 2, &settings), async |cluster| {
        let (robbed, belied) = (&cluster.nodes[0], &cluster.nodes[1]);
        let mut pods = robbed.runtime.run_all("a", 2).await?;
        let instance = belied.view().await?.instance_id;
        cluster.sim.disturb(json!({"freeze_imds": {"instance": instance}})).await?;
        let others = belied.runtime.run_all("b", 3).await?;
        let before = (sample(robbed, READINGS).await?, sample(belied, READINGS).await?);
        let (taken, his) = take_idle_address(cluster, robbed).await?;

        eventually("word that the address is gone", NOTICED, async || {
            let view = robbed.view().await?;
            let mut blocks = view.enis.iter().flat_map(|eni| &eni.blocks);
            ensure!(blocks.all(|block| block.cidr != format!("{taken}/32")), "it is still known");
            Ok(())
        })
        .await?;
        eventually("word of what metadata show", NOTICED, async || {
            ensure!(sample(belied, DIFFERENT).await? > 0, "nothing");
            Ok(())
        })
        .await?;
        let status = belied.status().await?;
        ensure!(status.contains("METADATA_DIFFERS"), "status does not tell:\n{status}");
        let after = (sample(robbed, READINGS).await?, sample(belied, READINGS).await?);
        ensure!(
            after == (before.0 + 1, before.1 + 1),
            "{before:?} readings before, {after:?} after"
        );

        pods.extend(robbed.runtime.run_all("c", 12).await?);
        ensure!(pods.iter().all(|pod| pod.ip != taken), "a pod has {taken}: {pods:?}");
        all_reachable(robbed, &pods).await?;
        all_reachable(belied, &others).await?;
        ensure!(sample(robbed, DIFFERENT).await? == 0, "metadata tell the truth there");
        cluster.books_agree(&[his]).await
    })
    .await
}
