//! An ADD waits, survives crashes, and fails if its address is taken from it.

use anyhow::{Context, Result, bail, ensure};
use failpoint::Order;
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod, Refusal, added};
use tests::process::{go_on, stopped};

use crate::{NETWORK, call, check, connect, gc, refused, spec, until_held, until_waiting};

const ATTACH: &str = "AttachNetworkInterface";

#[tokio::test(flavor = "multi_thread")]
async fn assert_25_add_waits_for_an_attach() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), ("HTTP_TIMEOUT", "600")];
    let spec = Spec::new("a25", "t3.small", 1, &settings);
    ExecCluster::with(spec, async |cluster| {
        let delay = cluster.sim.delay(ATTACH).await?;
        let node = &cluster.nodes[0];
        // As many as the primary ENI takes.
        for name in ["a", "b", "c"] {
            connect(node, name).await?;
        }
        let hasty = node.runtime.pod("hasty").await?;
        let short = json!({"ipamdTimeout": "1s"});
        refused(call(node, "ADD", Some(&hasty), short).await, 11)?;
        node.runtime.remove(&hasty).await?;
        let attached = async {
            until_waiting(node, 1).await?;
            cluster.sim.answer_delayed(delay).await
        };
        let ((), (patient, result)) = tokio::try_join!(attached, connect(node, "patient"))?;
        check(node, &patient, &result).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_28_crash_after_an_add_loses_nothing() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "0")];
    ExecCluster::with(spec("a28", &settings), async |cluster| {
        let mut pods = vec![];
        for index in 0..4 {
            pods.push(connect(&cluster.nodes[0], &format!("p{index}")).await?);
            cluster.nodes[0].kill_ipamd().await?;
            cluster.nodes[0].start_ipamd().await?;
            for (pod, result) in &pods {
                let printed = check(&cluster.nodes[0], pod, result).await?;
                ensure!(printed.is_null(), "CHECK printed {printed}");
            }
        }
        cluster.books_agree(&[]).await
    })
    .await
}

/// Stops an ADD that has its address and not yet its link, and runs `meanwhile`. Returns the pod and the outcome of
/// the ADD.
pub(crate) async fn held_up(
    cluster: &mut ExecCluster,
    meanwhile: impl AsyncFnOnce(&mut ExecNode, &Pod) -> Result<()>,
) -> Result<(Pod, Result<String>)> {
    let node = &mut cluster.nodes[0];
    let pod = node.runtime.pod("p").await?;
    let add = node.runtime.start_verb_armed("ADD", &pod, "add-granted", Order::Stop).await?;
    stopped(&add).await?;
    meanwhile(node, &pod).await?;
    go_on(&add)?;
    Ok((pod, added(add.wait_with_output().await?)))
}

/// If a call takes the address of an ADD without a link, the ADD fails, and its repetition succeeds.
async fn taken_from_an_add(
    name: &str,
    take: impl AsyncFnOnce(&mut ExecNode, &Pod) -> Result<()>,
) -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "0")];
    ExecCluster::with(spec(name, &settings), async |cluster| {
        let (mut pod, outcome) = held_up(cluster, take).await?;
        let refusal: Refusal = match outcome {
            Ok(ip) => bail!("the ADD has {ip}, which was taken from it"),
            Err(error) => error.downcast()?,
        };
        ensure!(refusal.code == 11, "{refusal}");
        until_held(&cluster.nodes[0], &[]).await?;
        cluster.books_agree(&[]).await?;
        let node = &cluster.nodes[0];
        node.runtime.del(&pod).await?;
        pod.ip = node.runtime.add(&pod).await?;
        until_held(node, &[("p", &pod.ip)]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// The daemon that comes back does not know that the ADD is still under way.
#[tokio::test(flavor = "multi_thread")]
async fn add_whose_address_a_gc_takes_after_a_restart_fails() -> Result<()> {
    taken_from_an_add("a55r", async |node, _| {
        node.kill_ipamd().await?;
        node.start_ipamd().await?;
        gc(node, NETWORK, &[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn add_whose_address_a_del_takes_fails() -> Result<()> {
    taken_from_an_add("a55d", async |node, pod| node.runtime.del(pod).await).await
}

/// The daemon applies the DEL when it comes back, before the ADD goes on.
#[tokio::test(flavor = "multi_thread")]
async fn add_whose_address_a_remembered_del_takes_fails() -> Result<()> {
    taken_from_an_add("a55n", async |node, pod| {
        node.kill_ipamd().await?;
        node.runtime.del(pod).await?;
        node.start_ipamd().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn add_whose_daemon_dies_before_its_link_leaves_nothing() -> Result<()> {
    ExecCluster::with(spec("a55k", &[("WARM_IP_TARGET", "1")]), async |cluster| {
        let meanwhile = async |node: &mut ExecNode, _: &Pod| node.kill_ipamd().await;
        let (_, outcome) = held_up(cluster, meanwhile).await?;
        let refusal: Refusal = outcome.err().context("the ADD asked nobody")?.downcast()?;
        ensure!(refusal.code == 11, "{refusal}");
        let node = &mut cluster.nodes[0];
        ensure!(
            node.pending_dels()?.len() == 1,
            "no DEL for it is on disk: {:?}",
            node.pending_dels()?
        );
        node.start_ipamd().await?;
        until_held(node, &[]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
