//! A node that comes with what its launch asked for: addresses, prefixes, a second ENI. Karpenter and launch templates
//! do so, to spare the first pods the wait for EC2. What covers the targets costs no call that changes anything.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use tests::cluster::{IPV6_SETTINGS, Spec};
use tests::exec::ExecCluster;
use tests::process::{PATIENCE, eventually};

use crate::{ASSIGN, ATTACH, CREATE, MODIFY, all_reachable};

/// Targets that hold nothing beyond what running pods use.
const NOTHING: [(&str, &str); 2] = [("WARM_ENI_TARGET", "0"), ("IP_COOLDOWN_PERIOD", "1")];
const UNASSIGN: &str = "UnassignPrivateIpAddresses";

/// What a launch puts on the ENIs of one kind, by the parameter of `AssignPrivateIpAddresses` or its like.
#[derive(Debug, Clone, Copy)]
struct Launch {
    /// Of the primary ENI.
    primary: Option<(&'static str, &'static str)>,
    /// Of a second ENI; it has one if this is not `None`.
    second: Option<(&'static str, &'static str)>,
}

const ADDRESSES: &str = "SecondaryPrivateIpAddressCount";
const PREFIXES: &str = "Ipv4PrefixCount";
const IPV6_PREFIXES: &str = "Ipv6PrefixCount";

/// The calls so far that change something.
async fn changes(cluster: &ExecCluster) -> Result<BTreeMap<String, u64>> {
    let mut calls = cluster.sim.calls().await?;
    calls.retain(|action, _| !action.starts_with("Describe"));
    Ok(calls)
}

fn between<'a>(xml: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(text, _)| text)
}

/// Puts on the instance what `launch` names. Then nobody can tell it from one that was launched so: nothing has our
/// tags, the daemon has no record, and the ENIs end with the instance.
async fn launch(cluster: &mut ExecCluster, launch: Launch) -> Result<()> {
    cluster.nodes[0].stop_ipamd().await?;
    forget(cluster).await?;
    let network = cluster.sim.network().await?;
    let instance = &network["instances"][0];
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).context("no text");
    let (id, primary) = (text(&instance["id"])?, text(&instance["enis"][0]["id"])?);
    let subnet = text(&instance["enis"][0]["subnet_id"])?;
    if let Some((what, n)) = launch.primary {
        let action = if what == IPV6_PREFIXES { "AssignIpv6Addresses" } else { ASSIGN };
        cluster.sim.ec2(action, &[("NetworkInterfaceId", &primary), (what, n)]).await?;
    }
    if let Some(blocks) = launch.second {
        let made = cluster.sim.ec2(CREATE, &[("SubnetId", &*subnet), blocks]).await?;
        let eni = between(&made, "networkInterfaceId").context("no ENI")?;
        let place = [("NetworkInterfaceId", eni), ("InstanceId", &id), ("DeviceIndex", "1")];
        let attached = cluster.sim.ec2(ATTACH, &place).await?;
        let attachment = between(&attached, "attachmentId").context("no attachment")?;
        let ends = [
            ("NetworkInterfaceId", eni),
            ("Attachment.AttachmentId", attachment),
            ("Attachment.DeleteOnTermination", "true"),
        ];
        cluster.sim.ec2(MODIFY, &ends).await?;
    }
    Ok(())
}

/// Removes the record and what the daemon has put on the primary ENI, as on a new node.
async fn forget(cluster: &ExecCluster) -> Result<()> {
    let described = cluster.sim.ec2("DescribeNetworkInterfaces", &[]).await?;
    let eni = between(&described, "networkInterfaceId").context("no ENI")?;
    let list = between(&described, "privateIpAddressesSet").context("no addresses")?;
    let items = list.split("<item>").filter(|item| item.contains("<primary>false"));
    for address in items.filter_map(|item| between(item, "privateIpAddress")) {
        let what = [("NetworkInterfaceId", eni), ("PrivateIpAddress.1", address)];
        cluster.sim.ec2(UNASSIGN, &what).await?;
    }
    for entry in std::fs::read_dir(cluster.nodes[0].state_directory())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("tidepool.jsonl") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Starts the daemon for the first time on such an instance, until it has `free` free addresses and nothing more to do.
/// Returns its calls that change something.
async fn first_start(
    cluster: &mut ExecCluster,
    settings: &[(&'static str, &str)],
    free: u64,
) -> Result<BTreeMap<String, u64>> {
    let before = changes(cluster).await?;
    cluster.nodes[0].configure(settings);
    cluster.nodes[0].start_ipamd().await?;
    let has_all = async || {
        let view = cluster.nodes[0].view().await?;
        let counts = view.counts.context("no counts")?;
        let is_quiet = view.in_flight.is_empty() && view.foreign_enis.is_empty();
        ensure!(counts.free == free && is_quiet, "{counts:?}, {view:?}");
        Ok(())
    };
    eventually("the launch's addresses", PATIENCE, has_all).await?;
    // Ten times as long as the pool may be too small before it grows. A slow machine sees less, and never fails for it.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    has_all().await?;
    let mut made = changes(cluster).await?;
    made.retain(|action, n| {
        *n -= before.get(action).copied().unwrap_or_default();
        *n > 0
    });
    Ok(made)
}

async fn check(
    name: &str,
    spec: impl FnOnce(&str) -> Spec,
    launched: Launch,
    settings: &[(&'static str, &str)],
    free: u64,
    expect: &[(&str, u64)],
) -> Result<()> {
    ExecCluster::with(spec(name), async |cluster| {
        launch(cluster, launched).await?;
        let made = first_start(cluster, settings, free).await?;
        let expect: BTreeMap<_, _> = expect.iter().map(|(a, n)| ((*a).to_owned(), *n)).collect();
        ensure!(made == expect, "{made:?}, expected {expect:?}");
        // They serve, all of them.
        let node = &cluster.nodes[0];
        let n = usize::try_from(free.min(4))?;
        let pods = node.runtime.run_all("p", n).await?;
        if pods.iter().any(|pod| pod.ip.is_empty()) {
            bail!("a pod without address: {pods:?}");
        }
        all_reachable(node, &pods).await?;
        node.runtime.remove_all(&pods).await
    })
    .await
}

fn v4(name: &str) -> Spec {
    Spec::new(name, "m5.large", 1, &NOTHING)
}

#[tokio::test(flavor = "multi_thread")]
async fn launch_that_covers_the_target_costs_no_change() -> Result<()> {
    let launched = Launch { primary: Some((ADDRESSES, "3")), second: None };
    check("flad", v4, launched, &[("WARM_IP_TARGET", "3")], 3, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn second_eni_of_the_launch_is_used_without_a_change() -> Result<()> {
    let launched = Launch { primary: Some((ADDRESSES, "9")), second: Some((ADDRESSES, "3")) };
    check("flse", v4, launched, &[("WARM_IP_TARGET", "12")], 12, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_of_the_launch_are_used_without_a_change() -> Result<()> {
    let launched = Launch { primary: Some((PREFIXES, "1")), second: Some((PREFIXES, "1")) };
    let settings = [("ENABLE_PREFIX_DELEGATION", "true"), ("WARM_PREFIX_TARGET", "2")];
    check("flpr", v4, launched, &settings, 32, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn target_above_the_launch_is_filled_by_what_is_missing() -> Result<()> {
    let launched = Launch { primary: Some((ADDRESSES, "3")), second: None };
    check("flle", v4, launched, &[("WARM_IP_TARGET", "5")], 5, &[(ASSIGN, 1)]).await
}

/// Addresses of the launch go back like all others. The ENI stays, since it has no tag of ours.
#[tokio::test(flavor = "multi_thread")]
async fn surplus_of_the_launch_goes_back_and_its_eni_stays() -> Result<()> {
    let launched = Launch { primary: Some((ADDRESSES, "2")), second: Some((ADDRESSES, "2")) };
    let settings =
        [("WARM_IP_TARGET", "1"), ("TIDEPOOL_SHRINK_DELAY", "1s"), ("TIDEPOOL_MIN_ENI_AGE", "1s")];
    ExecCluster::with(v4("flmo"), async |cluster| {
        launch(cluster, launched).await?;
        let enis = cluster.sim.enis().await?;
        let made = first_start(cluster, &settings, 1).await?;
        ensure!(made.keys().eq([UNASSIGN]), "{made:?}");
        ensure!(cluster.sim.enis().await? == enis, "an ENI of the launch is gone");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_prefix_of_the_launch_is_used_without_a_change() -> Result<()> {
    ExecCluster::with(Spec { ipv6: true, ..v4("flv6") }, async |cluster| {
        launch(cluster, Launch { primary: Some((IPV6_PREFIXES, "1")), second: None }).await?;
        let before = changes(cluster).await?;
        cluster.nodes[0].configure(&IPV6_SETTINGS);
        cluster.nodes[0].start_ipamd().await?;
        let node = &cluster.nodes[0];
        let pods = node.runtime.run_all("p", 3).await?;
        all_reachable(node, &pods).await?;
        let after = changes(cluster).await?;
        ensure!(after == before, "{after:?}, before {before:?}");
        node.runtime.remove_all(&pods).await
    })
    .await
}
