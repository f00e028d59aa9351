//! Daemons that are killed or stopped, callers that are killed, and bursts.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually};

use crate::{ASSIGN, LEAN, all_reachable, end_burst, lean, start_burst};

/// The daemon is killed again and again at random moments while pods come.
#[tokio::test(flavor = "multi_thread")]
async fn crash_after_crash_loses_nothing() -> Result<()> {
    let mut spec = lean("fcrash");
    let slow = json!({"min_ms": 100, "max_ms": 400});
    spec.switches = json!({"latency": {"custom": {
        "describe": slow, "create": slow, "assign": slow, "attach_call": slow, "attach": slow,
        "other_call": slow,
    }}});
    ExecCluster::with(spec, async |cluster| {
        let mut pods = vec![];
        for round in 0..6 {
            let before: u64 = cluster.sim.calls().await?.values().sum();
            let burst = start_burst(&cluster.nodes[0], &format!("p{round}-"), 3).await?;
            let n_calls = before + 1 + round % 3;
            eventually("calls of EC2, or an end to the burst", PATIENCE, async || {
                let calls: u64 = cluster.sim.calls().await?.values().sum();
                let served = cluster.nodes[0].view().await?.pods.len();
                ensure!(calls >= n_calls || served == pods.len() + 3, "{calls}, {served} pods");
                Ok(())
            })
            .await?;
            cluster.nodes[0].kill_ipamd().await?;
            cluster.nodes[0].start_ipamd().await?;
            pods.extend(end_burst(&cluster.nodes[0], burst).await?);
        }
        all_reachable(&cluster.nodes[0], &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_pods_at_once_come_and_go_twice() -> Result<()> {
    let settings = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("TIDEPOOL_MAX_PODS", "250"),
        ("IP_COOLDOWN_PERIOD", "1"),
    ];
    let spec = Spec::new("f200", "m5.large", 1, &settings);
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        for round in ["a", "b"] {
            let pods = node.runtime.run_all(round, 200).await?;
            cluster.books_agree(&[]).await.context("with all pods")?;
            ExecNode::ping(&pods[0].netns, &pods[199].ip).await?;
            node.runtime.remove_all(&pods).await?;
            cluster.books_agree(&[]).await.context("without any")?;
            let counts = node.view().await?.counts.context("no counts")?;
            ensure!(counts.assigned == 0 && counts.waiting == 0, "{counts:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_killed_while_it_waits_leaves_nothing() -> Result<()> {
    ExecCluster::with(lean("fkill"), async |cluster| {
        let node = &cluster.nodes[0];
        let mut pods = vec![node.runtime.run("warm").await?];
        eventually("a free address", PATIENCE, async || {
            let n = node.view().await?.counts.context("no counts")?.free;
            ensure!(n == 1, "{n} are free");
            Ok(())
        })
        .await?;
        // The pool is used up, and more addresses come late.
        let delay = cluster.sim.delay(ASSIGN).await?;
        pods.push(node.runtime.run("warmer").await?);
        let killed = node.runtime.pod("killed").await?;
        let mut add = node.runtime.start_verb("ADD", &killed).await?;
        let waiting = async |n_waiting: u64| {
            eventually("waiting ADD, or an end to it", PATIENCE, async || {
                let n = node.view().await?.counts.context("no counts")?.waiting;
                ensure!(n == n_waiting, "{n} are waiting, not {n_waiting}");
                Ok(())
            })
            .await
        };
        waiting(1).await?;
        add.kill().await?;
        waiting(0).await?;
        cluster.sim.answer_delayed(delay).await?;
        pods.push(node.runtime.run("next").await?);
        node.runtime.remove(&killed).await?;
        let view = node.view().await?;
        ensure!(view.pods.len() == pods.len(), "{:?}", view.pods);
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_within_a_burst_waits_for_no_add_and_loses_nothing() -> Result<()> {
    // A call of EC2 waits for its answer longer than the test lasts.
    let settings = [LEAN[0], LEAN[1], ("TIDEPOOL_ADD_WAIT", "3m"), ("HTTP_TIMEOUT", "600")];
    ExecCluster::with(Spec::new("fstop", "m5.large", 1, &settings), async |cluster| {
        let delay = cluster.sim.delay(ASSIGN).await?;
        let burst = start_burst(&cluster.nodes[0], "p", 20).await?;
        eventually("pods that wait", PATIENCE, async || {
            let n = cluster.nodes[0].view().await?.counts.context("no counts")?.waiting;
            ensure!(n > 0, "nobody waits");
            Ok(())
        })
        .await?;
        // EC2 answers only after the stop. The ADDs would wait for 75 s, and `stop_ipamd` fails before.
        cluster.nodes[0].stop_ipamd().await?;
        cluster.sim.answer_delayed(delay).await?;
        cluster.nodes[0].start_ipamd().await?;
        let node = &cluster.nodes[0];
        let pods = end_burst(node, burst).await?;
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
