//! An ADD waits, survives crashes, and fails if its address is taken from it.

use anyhow::{Context, Result, bail, ensure};
use failpoint::Order;
use serde_json::{Value, json};
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

/// ADD of a pod by `ipvlan` with the keys of `more`.
async fn add_by_ipvlan(node: &ExecNode, pod: &Pod, more: Value) -> Result<Value> {
    let mut conf = json!({"dataPath": "ipvlan"});
    for (key, value) in more.as_object().into_iter().flatten() {
        conf[key] = value.clone();
    }
    call(node, "ADD", Some(pod), conf).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ipvlan_refuses_what_needs_the_node() -> Result<()> {
    ExecCluster::with(spec("a58", &[("WARM_IP_TARGET", "1")]), async |cluster| {
        let node = &cluster.nodes[0];
        let pod = node.runtime.pod("p").await?;
        let mapping = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
        let ports = json!({"runtimeConfig": {"portMappings": [mapping]}});
        for (more, what) in [(ports, "host ports"), (json!({"ingressRate": 8000}), "bandwidth")] {
            let refusal = refused(add_by_ipvlan(node, &pod, more).await, 158)?;
            ensure!(refusal.details.contains(what), "{refusal}");
        }
        refused(add_by_ipvlan(node, &pod, json!({"ipvlanMode": "l3"})).await, 7)?;
        until_held(node, &[]).await
    })
    .await
}

/// Whether this kernel has `ipvlan` or not: `make test-guest` is for one that has it.
#[tokio::test(flavor = "multi_thread")]
async fn add_by_ipvlan_connects_or_leaves_nothing() -> Result<()> {
    ExecCluster::with(spec("a58k", &[("WARM_IP_TARGET", "1")]), async |cluster| {
        let node = &cluster.nodes[0];
        let pod = node.runtime.pod("p").await?;
        match add_by_ipvlan(node, &pod, json!({})).await {
            Ok(result) => {
                let conf = json!({"dataPath": "ipvlan", "prevResult": result});
                call(node, "CHECK", Some(&pod), conf).await?;
            }
            outcome @ Err(_) => {
                let refusal = refused(outcome, 158)?;
                ensure!(refusal.details.contains("this kernel has no ipvlan"), "{refusal}");
                until_held(node, &[]).await?;
            }
        }
        // A pair takes its place.
        node.runtime.del(&pod).await?;
        let result = call(node, "ADD", Some(&pod), json!({})).await?;
        check(node, &pod, &result).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ipvlan_refuses_egress_of_the_other_family() -> Result<()> {
    let spec = Spec::ipv6("a58e", "m5.large", 1, &[("ENABLE_V4_EGRESS", "true")]);
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let pod = node.runtime.pod("p").await?;
        let refusal = refused(add_by_ipvlan(node, &pod, json!({})).await, 158)?;
        ensure!(refusal.details.contains("egress by the node-local address"), "{refusal}");
        until_held(node, &[]).await
    })
    .await
}
