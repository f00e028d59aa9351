//! ENIs that an ended node leaves behind, and the nodes that remove them.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::ExecCluster;
use tests::process::{eventually, output};
use tests::sim::Sim;
use tokio::process::Command;

use crate::{ATTACH, CREATE, all_reachable, called, end_burst, n_calls, start_burst};

/// A node has searched twice by then. It searches after 11/12 of the age at the latest.
const SWEPT: Duration = Duration::from_secs(75);
/// The age is so short that a test can wait for it.
const SETTINGS: [(&str, &str); 3] =
    [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "1"), ("TIDEPOOL_LEAK_AGE", "12s")];
/// The id of an instance that has ended.
const ENDED: &str = "i-0ffffffffffffffff";

/// The time in the format of the tags, in whole seconds.
async fn time(ago: Duration) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let at = format!("@{}", now.saturating_sub(ago).as_secs());
    let words = ["-u", "-d", &at, "+%Y-%m-%dT%H:%M:%SZ"];
    let text = output(Command::new("date").args(words)).await?;
    Ok(text.trim().to_owned())
}

/// Makes an ENI of a node of `cluster` that ended an hour ago.
async fn leave(sim: &Sim, cluster: &str) -> Result<String> {
    let tags = [
        ("node.k8s.amazonaws.com/instance_id", ENDED.to_owned()),
        ("node.k8s.amazonaws.com/createdAt", time(Duration::from_secs(3600)).await?),
        ("cluster.k8s.amazonaws.com/name", cluster.to_owned()),
        ("eks:eni:owner", "amazon-vpc-cni".to_owned()),
    ];
    let subnets = sim.ec2("DescribeSubnets", &[]).await?;
    let subnet = between(&subnets, "<subnetId>", "<").context("a VPC without subnet")?;
    let mut words = vec![
        ("SubnetId".to_owned(), subnet.to_owned()),
        ("TagSpecification.1.ResourceType".to_owned(), "network-interface".to_owned()),
    ];
    for (n, (key, value)) in (1..).zip(tags) {
        words.push((format!("TagSpecification.1.Tag.{n}.Key"), key.to_owned()));
        words.push((format!("TagSpecification.1.Tag.{n}.Value"), value));
    }
    let words: Vec<_> = words.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let answer = sim.ec2(CREATE, &words).await?;
    Ok(between(&answer, "<networkInterfaceId>", "<").context("no ENI")?.to_owned())
}

/// Waits until `eni` is deleted. Returns the ENIs at that time.
async fn gone(sim: &Sim, eni: &str) -> Result<BTreeSet<String>> {
    eventually("end of an ENI", SWEPT, async || {
        let enis = sim.enis().await?;
        ensure!(!enis.contains(eni), "{eni} is among {enis:?}");
        Ok(enis)
    })
    .await
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn leak_search_of_two_clusters_removes_only_its_own() -> Result<()> {
    let mut spec = Spec::new("flown", "m5.large", 2, &SETTINGS);
    for (node, cluster) in spec.nodes.iter_mut().zip(["blue", "green"]) {
        node.settings.insert("CLUSTER_NAME", cluster.to_owned());
    }
    ExecCluster::with(spec, async |cluster| {
        cluster.nodes[1].stop_ipamd().await?;
        let [blue, green] =
            [leave(&cluster.sim, "blue").await?, leave(&cluster.sim, "green").await?];
        let nobodys = leave(&cluster.sim, "red").await?;
        // Its first search may have been earlier.
        cluster.nodes[0].kill_ipamd().await?;
        cluster.nodes[0].start_ipamd().await?;
        let enis = gone(&cluster.sim, &blue).await?;
        ensure!(enis.contains(&green), "the other cluster's is gone");
        cluster.nodes[1].start_ipamd().await?;
        gone(&cluster.sim, &green).await?;
        cluster.books_agree(&[nobodys]).await
    })
    .await
}

/// One node ends between the creation and the attachment of an ENI, and comes back. Meanwhile another node removes
/// unattached ENIs that are old enough.
#[tokio::test(flavor = "multi_thread")]
async fn eni_about_to_be_attached_survives_another_nodes_search() -> Result<()> {
    let mut spec = Spec::new("flwin", "m5.large", 2, &SETTINGS);
    for node in &mut spec.nodes {
        node.settings.insert("CLUSTER_NAME", "blue".to_owned());
        node.settings.insert("TIDEPOOL_LEAK_AGE", "60s".to_owned());
    }
    ExecCluster::with(spec, async |cluster| {
        cluster.nodes[1].stop_ipamd().await?;
        let before = n_calls(cluster, CREATE).await?;
        let fault = cluster.sim.fail(ATTACH, 1000, "RequestLimitExceeded").await?;
        let known = cluster.sim.enis().await?;
        let burst = start_burst(&cluster.nodes[0], "p", 12).await?;
        called(cluster, CREATE, before + 1).await?;
        cluster.nodes[0].kill_ipamd().await?;
        let young: Vec<_> = cluster.sim.enis().await?.difference(&known).cloned().collect();
        ensure!(young.len() == 1, "{young:?} have been made");
        let old = leave(&cluster.sim, "blue").await?;

        cluster.nodes[1].start_ipamd().await?;
        let enis = gone(&cluster.sim, &old).await?;
        ensure!(enis.contains(&young[0]), "{} went with the old one", young[0]);
        cluster.sim.mend(fault).await?;
        cluster.nodes[0].start_ipamd().await?;
        let pods = end_burst(&cluster.nodes[0], burst).await?;
        all_reachable(&cluster.nodes[0], &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
