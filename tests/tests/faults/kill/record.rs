//! The daemon dies at steps that only a new record, an unknown pod or IPv6 bring about.

use anyhow::{Context, Result, ensure};
use failpoint::Order;
use futures::{StreamExt as _, stream};
use proto::v1;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually, in_netns, output};

use super::{QUICK, all_is_well, at_each, dies_as_it_starts, quick};

/// The first fail points of a record in a boot.
pub(super) const BOOTED: &[&str] = &[
    "unwritten-booted",
    "written-booted",
    "synced-booted",
    "unwritten-vpc_ranges",
    "written-vpc_ranges",
    "synced-vpc_ranges",
];
/// The fail points of a prefix that goes to other containers.
pub(super) const DELEGATING: &[&str] =
    &["unwritten-delegated", "written-delegated", "synced-delegated"];
/// The fail point at the end of a quarantine.
pub(super) const RESTING: &[&str] = &["unwritten-resting", "written-resting", "synced-resting"];
/// The fail points of the call for a /80.
pub(super) const ASSIGNING: &[&str] =
    &["calling-AssignIpv6Addresses", "called-AssignIpv6Addresses"];

fn forget_record(node: &ExecNode) -> Result<()> {
    for entry in std::fs::read_dir(node.state_directory())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("tidepool.jsonl") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_after_its_first_save_starts_again() -> Result<()> {
    ExecCluster::with(quick("krb", &[]), async |cluster| {
        for point in BOOTED {
            let node = &mut cluster.nodes[0];
            node.stop_ipamd().await?;
            forget_record(node)?;
            dies_as_it_starts(node, point).await.with_context(|| format!("at {point}"))?;
            let pods = node.runtime.run_all("p", 6).await?;
            all_is_well(cluster, &pods).await.with_context(|| format!("after {point}"))?;
            cluster.nodes[0].runtime.remove_all(&pods).await?;
        }
        Ok(())
    })
    .await
}

/// The prefixes that the node shows as delegated, and all that it has.
async fn delegated(node: &ExecNode) -> Result<(Vec<String>, u64)> {
    let view = node.view().await?;
    let delegated = view.enis.iter().flat_map(|eni| eni.delegated.clone()).collect();
    Ok((delegated, view.counts.context("no counts")?.prefixes))
}

/// Each run delegates one prefix, and takes it back by the next settings.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_as_it_delegates_ends_with_one_prefix() -> Result<()> {
    let settings = [("ENABLE_PREFIX_DELEGATION", "true"), ("TIDEPOOL_DELEGATED_PREFIXES", "1")];
    ExecCluster::with(quick("krd", &settings), async |cluster| {
        for point in DELEGATING {
            let node = &mut cluster.nodes[0];
            node.stop_ipamd().await?;
            forget_record(node)?;
            dies_as_it_starts(node, point).await.with_context(|| format!("at {point}"))?;
            let node = &cluster.nodes[0];
            let found = eventually("delegation", PATIENCE, async || {
                let found = delegated(node).await?;
                ensure!(found.0.len() == 1 && found.1 >= 1, "{found:?}");
                Ok(found.0)
            });
            let found = found.await.with_context(|| format!("after {point}"))?;
            let pods = node.runtime.run_all("p", 4).await?;
            let prefix: ipnet::Ipv4Net = found[0].parse()?;
            for pod in &pods {
                let ip: std::net::Ipv4Addr = pod.ip.parse()?;
                ensure!(!prefix.contains(&ip), "{ip} is in {prefix}");
            }
            all_is_well(cluster, &pods).await.with_context(|| format!("after {point}"))?;
            cluster.nodes[0].runtime.remove_all(&pods).await?;
        }
        Ok(())
    })
    .await
}

async fn ip(node: &ExecNode, words: &str) -> Result<()> {
    output(in_netns(&node.netns, "ip").args(words.split(' '))).await.map(|_| ())
}

async fn until_quarantined(node: &ExecNode, n: u64) -> Result<()> {
    eventually("quarantine", PATIENCE, async || {
        let quarantined = node.view().await?.counts.context("no counts")?.quarantined;
        ensure!(quarantined == n, "{quarantined} in quarantine, not {n}");
        Ok(())
    })
    .await
}

/// A free address is routed to a link that nobody knows, until that link goes.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_as_it_ends_a_quarantine_loses_no_address() -> Result<()> {
    at_each(quick("krr", &[]), 2, RESTING, async |node, _, point| {
        let gone = node.runtime.run("gone").await?;
        node.runtime.remove(&gone).await?;
        ip(node, "link add strange type veth peer name stranger").await?;
        ip(node, "link set strange up").await?;
        ip(node, &format!("route add {} dev strange", gone.ip)).await?;
        node.kill_ipamd().await?;
        node.start_ipamd().await?;
        until_quarantined(node, 1).await?;
        node.arm(point, Order::Kill)?;
        ip(node, "link del strange").await?;
        node.ipamd_dies().await?;
        node.start_ipamd().await?;
        until_quarantined(node, 0).await
    })
    .await
}

/// Somebody takes the node's /80 while no daemon runs, so the next daemon asks for another.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_at_the_ipv6_prefix_call_ends_with_one() -> Result<()> {
    ExecCluster::with(Spec::ipv6("kr6", "t3.small", 1, &QUICK[1..]), async |cluster| {
        for point in ASSIGNING {
            cluster.nodes[0].stop_ipamd().await?;
            let network = cluster.sim.network().await?;
            let eni = &network["instances"][0]["enis"][0];
            let id = eni["id"].as_str().context("an ENI without id")?;
            let prefixes = eni["ipv6_prefixes"].as_array().context("no prefixes")?;
            ensure!(prefixes.len() == 1, "{prefixes:?}");
            let prefix = prefixes[0].as_str().context("a prefix")?;
            let parameters = [("NetworkInterfaceId", id), ("Ipv6Prefix.1", prefix)];
            cluster.sim.ec2("UnassignIpv6Addresses", &parameters).await?;
            let node = &mut cluster.nodes[0];
            dies_as_it_starts(node, point).await.with_context(|| format!("at {point}"))?;
            let pod = node.runtime.run("p").await?;
            all_is_well(cluster, std::slice::from_ref(&pod)).await?;
            cluster.nodes[0].runtime.remove(&pod).await?;
            let network = cluster.sim.network().await?;
            let prefixes = &network["instances"][0]["enis"][0]["ipv6_prefixes"];
            let n = prefixes.as_array().map_or(0, Vec::len);
            ensure!(n == 1, "after {point} there are {prefixes}");
        }
        Ok(())
    })
    .await
}

/// Asks for addresses and returns them, without links, until the daemon has died.
async fn wear_out(node: &ExecNode) -> Result<()> {
    let client = node.client().await?;
    let lives = stream::iter(0..).map(|n| {
        let mut client = client.clone();
        async move {
            let attachment = Some(v1::Attachment {
                network: "aws-cni".into(),
                container_id: format!("worn{n}"),
                ifname: "eth0".to_owned(),
            });
            let client_version = proto::VERSION.to_owned();
            let add = v1::AddRequest {
                attachment: attachment.clone(),
                pod: Some(v1::Pod { name: "worn".to_owned(), ..v1::Pod::default() }),
                netns: "/run/netns/worn".to_owned(),
                client_version: client_version.clone(),
                takes_node_local: true,
            };
            client.add(add).await?;
            client.del(v1::DelRequest { attachment, pod: None, client_version }).await
        }
    });
    let mut lives = std::pin::pin!(lives.buffer_unordered(32));
    while lives.next().await.is_some_and(|life| life.is_ok()) {}
    Ok(())
}

/// The log is made anew at every start as well, which has tests of its own. Here pods are at work, and
/// what the log has grown by is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_as_it_shortens_its_log_loses_nothing() -> Result<()> {
    let settings = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("TIDEPOOL_MAX_PODS", "110"),
        ("IP_COOLDOWN_PERIOD", "0"),
    ];
    let points = ["snapshot-written", "snapshot-renamed"];
    at_each(quick("krl", &settings), 4, &points, async |node, steady, point| {
        node.arm(point, Order::Kill)?;
        wear_out(node).await?;
        node.ipamd_dies().await?;
        node.start_ipamd().await?;
        node.runtime.gc(steady).await
    })
    .await
}
