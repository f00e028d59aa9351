//! The daemon dies while its pool grows or shrinks, at its start, and during requests.

use anyhow::{Context, Result, ensure};
use failpoint::Order;
use futures::future::try_join_all;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually};

use super::{Size, all_is_well, at_each, dies_as_it_starts, quick, size, until_size, with_pods};
use crate::{end_burst, start_burst};

/// Fail points on the way when pods come that need another ENI.
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

/// Fail points on the way when these pods go.
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

/// Fail points of every start.
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

/// Fail points of a GC, and of a start with a DEL that the plugin has left on disk.
pub(super) const ASKED: &[&str] = &["replying-gc", "note-read", "note-applied"];

/// How many clusters share the points of growth and shrinking.
const N_CLUSTERS: usize = 5;
/// One of these pods is on the second ENI.
const N_STEADY: usize = 6;
/// The settings for these tests.
const LOW: Size = Size { n_enis: 2, n_blocks: 7 };
/// Enough for more addresses on the second ENI and for a third ENI, or for another prefix.
const BURST: usize = 6;

/// Waits until the pool has one free address and is at rest.
async fn until_calm(node: &ExecNode) -> Result<()> {
    eventually("calm pool", PATIENCE, async || {
        let spare = node.view().await?.counts.context("no counts")?.free;
        ensure!(size(node).await.is_ok() && spare == 1, "{spare} to spare");
        Ok(())
    })
    .await
}

/// Where the daemon dies, and where it dies again at the following starts. With no second point it lives.
type Deaths<'a> = &'a [&'a str];

fn arm_first(node: &ExecNode, deaths: Deaths<'_>) -> Result<()> {
    deaths.first().map_or(Ok(()), |first| node.arm(first, Order::Kill))
}

/// The daemon dies at the first point, which is armed, then at the others, and comes back.
async fn dies_and_comes_back(node: &mut ExecNode, deaths: Deaths<'_>) -> Result<()> {
    let Some((first, others)) = deaths.split_first() else { return Ok(()) };
    node.ipamd_dies().await.with_context(|| format!("at {first}"))?;
    for point in others {
        node.arm(point, Order::Kill)?;
        node.start_ipamd_to_die().await.with_context(|| format!("at {first}, then {point}"))?;
    }
    node.start_ipamd().await
}

/// A burst comes, as another pod goes, and goes too; the daemon dies on its way up at `growth`, on
/// its way down at `shrinking`. In the end the pool is at its `low`.
async fn tide(
    cluster: &mut ExecCluster,
    (steady, low): (&[Pod], Size),
    (growth, shrinking): (Deaths<'_>, Deaths<'_>),
) -> Result<()> {
    let node = &mut cluster.nodes[0];
    let other = node.runtime.run("other").await?;
    until_calm(node).await?;
    arm_first(node, growth)?;
    let burst = start_burst(node, "burst", BURST).await?;
    node.runtime.remove(&other).await?;
    dies_and_comes_back(node, growth).await?;
    let burst = end_burst(node, burst).await?;
    let all = [steady, &burst].concat();
    all_is_well(cluster, &all).await.with_context(|| format!("after {growth:?}"))?;

    let node = &mut cluster.nodes[0];
    arm_first(node, shrinking)?;
    node.runtime.remove_all(&burst).await?;
    dies_and_comes_back(node, shrinking).await?;
    until_size(node, low).await.with_context(|| format!("after {shrinking:?}"))?;
    all_is_well(cluster, steady).await.with_context(|| format!("after {shrinking:?}"))
}

/// Tides with these points one after the other, on a node with `n_steady` pods beside, for which
/// `low` is enough.
async fn tides(
    spec: Spec,
    n_steady: usize,
    low: Size,
    points: &[(Deaths<'_>, Deaths<'_>)],
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
async fn daemon_killed_while_it_grows_or_shrinks_loses_nothing() -> Result<()> {
    let shrinking = SHRINKING.chunks(1).chain(std::iter::repeat(&[][..]));
    let pairs: Vec<_> = GROWTH.chunks(1).zip(shrinking).collect();
    let clusters = (0..N_CLUSTERS).map(|index| {
        let points = pairs.iter().copied().skip(index).step_by(N_CLUSTERS);
        let points: Vec<_> = points.collect();
        async move { tides(quick(&format!("kg{index}"), &[]), N_STEADY, LOW, &points).await }
    });
    try_join_all(clusters).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_at_a_prefix_call_loses_nothing() -> Result<()> {
    let spec = quick("kgp", &[("ENABLE_PREFIX_DELEGATION", "true"), ("TIDEPOOL_MAX_PODS", "110")]);
    let points: [(Deaths<'_>, Deaths<'_>); 2] = [
        (&["calling-AssignPrivateIpAddresses"], &["calling-UnassignPrivateIpAddresses"]),
        (&["called-AssignPrivateIpAddresses"], &["called-UnassignPrivateIpAddresses"]),
    ];
    // With the other pod and one to spare they fill a prefix.
    tides(spec, 14, Size { n_enis: 1, n_blocks: 1 }, &points).await
}

/// The second death is where the start makes good for the first: as it reads EC2, repeats a creation or
/// settles what was in doubt.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_again_as_it_recovers_loses_nothing() -> Result<()> {
    let points: [(Deaths<'_>, Deaths<'_>); 3] = [
        (
            &["called-CreateNetworkInterface", "called-CreateNetworkInterface", "synced-settled"],
            &["called-DetachNetworkInterface", "unwritten-settled", "synced-settled"],
        ),
        (
            &["called-AttachNetworkInterface", "unwritten-settled", "synced-settled"],
            &["called-UnassignPrivateIpAddresses", "called-DescribeNetworkInterfaces"],
        ),
        (
            &["called-AssignPrivateIpAddresses", "called-DescribeNetworkInterfaces"],
            &["called-DeleteNetworkInterface", "snapshot-renamed", "unwritten-settled"],
        ),
    ];
    tides(quick("kgg", &[]), N_STEADY, LOW, &points).await
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_at_any_step_of_its_start_loses_nothing() -> Result<()> {
    at_each(quick("kgs", &[]), 6, START, async |node, _, point| {
        node.kill_ipamd().await?;
        dies_as_it_starts(node, point).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_at_a_gc_or_a_remembered_del_loses_nothing() -> Result<()> {
    at_each(quick("kga", &[]), 2, ASKED, async |node, steady, point| {
        let gone = node.runtime.run("gone").await?;
        if point == "replying-gc" {
            node.arm(point, Order::Kill)?;
            ensure!(node.runtime.gc(steady).await.is_err(), "a GC without an answer");
            node.ipamd_dies().await?;
            // Since the plugin has taken nothing down.
            node.runtime.remove(&gone).await?;
            node.start_ipamd().await
        } else {
            node.kill_ipamd().await?;
            node.runtime.remove(&gone).await?;
            dies_as_it_starts(node, point).await
        }
    })
    .await
}
