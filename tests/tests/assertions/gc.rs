//! GC releases only dead attachments.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::books::kernel;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually};

use crate::add::held_up;
use crate::{
    NETWORK, call, check, collect, connect, connect_to, gc, host, refused, spec, until_held,
    until_waiting,
};

const ASSIGN: &str = "AssignPrivateIpAddresses";

#[tokio::test(flavor = "multi_thread")]
async fn assert_51_to_53_gc_takes_only_the_dead_of_its_network() -> Result<()> {
    ExecCluster::with(spec("a51", &[("WARM_IP_TARGET", "2")]), async |cluster| {
        let node = &cluster.nodes[0];
        let before = kernel(&host(node)).await?;
        let (a, result) = connect(node, "a").await?;
        connect(node, "b").await?;
        connect(node, "c").await?;
        let (other, others) = connect_to(node, "other-net", "other").await?;

        refused(call(node, "GC", None, json!({})).await, 7)?;
        ensure!(node.held().await?.len() == 4, "a GC without a list removed something");
        for _ in 0..2 {
            collect(node, NETWORK, &[&a], &[("a", &a.ip), ("other", &other.ip)]).await?;
        }
        check(node, &a, &result).await?;
        call(node, "GC", None, json!({"cni.dev/valid-attachments": null})).await?;
        until_held(node, &[("other", &other.ip)]).await?;
        connect(node, "d").await?;
        collect(node, NETWORK, &[], &[("other", &other.ip)]).await?;
        let with_result = json!({"name": "other-net", "prevResult": others});
        call(node, "CHECK", Some(&other), with_result).await?;
        cluster.books_agree(&[]).await?;

        let node = &cluster.nodes[0];
        collect(node, "other-net", &[], &[]).await?;
        ensure!(kernel(&host(node)).await? == before, "GC left something in the kernel");
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_55_gc_leaves_an_add_that_waits() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), ("HTTP_TIMEOUT", "600")];
    ExecCluster::with(spec("a55", &settings), async |cluster| {
        let node = &cluster.nodes[0];
        let delay = cluster.sim.delay(ASSIGN).await?;
        connect(node, "first").await?;
        let (collected, (late, result)) = tokio::try_join!(
            async {
                until_waiting(node, 1).await?;
                gc(node, NETWORK, &[]).await?;
                let held = node.held().await?;
                cluster.sim.answer_delayed(delay).await?;
                Ok(held)
            },
            connect(node, "late"),
        )?;
        ensure!(collected.is_empty(), "not collected: {collected:?}");
        check(node, &late, &result).await?;
        until_held(node, &[("late", &late.ip)]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_55_gc_leaves_an_add_that_makes_its_link() -> Result<()> {
    ExecCluster::with(spec("a55l", &[("WARM_IP_TARGET", "1")]), async |cluster| {
        let meanwhile = async |node: &mut ExecNode, _: &Pod| gc(node, NETWORK, &[]).await;
        let (_, ip) = held_up(cluster, meanwhile).await?;
        until_held(&cluster.nodes[0], &[("p", &ip?)]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// All addresses of the instance are in use, so a new pod waits for an address that rests.
#[tokio::test(flavor = "multi_thread")]
async fn assert_58_address_rests_after_gc() -> Result<()> {
    const REST: Duration = Duration::from_secs(10);
    let settings = [("WARM_IP_TARGET", "1"), ("MAX_ENI", "1"), ("IP_COOLDOWN_PERIOD", "10")];
    ExecCluster::with(Spec::new("a58", "t3.small", 1, &settings), async |cluster| {
        let node = &cluster.nodes[0];
        let (a, _) = connect(node, "a").await?;
        let (b, _) = connect(node, "b").await?;
        let (dead, _) = connect(node, "dead").await?;
        // A GC spares an attachment until the daemon has noticed that its ADD has ended.
        let collected_at = eventually("end of the dead pod", PATIENCE, async || {
            let before = Instant::now();
            gc(node, NETWORK, &[&a, &b]).await?;
            let counts = node.view().await?.counts.context("no counts")?;
            ensure!(counts.assigned == 2, "{counts:?}");
            Ok(before)
        })
        .await?;
        let (next, _) = connect(node, "next").await?;
        let took = collected_at.elapsed();
        ensure!(next.ip == dead.ip && took >= REST, "{} after {took:?}", next.ip);
        cluster.books_agree(&[]).await
    })
    .await
}
