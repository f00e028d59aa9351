//! Metrics count the disagreements of record, EC2 and kernel until their cause has gone.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually, in_netns, output};

use crate::{ATTACH, CREATE};

/// Waits until each of the metrics has its value.
async fn until(node: &ExecNode, expect: &[(&str, &str)]) -> Result<()> {
    eventually("metrics as expected", PATIENCE, async || {
        let samples = node.scrape().await?;
        for (sample, value) in expect {
            let found = samples.get(*sample).map_or("nothing", String::as_str);
            ensure!(found == *value, "{sample} is {found}, not {value}");
        }
        Ok(())
    })
    .await
}

const QUARANTINED: &str = "tidepool_disagreements{kind=\"quarantined_address\"}";
const LOST_ADDRESS: &str = "tidepool_disagreements{kind=\"lost_address\"}";
const LOST_ENI: &str = "tidepool_disagreements{kind=\"lost_eni\"}";
const NO_MANAGE: &str = "tidepool_foreign_enis{reason=\"no_manage_tag\"}";

async fn ip(node: &ExecNode, words: &str) -> Result<String> {
    output(in_netns(&node.netns, "ip").args(words.split(' '))).await
}

/// A daemon that starts reads EC2 and the kernel again.
async fn restart(cluster: &mut ExecCluster) -> Result<()> {
    let node = &mut cluster.nodes[0];
    node.stop_ipamd().await?;
    node.start_ipamd().await
}

#[tokio::test(flavor = "multi_thread")]
async fn disagreements_are_counted_until_they_have_gone() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "3"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fmet", "m5.large", 1, &settings), async |cluster| {
        let node = &cluster.nodes[0];
        let pod = node.runtime.run("p").await?;
        let view = node.view().await?;
        let mut blocks = view.enis.iter().flat_map(|eni| &eni.blocks);
        let free = blocks.find(|block| block.free == 1).context("no free address")?;
        let free = free.cidr.clone();
        let agreed = [(QUARANTINED, "0"), (LOST_ADDRESS, "0"), ("tidepool_ready", "1")];
        until(node, &agreed).await?;
        until(node, &[("awscni_add_ip_req_count", "1"), ("awscni_assigned_ip_addresses", "1")])
            .await?;

        // Somebody routes one of our addresses to their own link.
        ip(node, "link add enistrange type veth peer name strange").await?;
        ip(node, "link set enistrange up").await?;
        ip(node, &format!("route add {free} dev enistrange")).await?;
        restart(cluster).await?;
        let node = &cluster.nodes[0];
        until(node, &[(QUARANTINED, "1")]).await?;
        ip(node, "link del enistrange").await?;
        until(node, &[(QUARANTINED, "0")]).await?;

        // Somebody takes the pod's address off its ENI.
        let eni = node.view().await?.pods[0].address.clone().context("no address")?.eni;
        let unassign = json!({"unassign": {"eni": eni, "addresses": [pod.ip]}});
        cluster.sim.disturb(unassign).await?;
        restart(cluster).await?;
        let node = &cluster.nodes[0];
        until(node, &[(LOST_ADDRESS, "1"), (LOST_ENI, "0")]).await?;
        node.runtime.remove(&pod).await?;
        until(node, &agreed).await
    })
    .await
}

/// An ENI with the tag that keeps the daemon off.
async fn attach_unmanaged(cluster: &ExecCluster) -> Result<String> {
    let view = cluster.nodes[0].view().await?;
    let create = [
        ("SubnetId", view.enis[0].subnet.as_str()),
        ("TagSpecification.1.ResourceType", "network-interface"),
        ("TagSpecification.1.Tag.1.Key", "node.k8s.amazonaws.com/no_manage"),
        ("TagSpecification.1.Tag.1.Value", "true"),
    ];
    let created = cluster.sim.ec2(CREATE, &create).await?;
    let (_, rest) = created.split_once("<networkInterfaceId>").context("no id")?;
    let eni = rest.split('<').next().context("no id")?.to_owned();
    let instance = ("InstanceId", view.instance_id.as_str());
    let attach = [("NetworkInterfaceId", eni.as_str()), instance, ("DeviceIndex", "1")];
    cluster.sim.ec2(ATTACH, &attach).await?;
    Ok(eni)
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_enis_are_counted_by_reason() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1")];
    ExecCluster::with(Spec::new("fmetf", "m5.large", 1, &settings), async |cluster| {
        until(&cluster.nodes[0], &[("awscni_eni_max", "3")]).await?;
        let eni = attach_unmanaged(cluster).await?;
        restart(cluster).await?;
        let node = &cluster.nodes[0];
        until(node, &[(NO_MANAGE, "1"), ("awscni_eni_max", "2")]).await?;
        ensure!(node.view().await?.foreign_enis == std::slice::from_ref(&eni));
        cluster.sim.disturb(json!({"detach_eni": {"eni": eni}})).await?;
        restart(cluster).await?;
        until(&cluster.nodes[0], &[("awscni_eni_max", "3")]).await?;
        ensure!(!cluster.nodes[0].scrape().await?.contains_key(NO_MANAGE));
        Ok(())
    })
    .await
}
