//! Concurrent calls of a runtime: ADD and DEL of one sandbox, two sandboxes of one pod, GC and ADDs, and a thousand
//! short pods.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use failpoint::Order;
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tests::exec::{ExecNode, Pod, added};
use tests::process::{go_on, stopped};
use tokio::process::Child;

use crate::all_reachable;
use crate::kill::{all_is_well, plugin, quick, with_pods};

/// Settings for dozens of pods.
const PREFIXES: [(&str, &str); 2] =
    [("ENABLE_PREFIX_DELEGATION", "true"), ("TIDEPOOL_MAX_PODS", "110")];

/// Starts the verb for `pod` and stops it at `point`.
async fn held_up(node: &ExecNode, verb: &str, pod: &Pod, point: &str) -> Result<Child> {
    let call = node.runtime.start_verb_armed(verb, pod, point, Order::Stop).await?;
    stopped(&call).await.with_context(|| format!("{verb} at {point}"))?;
    Ok(call)
}

async fn ends_well(del: Child, point: &str) -> Result<()> {
    go_on(&del)?;
    let out = del.wait_with_output().await?;
    ensure!(out.status.success(), "the DEL that was held up at {point}: {out:?}");
    Ok(())
}

/// The ADD may succeed or fail. No address is both free and in use.
#[tokio::test(flavor = "multi_thread")]
async fn del_that_meets_its_add_at_any_step_leaves_nothing() -> Result<()> {
    with_pods(quick("xad", &[]), 2, async |cluster, steady| {
        for point in plugin::ADD {
            let node = &cluster.nodes[0];
            let pod = node.runtime.pod("p").await?;
            let add = held_up(node, "ADD", &pod, point).await?;
            node.runtime.del(&pod).await?;
            go_on(&add)?;
            let out = added(add.wait_with_output().await?);
            if *point == "add-connected" {
                // The DEL came before the daemon had heard of the pod, which gets its address now.
                let pod = Pod { ip: out?, ..pod.clone() };
                all_is_well(cluster, &[steady, &[pod]].concat()).await?;
            } else if *point != "add-printing" {
                ensure!(out.is_err(), "the ADD met at {point} has {out:?}");
                all_is_well(cluster, steady).await.with_context(|| format!("met at {point}"))?;
            }
            let node = &cluster.nodes[0];
            node.runtime.remove(&pod).await?;
            all_is_well(cluster, steady).await.with_context(|| format!("after {point}"))?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn add_that_meets_its_del_at_any_step_leaves_nothing() -> Result<()> {
    with_pods(quick("xda", &[]), 2, async |cluster, steady| {
        for point in plugin::DEL {
            let node = &cluster.nodes[0];
            let pod = node.runtime.run("p").await?;
            let del = held_up(node, "DEL", &pod, point).await?;
            let added = node.runtime.add(&pod).await;
            ends_well(del, point).await?;
            if let Ok(ip) = added {
                // The DEL had nothing left to do.
                let pod = Pod { ip, ..pod.clone() };
                let all = [steady, &[pod]].concat();
                all_is_well(cluster, &all).await.with_context(|| format!("met at {point}"))?;
            } else {
                all_is_well(cluster, steady).await.with_context(|| format!("met at {point}"))?;
            }
            cluster.nodes[0].runtime.remove(&pod).await?;
        }
        Ok(())
    })
    .await
}

/// A pod that is deleted by force comes again at once, under its name. The old sandbox's DEL may be at any step
/// then, or come later, or twice.
#[tokio::test(flavor = "multi_thread")]
async fn late_del_leaves_a_new_pod_of_the_same_name_alone() -> Result<()> {
    with_pods(quick("xnm", &[]), 2, async |cluster, steady| {
        let mut web = cluster.nodes[0].runtime.run("web_0").await?;
        for (n, point) in (1..).zip(plugin::DEL) {
            let node = &cluster.nodes[0];
            let del = held_up(node, "DEL", &web, point).await?;
            let next = node.runtime.run(&format!("web_{n}")).await?;
            ends_well(del, point).await?;
            node.runtime.remove(&web).await?;
            web = next;
            let all = [steady, std::slice::from_ref(&web)].concat();
            all_is_well(cluster, &all).await.with_context(|| format!("held up at {point}"))?;
        }
        for n in 10..15 {
            let node = &cluster.nodes[0];
            let next = node.runtime.run(&format!("web_{n}")).await?;
            node.runtime.remove(&web).await?;
            web = next;
            all_reachable(node, std::slice::from_ref(&web)).await?;
        }
        let all = [steady, std::slice::from_ref(&web)].concat();
        all_is_well(cluster, &all).await.context("with late DELs")
    })
    .await
}

/// All fifty have their addresses and not yet their links, and the runtime does not list them.
#[tokio::test(flavor = "multi_thread")]
async fn gc_amid_fifty_adds_takes_only_the_dead() -> Result<()> {
    with_pods(quick("xgc", &PREFIXES), 4, async |cluster, steady| {
        let node = &cluster.nodes[0];
        let dead = node.runtime.run_all("dead", 4).await?;
        let adds = (0..50).map(|n| async move {
            let pod = node.runtime.pod(&format!("p{n}")).await?;
            anyhow::Ok((held_up(node, "ADD", &pod, "add-granted").await?, pod))
        });
        let adds = try_join_all(adds).await?;
        node.runtime.gc(steady).await?;
        let mut pods = steady.to_vec();
        for (add, mut pod) in adds {
            go_on(&add)?;
            pod.ip = added(add.wait_with_output().await?).context("an ADD that a GC crossed")?;
            pods.push(pod);
        }
        node.runtime.remove_all(&dead).await?;
        all_is_well(cluster, &pods).await
    })
    .await
}

/// A new pod comes as soon as another has gone.
#[tokio::test(flavor = "multi_thread")]
async fn thousand_short_pods_fifty_at_a_time_all_get_addresses() -> Result<()> {
    const N_PODS: usize = 1000;
    with_pods(quick("xsh", &PREFIXES), 2, async |cluster, steady| {
        let node = &cluster.nodes[0];
        let lives = stream::iter(0..N_PODS).map(|n| async move {
            let pod = node.runtime.pod(&format!("p{n}")).await?;
            let started = Instant::now();
            node.runtime.add(&pod).await?;
            let took = started.elapsed();
            ExecNode::ping(&pod.netns, &steady[0].ip).await?;
            node.runtime.remove(&pod).await?;
            anyhow::Ok(took)
        });
        let mut took: Vec<_> = lives.buffer_unordered(50).try_collect().await?;
        took.sort_unstable();
        println!("ADD: p50 {:.0?}, p99 {:.0?}", took[N_PODS / 2], took[N_PODS * 99 / 100]);
        all_is_well(cluster, steady).await
    })
    .await
}
