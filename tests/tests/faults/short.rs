//! Shortages: a full subnet, a subnet without free prefixes, a full instance.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, Refusal};
use tests::process::PATIENCE;

use crate::{CREATE, all_reachable, lean, names_code, run_patiently};

/// Makes a foreign ENI with `n` secondary addresses. Returns the ENI and these addresses.
async fn squat(cluster: &ExecCluster, n: usize) -> Result<(String, Vec<String>)> {
    let network = cluster.sim.network().await?;
    let subnet = network["instances"][0]["enis"][0]["subnet_id"].as_str().context("no subnet")?;
    let n = n.to_string();
    let parameters = [("SubnetId", subnet), ("SecondaryPrivateIpAddressCount", n.as_str())];
    let answer = cluster.sim.ec2(CREATE, &parameters).await?;
    let text_of = |part: &str, tag: &str| -> Option<String> {
        Some(part.split_once(&format!("<{tag}>"))?.1.split_once('<')?.0.to_owned())
    };
    let eni = text_of(&answer, "networkInterfaceId").context("no ENI")?;
    let (_, list) = answer.split_once("<privateIpAddressesSet>").context("no addresses")?;
    let items = list.split("<item>").filter(|item| item.contains("<primary>false"));
    Ok((eni, items.filter_map(|item| text_of(item, "privateIpAddress")).collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn full_subnet_is_named_and_serves_once_it_has_space() -> Result<()> {
    let spec = Spec { subnet: "10.0.0.0/28", ..lean("ffull") };
    ExecCluster::with(spec, async |cluster| {
        let (other, theirs) = squat(cluster, 5).await?;
        let node = &cluster.nodes[0];
        let mut pods = vec![];
        let refusal = loop {
            match node.runtime.run(&format!("p{}", pods.len())).await {
                Ok(pod) => pods.push(pod),
                Err(error) => break error.downcast::<Refusal>()?,
            }
            ensure!(pods.len() <= 4, "11 addresses less 1 of the node and 6 of others");
        };
        names_code(&refusal, "SUBNET_EXHAUSTED")?;
        ensure!(pods.len() == 4, "{} pods: {refusal}", pods.len());

        let parameters =
            [("NetworkInterfaceId", other.as_str()), ("PrivateIpAddress.1", &theirs[0])];
        cluster.sim.ec2("UnassignPrivateIpAddresses", &parameters).await?;
        pods.push(run_patiently(node, "late", PATIENCE).await?);
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[other]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn fragmented_subnet_serves_single_addresses() -> Result<()> {
    let settings = [("ENABLE_PREFIX_DELEGATION", "true")];
    let mut spec = Spec::new("ffrag", "m5.large", 1, &settings);
    spec.subnet = "10.0.0.0/24";
    spec.used = (1..16).map(|block| Ipv4Addr::new(10, 0, 0, block * 16 + 7).to_string()).collect();
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let pods = node.runtime.run_all("p", 4).await?;
        all_reachable(node, &pods).await?;
        let view = node.view().await?;
        let named = view.blocked.iter().any(|line| line.starts_with("SUBNET_FRAGMENTED"));
        ensure!(named, "status does not name why there is no prefix: {:?}", view.blocked);
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn full_instance_names_the_cause_and_serves_after_a_del() -> Result<()> {
    // Long enough for the plugin of a busy machine to take its link down before the daemon reads the kernel.
    let spec = Spec::new("flim", "t3.small", 1, &[("IP_COOLDOWN_PERIOD", "20")]);
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let mut pods = node.runtime.run_all("p", 9).await?;
        let refusal = node.runtime.refusal("over").await?;
        names_code(&refusal, "ENI_LIMIT")?;
        ensure!(refusal.code == 105 && refusal.msg.contains("larger instance"), "{refusal}");
        ensure!(refusal.msg.contains("9 of 9 in use"), "{refusal}");

        node.runtime.remove(&pods.remove(0)).await?;
        // It waits for the end of the cooldown.
        pods.push(node.runtime.run("next").await?);
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
