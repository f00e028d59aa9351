//! The plugin dies at each step of each verb, as by the OOM killer. The runtime reacts as usual.

use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context, Result, ensure};
use failpoint::Order;
use tests::books::kernel;
use tests::exec::{ExecNode, Pod};
use tests::process::{PATIENCE, eventually};
use tokio::process::Child;

use super::{all_is_well, at_each, quick, with_pods};
use crate::add_again;

pub(crate) const ADD: &[&str] = &[
    "add-connected",
    "add-granted",
    "link-made",
    "link-marked",
    "link-furnished",
    "link-routed",
    "link-ruled",
    "add-printing",
];
/// Tried in the guest, where the kernel has `ipvlan`: `tests/tests/ipvlan/life.rs`.
pub(super) const CHILD: &[&str] = &["child-made"];
pub(crate) const DEL: &[&str] = &[
    "del-begun",
    "del-answered",
    "ports-unnoted",
    "unlink-unruled",
    "unlink-unrouted",
    "unlink-retired",
    "del-unlinked",
];
/// The fail point of a DEL without a daemon.
pub(super) const NOTE: &[&str] = &["del-drafted", "del-noted"];
pub(super) const GC: &[&str] = &["gc-collected"];

pub(super) async fn dies(plugin: Child, point: &str) -> Result<()> {
    let out = plugin.wait_with_output().await?;
    ensure!(out.status.signal() == Some(9), "not killed at {point}: {out:?}");
    ensure!(out.stdout.is_empty(), "killed at {point}, and printed {out:?}");
    Ok(())
}

async fn killed(node: &ExecNode, verb: &str, pod: &Pod, point: &str) -> Result<()> {
    dies(node.runtime.start_verb_armed(verb, pod, point, Order::Kill).await?, point).await
}

/// Cleanup is once by a kubelet that tries again, and once by a GC.
#[tokio::test(flavor = "multi_thread")]
async fn add_killed_at_any_step_leaves_nothing() -> Result<()> {
    // So that no ENI comes or goes.
    let settings = [("MAX_ENI", "1"), ("IP_COOLDOWN_PERIOD", "0")];
    with_pods(quick("kpa", &settings), 2, async |cluster, steady| {
        let host = format!("/run/netns/{}", cluster.nodes[0].netns);
        let before = kernel(&host).await?;
        let nothing_left = async |point: &str| {
            let after = kernel(&host).await?;
            ensure!(after == before, "{point} has left something: {after} for {before}");
            anyhow::Ok(())
        };
        for point in ADD {
            let node = &cluster.nodes[0];
            let mut pod = node.runtime.pod("again").await?;
            killed(node, "ADD", &pod, point).await?;
            pod.ip = add_again(node, &pod).await?;
            let all = [steady, std::slice::from_ref(&pod)].concat();
            all_is_well(cluster, &all).await.with_context(|| format!("{point}, and again"))?;
            let node = &cluster.nodes[0];
            node.runtime.remove(&pod).await?;
            nothing_left(point).await?;

            let pod = node.runtime.pod("collected").await?;
            killed(node, "ADD", &pod, point).await?;
            // The GC takes it as soon as the daemon has noticed that the caller is gone.
            eventually("collection", PATIENCE, async || {
                node.runtime.gc(steady).await?;
                nothing_left(point).await
            })
            .await?;
            all_is_well(cluster, steady).await.with_context(|| format!("{point}, and a GC"))?;
            cluster.nodes[0].runtime.remove(&pod).await?;
        }
        Ok(())
    })
    .await
}

/// The daemon has released the address, and the kernel still routes it to the pod before.
#[tokio::test(flavor = "multi_thread")]
async fn address_of_a_link_that_a_del_left_goes_to_no_pod() -> Result<()> {
    // Five addresses in all.
    let settings = [("MAX_ENI", "1"), ("IP_COOLDOWN_PERIOD", "0")];
    with_pods(quick("kpl", &settings), 4, async |cluster, steady| {
        let node = &cluster.nodes[0];
        let before = node.runtime.run("before").await?;
        killed(node, "DEL", &before, "del-answered").await?;
        let refused = node.runtime.refusal("next").await?;
        ensure!(format!("{refused:?}").contains("1 quarantined"), "{refused:?}");
        node.runtime.remove(&before).await?;
        eventually("the address", PATIENCE, async || {
            let next = node.runtime.run("next").await?;
            ensure!(next.ip == before.ip, "{} for {}", next.ip, before.ip);
            node.runtime.remove(&next).await
        })
        .await?;
        all_is_well(cluster, steady).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn del_killed_at_any_step_is_done_by_the_next() -> Result<()> {
    at_each(quick("kpd", &[]), 2, DEL, async |node, _, point| {
        let pod = node.runtime.run("p").await?;
        killed(node, "DEL", &pod, point).await?;
        node.runtime.remove(&pod).await
    })
    .await
}

/// A whole note is enough. Half a note counts as none, and the DEL comes again.
#[tokio::test(flavor = "multi_thread")]
async fn del_killed_as_it_leaves_a_note_loses_no_address() -> Result<()> {
    with_pods(quick("kpn", &[]), 2, async |cluster, steady| {
        for point in NOTE {
            let node = &mut cluster.nodes[0];
            let pod = node.runtime.run("p").await?;
            node.kill_ipamd().await?;
            killed(node, "DEL", &pod, point).await?;
            if *point == "del-drafted" {
                node.runtime.del(&pod).await?;
            }
            node.start_ipamd().await?;
            all_is_well(cluster, steady).await.with_context(|| format!("after {point}"))?;
            cluster.nodes[0].runtime.remove(&pod).await?;
        }
        Ok(())
    })
    .await
}

/// The daemon has forgotten the pod, and nobody has removed its link. The link goes with its namespace.
#[tokio::test(flavor = "multi_thread")]
async fn gc_killed_before_it_removes_links_doubles_no_address() -> Result<()> {
    with_pods(quick("kpg", &[]), 2, async |cluster, steady| {
        for point in GC {
            let node = &cluster.nodes[0];
            let dead = node.runtime.run("dead").await?;
            dies(node.runtime.start_gc_armed(steady, point, Order::Kill).await?, point).await?;
            node.runtime.gc(steady).await?;
            let next = node.runtime.run_all("next", 3).await?;
            node.runtime.remove(&dead).await?;
            let all = [steady, &next].concat();
            all_is_well(cluster, &all).await.with_context(|| format!("after {point}"))?;
        }
        Ok(())
    })
    .await
}
