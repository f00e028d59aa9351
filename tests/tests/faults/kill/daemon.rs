//! The daemon dies while its pool grows, shrinks, as it starts, and while it is asked.

use anyhow::{Context, Result, ensure};
use failpoint::Order;
use futures::future::try_join_all;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually};

use super::{Size, all_is_well, quick, size, until_size, with_pods};
use crate::{end_burst, start_burst};

/// Passed when pods come for which another ENI is needed.
pub(super) const GROWTH: &[&str] = &[
    "unwritten-assigned",
    "written-assigned",
    "synced-assigned",
    "replying-add",
    "unwritten-intended",
    "written-intended",
    "synced-intended",
    "unwritten-settled",
    "written-settled",
    "synced-settled",
    "unwritten-eni_known",
    "written-eni_known",
    "synced-eni_known",
    "calling-CreateNetworkInterface",
    "called-CreateNetworkInterface",
    "calling-AttachNetworkInterface",
    "called-AttachNetworkInterface",
    "calling-ModifyNetworkInterfaceAttribute",
    "called-ModifyNetworkInterfaceAttribute",
    "calling-AssignPrivateIpAddresses",
    "called-AssignPrivateIpAddresses",
    "host-synced",
];

/// Passed when these pods go.
pub(super) const SHRINKING: &[&str] = &[
    "unwritten-released",
    "written-released",
    "synced-released",
    "replying-del",
    "unwritten-rested",
    "written-rested",
    "synced-rested",
    "unwritten-eni_forgotten",
    "written-eni_forgotten",
    "synced-eni_forgotten",
    "calling-UnassignPrivateIpAddresses",
    "called-UnassignPrivateIpAddresses",
    "calling-DetachNetworkInterface",
    "called-DetachNetworkInterface",
    "calling-DeleteNetworkInterface",
    "called-DeleteNetworkInterface",
];

/// Passed at every start.
pub(super) const START: &[&str] = &[
    "socket-bound",
    "snapshot-written",
    "snapshot-kept",
    "snapshot-renamed",
    "snapshot-synced",
    "calling-DescribeNetworkInterfaces",
    "called-DescribeNetworkInterfaces",
    "calling-DescribeSubnets",
    "called-DescribeSubnets",
];

/// Passed at a GC, and at a start for which the plugin has left a DEL.
pub(super) const ASKED: &[&str] = &["replying-gc", "note-read", "note-applied"];

/// How many clusters share the points of growth and shrinking.
const N_CLUSTERS: usize = 5;
/// Enough for more addresses on the second ENI and for a third ENI, or for another prefix.
const BURST: usize = 6;

/// Waits until the pool has one address to spare and wants nothing.
async fn until_calm(node: &ExecNode) -> Result<()> {
    eventually("calm pool", PATIENCE, async || {
        let spare = node.view().await?.counts.context("no counts")?.free;
        ensure!(size(node).await.is_ok() && spare == 1, "{spare} to spare");
        Ok(())
    })
    .await
}

/// A burst comes, as another pod goes, and goes too; the daemon dies on its way up at `growth`, on
/// its way down at `shrinking`. In the end the pool is at its `low`.
async fn tide(
    cluster: &mut ExecCluster,
    (steady, low): (&[Pod], Size),
    (growth, shrinking): (&str, Option<&str>),
) -> Result<()> {
    let node = &mut cluster.nodes[0];
    let other = node.runtime.run("other").await?;
    until_calm(node).await?;
    node.arm(growth, Order::Kill)?;
    let burst = start_burst(node, "burst", BURST).await?;
    node.runtime.remove(&other).await?;
    node.ipamd_dies().await.with_context(|| format!("at {growth}"))?;
    node.start_ipamd().await?;
    let burst = end_burst(node, burst).await?;
    let all = [steady, &burst].concat();
    all_is_well(cluster, &all).await.with_context(|| format!("after {growth}"))?;

    let node = &mut cluster.nodes[0];
    if let Some(shrinking) = shrinking {
        node.arm(shrinking, Order::Kill)?;
    }
    node.runtime.remove_all(&burst).await?;
    if let Some(shrinking) = shrinking {
        node.ipamd_dies().await.with_context(|| format!("at {shrinking}"))?;
        node.start_ipamd().await?;
    }
    until_size(node, low).await.with_context(|| format!("after {shrinking:?}"))?;
    all_is_well(cluster, steady).await.with_context(|| format!("after {shrinking:?}"))
}

/// Tides with these points one after the other, on a node with `n_steady` pods beside, for which
/// `low` is enough.
async fn tides(
    spec: Spec,
    n_steady: usize,
    low: Size,
    points: &[(&str, Option<&str>)],
) -> Result<()> {
    with_pods(spec, n_steady, async |cluster, steady| {
        for points in points {
            tide(cluster, (steady, low), *points).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_step_of_growing_or_shrinking_loses_nothing() -> Result<()> {
    let shrinking = SHRINKING.iter().copied().map(Some).chain(std::iter::repeat(None));
    let pairs: Vec<_> = GROWTH.iter().copied().zip(shrinking).collect();
    let clusters = (0..N_CLUSTERS).map(|index| {
        let points = pairs.iter().copied().skip(index).step_by(N_CLUSTERS);
        let points: Vec<_> = points.collect();
        // One of the six is on the second ENI.
        let low = Size { n_enis: 2, n_blocks: 7 };
        async move { tides(quick(&format!("kg{index}"), &[]), 6, low, &points).await }
    });
    try_join_all(clusters).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_a_call_for_prefixes_loses_nothing() -> Result<()> {
    let spec = quick("kgp", &[("ENABLE_PREFIX_DELEGATION", "true"), ("TIDEPOOL_MAX_PODS", "110")]);
    let points = [
        ("calling-AssignPrivateIpAddresses", Some("calling-UnassignPrivateIpAddresses")),
        ("called-AssignPrivateIpAddresses", Some("called-UnassignPrivateIpAddresses")),
    ];
    // With the other pod and one to spare they fill a prefix.
    tides(spec, 14, Size { n_enis: 1, n_blocks: 1 }, &points).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_step_of_its_start_loses_nothing() -> Result<()> {
    with_pods(quick("kgs", &[]), 6, async |cluster, steady| {
        for point in START {
            let node = &mut cluster.nodes[0];
            node.kill_ipamd().await?;
            node.arm(point, Order::Kill)?;
            node.start_ipamd_to_die().await.with_context(|| format!("at {point}"))?;
            node.start_ipamd().await?;
            all_is_well(cluster, steady).await.with_context(|| format!("after {point}"))?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_a_gc_or_at_a_del_left_on_disk_loses_nothing() -> Result<()> {
    with_pods(quick("kga", &[]), 2, async |cluster, steady| {
        for point in ASKED {
            let node = &mut cluster.nodes[0];
            let gone = node.runtime.run("gone").await?;
            if *point == "replying-gc" {
                node.arm(point, Order::Kill)?;
                ensure!(node.runtime.gc(steady).await.is_err(), "a GC without an answer");
                node.ipamd_dies().await?;
                // As the plugin has taken nothing down.
                node.runtime.remove(&gone).await?;
            } else {
                node.kill_ipamd().await?;
                node.runtime.remove(&gone).await?;
                node.arm(point, Order::Kill)?;
                node.start_ipamd_to_die().await.with_context(|| format!("at {point}"))?;
            }
            node.start_ipamd().await?;
            all_is_well(cluster, steady).await.with_context(|| format!("after {point}"))?;
        }
        Ok(())
    })
    .await
}
