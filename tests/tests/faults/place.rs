//! Nodes where EC2 is unlike most places: a subnet without IPv4, a primary ENI that is not at device index 0.

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};

use crate::{LEAN, all_reachable};

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_ipv6_only_nodes_reach_each_other() -> Result<()> {
    let spec = Spec { ipv6_only: true, ..Spec::ipv6("fp6", "m5.large", 2, &[]) };
    ExecCluster::with(spec, async |cluster| {
        let [here, there] = &cluster.nodes[..] else { anyhow::bail!("not two nodes") };
        let pods = here.runtime.run_all("p", 3).await?;
        all_reachable(here, &pods).await?;
        let far = there.runtime.run("q").await?;
        ExecNode::ping(&pods[0].netns, &far.ip).await.context("pod to the other node's pod")?;
        ExecNode::ping(&far.netns, &here.address.to_string()).await.context("pod to node")?;
        let answer = cluster.sim.ec2("DescribeNetworkInterfaces", &[]).await?;
        ensure!(!answer.contains("<privateIpAddress>"), "an ENI has IPv4: {answer}");
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn primary_eni_at_index_1_serves_its_pods() -> Result<()> {
    let spec = Spec { device_index: 1, ..Spec::new("fp1", "m5.large", 1, &LEAN) };
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        // More than one ENI takes.
        let pods = node.runtime.run_all("p", 11).await?;
        all_reachable(node, &pods).await?;
        let view = node.view().await?;
        let primary: Vec<_> = view.enis.iter().filter(|eni| eni.primary).collect();
        ensure!(primary.len() == 1 && primary[0].device_index == 1, "{primary:?}");
        ensure!(view.enis.len() == 2, "{} ENIs", view.enis.len());
        cluster.books_agree(&[]).await
    })
    .await
}
