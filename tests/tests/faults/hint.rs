//! The metadata service as a hint to a running daemon. A hint leads to a poll of EC2, and to nothing else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::eventually;

use crate::{CREATE, all_reachable};

/// Two hints, a minute apart, after the last change.
const NOTICED: Duration = Duration::from_secs(200);
const POLLS: &str = "awscni_ec2api_req_count{fn=\"DescribeNetworkInterfaces\"}";
const DIFFERENT: &str = "tidepool_disagreements{kind=\"metadata_block\"}";

async fn sample(node: &ExecNode, name: &str) -> Result<u64> {
    let samples = node.scrape().await?;
    samples.get(name).with_context(|| format!("no {name}"))?.parse().context("no number")
}

/// Somebody moves an idle address of the node to an ENI of their own. Returns the address and that ENI.
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

/// On one node somebody takes an address. On another the metadata service is frozen while the pool grows.
#[tokio::test(flavor = "multi_thread")]
async fn taken_address_is_noticed_and_a_wrong_hint_costs_one_poll() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "4"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fhint", "m5.large", 2, &settings), async |cluster| {
        let (robbed, frozen) = (&cluster.nodes[0], &cluster.nodes[1]);
        let mut pods = robbed.runtime.run_all("a", 2).await?;
        let instance = frozen.view().await?.instance_id;
        cluster.sim.disturb(json!({"freeze_imds": {"instance": instance}})).await?;
        let others = frozen.runtime.run_all("b", 3).await?;
        let before = (sample(robbed, POLLS).await?, sample(frozen, POLLS).await?);
        let (taken, his) = take_idle_address(cluster, robbed).await?;

        eventually("end of the taken address in the view", NOTICED, async || {
            let view = robbed.view().await?;
            let mut blocks = view.enis.iter().flat_map(|eni| &eni.blocks);
            ensure!(blocks.all(|block| block.cidr != format!("{taken}/32")), "it is still known");
            Ok(())
        })
        .await?;
        eventually("count of refuted hints", NOTICED, async || {
            ensure!(sample(frozen, DIFFERENT).await? > 0, "nothing");
            Ok(())
        })
        .await?;
        let status = frozen.status().await?;
        ensure!(status.contains("METADATA_DIFFERS"), "status does not show it:\n{status}");
        let after = (sample(robbed, POLLS).await?, sample(frozen, POLLS).await?);
        ensure!(after == (before.0 + 1, before.1 + 1), "{before:?} polls before, {after:?} after");

        pods.extend(robbed.runtime.run_all("c", 12).await?);
        ensure!(pods.iter().all(|pod| pod.ip != taken), "a pod has {taken}: {pods:?}");
        all_reachable(robbed, &pods).await?;
        all_reachable(frozen, &others).await?;
        ensure!(sample(robbed, DIFFERENT).await? == 0, "the metadata are right there");
        cluster.books_agree(&[his]).await
    })
    .await
}
