//! Nodes where EC2 is unlike most places: a subnet without IPv4, a primary ENI that is not at device index 0. And
//! what the outside of a VPC sees of nodes and pods.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually};
use tests::sim::{OUTSIDE, OUTSIDE_V6};

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

#[tokio::test(flavor = "multi_thread")]
async fn outside_sees_ipv6_pods_as_they_are() -> Result<()> {
    let spec = Spec { outside: true, ..Spec::ipv6("fpout", "m5.large", 1, &[]) };
    let public = spec.public_address(0).context("a node without a public address")?;
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let pod = node.runtime.run("p").await?;
        let node_ns = format!("/run/netns/{}", node.netns);
        let pod_ip: IpAddr = pod.ip.parse()?;
        for (netns, outside, expect) in
            [(&pod.netns, OUTSIDE_V6, pod_ip), (&node_ns, OUTSIDE, IpAddr::V4(public))]
        {
            let seen = || ExecNode::seen_outside(netns, outside);
            let seen = eventually("answer of the outside", PATIENCE, seen).await?;
            ensure!(seen == expect, "{seen}, not {expect}");
        }
        cluster.books_agree(&[]).await
    })
    .await
}
