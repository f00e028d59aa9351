//! Changes by hand to ENIs that pods use.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::Spec;
use tests::exec::ExecCluster;
use tests::process::{PATIENCE, eventually};

use crate::{all_reachable, called};

const BY_HAND: &str = "10.0.0.200";

/// The secondary addresses that EC2 has on the ENI.
async fn secondaries(cluster: &ExecCluster, eni: &str) -> Result<Vec<Value>> {
    let network = cluster.sim.network().await?;
    let instances = network["instances"].as_array().context("a network without instances")?;
    let mut enis = instances.iter().flat_map(|it| it["enis"].as_array().into_iter().flatten());
    let found = enis.find(|it| it["id"] == eni).context("no such ENI")?;
    Ok(found["secondaries"].as_array().cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_address_on_our_eni_is_neither_used_nor_removed() -> Result<()> {
    let settings =
        [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1"), ("TIDEPOOL_SHRINK_DELAY", "1s")];
    ExecCluster::with(Spec::new("fhand", "m5.large", 1, &settings), async |cluster| {
        let mut pods = cluster.nodes[0].runtime.run_all("a", 3).await?;
        let view = cluster.nodes[0].view().await?;
        let primary = view.enis.iter().find(|eni| eni.primary).context("no primary")?.id.clone();
        let address = [("NetworkInterfaceId", primary.as_str()), ("PrivateIpAddress.1", BY_HAND)];
        cluster.sim.ec2("AssignPrivateIpAddresses", &address).await?;
        for name in ["b", "c"] {
            cluster.nodes[0].kill_ipamd().await?;
            cluster.nodes[0].start_ipamd().await?;
            let node = &cluster.nodes[0];
            let line = format!("{BY_HAND}/32 on {primary} is not from us: left alone");
            eventually("line about the address", PATIENCE, async || {
                let blocked = node.view().await?.blocked;
                ensure!(blocked.contains(&line), "{blocked:?}");
                Ok(())
            })
            .await?;
            pods.extend(node.runtime.run_all(name, 6).await?);
        }
        let node = &cluster.nodes[0];
        ensure!(pods.iter().all(|pod| pod.ip != BY_HAND), "a pod has it: {pods:?}");
        all_reachable(node, &pods).await?;
        node.runtime.remove_all(&pods).await?;
        // Only the surplus goes back.
        called(cluster, "UnassignPrivateIpAddresses", 1).await?;
        let left = secondaries(cluster, &primary).await?;
        ensure!(left.contains(&json!(BY_HAND)), "{BY_HAND} is not among {left:?}");
        Ok(())
    })
    .await
}

/// The daemon polls EC2 when the kernel reports that the device is gone.
#[tokio::test(flavor = "multi_thread")]
async fn eni_detached_under_its_pods_comes_back_to_them() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fhdet", "t3.small", 1, &settings), async |cluster| {
        let node = &cluster.nodes[0];
        let first = node.runtime.run_all("a", 5).await?;
        let view = node.view().await?;
        let primary = view.enis.iter().find(|eni| eni.primary).context("no primary")?.id.clone();
        let addresses = view.pods.iter().filter_map(|pod| pod.address.as_ref());
        let mut enis = addresses.map(|address| address.eni.clone());
        let torn = enis.find(|eni| *eni != primary).context("no pod on a secondary ENI")?;
        cluster.sim.disturb(json!({"detach_eni": {"eni": torn}})).await?;
        let second = node.runtime.run_all("b", 2).await?;
        eventually("the pods' network", PATIENCE, || all_reachable(node, &first)).await?;
        all_reachable(node, &[first, second].concat()).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
