//! What the outside of the VPC sees of pods on IPv4, and what keeps it so.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually, in_netns, output};
use tests::sim::OUTSIDE;

use crate::all_reachable;

/// A subnet that leads to an internet gateway. Only the node's own address has a public one.
fn spec(name: &str, settings: &[(&'static str, &str)]) -> Spec {
    let settings = [&[("WARM_IP_TARGET", "2")], settings].concat();
    Spec { outside: true, ..Spec::new(name, "t3.small", 1, &settings) }
}

fn public_address(spec: &Spec) -> Result<IpAddr> {
    spec.public_address(0).map(IpAddr::V4).context("a node without a public address")
}

/// Waits until the outside answers each pod, and sees `public`.
async fn seen_as(pods: &[Pod], public: IpAddr) -> Result<()> {
    for pod in pods {
        let ask = || ExecNode::seen_outside(&pod.netns, OUTSIDE);
        let seen = eventually("answer of the outside", PATIENCE, ask).await?;
        ensure!(seen == public, "{} is seen as {seen}, not {public}", pod.ip);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_sees_pods_of_each_eni_as_the_node() -> Result<()> {
    let spec = spec("fsnat", &[]);
    let public = public_address(&spec)?;
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        // Three on the primary ENI, two on another.
        let pods = node.runtime.run_all("p", 5).await?;
        seen_as(&pods, public).await?;
        output(in_netns(&node.netns, "nft").args(["flush", "ruleset"])).await?;
        seen_as(&pods, public).await?;
        let repairs = r#"tidepool_host_network_repairs_total{part="nat"}"#;
        // The daemon counts a repair after it.
        eventually("counted repair", PATIENCE, async || {
            let n = node.scrape().await?.remove(repairs);
            ensure!(n.as_deref() == Some("1"), "{n:?} repairs were counted");
            Ok(())
        })
        .await?;
        all_reachable(node, &pods).await?;
        node.runtime.remove_all(&pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// The internet gateway drops packets from addresses without a public one, as AWS does.
#[tokio::test(flavor = "multi_thread")]
async fn pods_keep_their_addresses_with_external_snat() -> Result<()> {
    let spec = spec("fext", &[("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true")]);
    let public = public_address(&spec)?;
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let pods = node.runtime.run_all("p", 5).await?;
        let host = format!("/run/netns/{}", node.netns);
        let ask = || ExecNode::seen_outside(&host, OUTSIDE);
        let seen = eventually("answer to the node", PATIENCE, ask).await?;
        ensure!(seen == public, "the node is seen as {seen}");
        for pod in &pods {
            let seen = ExecNode::seen_outside(&pod.netns, OUTSIDE).await;
            ensure!(seen.is_err(), "{} is seen as {seen:?}", pod.ip);
        }
        all_reachable(node, &pods).await?;
        node.runtime.remove_all(&pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn range_that_joins_the_vpc_is_untranslated_at_once() -> Result<()> {
    ExecCluster::with(spec("frange", &[]), async |cluster| {
        let vpcs = cluster.sim.ec2("DescribeVpcs", &[]).await?;
        let vpc = vpcs.split("<vpcId>").nth(1).and_then(|rest| rest.split('<').next());
        let vpc = vpc.with_context(|| format!("no VPC in {vpcs}"))?;
        let range = "100.64.0.0/16";
        let parameters = [("VpcId", vpc), ("CidrBlock", range)];
        cluster.sim.ec2("AssociateVpcCidrBlock", &parameters).await?;
        let netns = &cluster.nodes[0].netns;
        eventually("range in the table", PATIENCE, async || {
            let list = ["list", "set", "ip", "tidepool", "untranslated"];
            let set = output(in_netns(netns, "nft").args(list)).await?;
            ensure!(set.contains(range), "{set}");
            Ok(())
        })
        .await
    })
    .await
}
