//! Nodes with pods on both families. Each pod keeps an IPv4 and an IPv6 address, and a shortage of one family
//! concerns only pods that need it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::books::addresses;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually};

use crate::{LEAN, names_code, run_patiently};

const ASSIGN_IPV6: &str = "AssignIpv6Addresses";
const PREFERRED: (&str, &str) = ("TIDEPOOL_DUAL_STACK", "preferred");

/// The addresses of each pod of the node, IPv4 first, by container id.
async fn held(node: &ExecNode) -> Result<BTreeMap<String, Vec<String>>> {
    let pods = node.view().await?.pods.into_iter().map(|pod| {
        let ips = addresses(&pod).map(|address| address.address.clone()).collect();
        (pod.attachment.unwrap_or_default().container_id, ips)
    });
    Ok(pods.collect())
}

/// Every pod and the node reach every one of `ips`.
async fn reach(node: &ExecNode, pods: &[Pod], ips: &[String]) -> Result<()> {
    let of_pods = pods.iter().map(|pod| pod.netns.clone());
    for from in of_pods.chain([format!("/run/netns/{}", node.netns)]) {
        for ip in ips {
            ExecNode::ping(&from, ip).await.with_context(|| format!("{from} to {ip}"))?;
        }
    }
    Ok(())
}

/// CHECK against the addresses of both families.
async fn check(node: &ExecNode, pod: &Pod, ips: &[String]) -> Result<()> {
    let length = |ip: &str| if ip.contains(':') { 128 } else { 32 };
    let ips =
        ips.iter().map(|ip| json!({"interface": 0, "address": format!("{ip}/{}", length(ip))}));
    let result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": pod.netns}],
        "ips": ips.collect::<Vec<_>>(),
    });
    node.runtime.call("CHECK", Some(pod), json!({"prevResult": result})).await.map(|_| ())
}

fn both(ips: &[String]) -> Result<()> {
    ensure!(ips.len() == 2 && ips[0].contains('.') && ips[1].contains(':'), "{ips:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_two_nodes_reach_each_other_in_both_families() -> Result<()> {
    // Of the 5 pods on a t3.small, 2 are on a secondary ENI.
    ExecCluster::with(Spec::dual("fdual", "t3.small", 2, &LEAN), async |cluster| {
        let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
        let on_a = a.runtime.run_all("a", 5).await?;
        let on_b = b.runtime.run_all("b", 5).await?;
        let (held_a, held_b) = (held(a).await?, held(b).await?);
        held_a.values().chain(held_b.values()).try_for_each(|ips| both(ips))?;
        for node in [a, b] {
            let view = node.view().await?;
            let enis: Vec<_> = view.pods.iter().filter_map(|pod| pod.address.as_ref()).collect();
            let n_secondary = enis.iter().filter(|address| address.table != 254).count();
            ensure!(n_secondary == 2, "{n_secondary} pods are on a secondary ENI");
            let seconds = view.pods.iter().filter_map(|pod| pod.second_address.as_ref());
            ensure!(seconds.clone().count() == 5 && seconds.clone().all(|it| it.table == 254));
        }
        let all: Vec<String> = held_a.values().chain(held_b.values()).flatten().cloned().collect();
        reach(a, &on_a, &all).await?;
        reach(b, &on_b, &all).await?;
        for pod in &on_a {
            check(a, pod, &held_a[&pod.name]).await?;
            let mut other = held_a[&pod.name].clone();
            other.pop();
            ensure!(check(a, pod, &other).await.is_err(), "CHECK overlooks the IPv6 address");
        }
        cluster.books_agree(&[]).await?;
        let a = &cluster.nodes[0];
        // A GC spares attachments whose ADD has only just ended.
        eventually("GC of all but one", PATIENCE, async || {
            a.runtime.gc(&on_a[..1]).await?;
            ensure!(held(a).await?.len() == 1, "GC has left attachments");
            Ok(())
        })
        .await?;
        a.runtime.remove_all(&on_a).await?;
        cluster.nodes[1].runtime.remove_all(&on_b).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_and_kill_keep_both_addresses() -> Result<()> {
    ExecCluster::with(Spec::dual("fdkeep", "t3.small", 1, &LEAN), async |cluster| {
        let node = &mut cluster.nodes[0];
        let mut pods = node.runtime.run_all("p", 5).await?;
        let before = held(node).await?;
        for round in 0..2 {
            match round {
                0 => node.stop_ipamd().await?,
                _ => node.kill_ipamd().await?,
            }
            let all: Vec<_> = before.values().flatten().cloned().collect();
            reach(node, &pods[..1], &all).await.context("without a daemon")?;
            node.start_ipamd().await?;
            ensure!(held(node).await? == before, "the restart changed {before:?}");
        }
        pods.push(node.runtime.run("next").await?);
        let after = held(node).await?;
        both(&after["next"])?;
        let all: Vec<_> = after.values().flatten().cloned().collect();
        reach(node, &pods, &all).await?;
        for pod in &pods {
            check(node, pod, &after[&pod.name]).await?;
        }
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn exhausted_ipv4_refuses_only_pods_that_need_it() -> Result<()> {
    let spec = Spec { subnet: "10.0.0.0/28", ..Spec::dual("fdshort", "m5.large", 1, &LEAN) };
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        // 11 addresses less 1 of the node; one is kept ready.
        let mut pods = vec![];
        let refusal = loop {
            match node.runtime.run(&format!("p{}", pods.len())).await {
                Ok(pod) => pods.push(pod),
                Err(error) => break error.downcast::<tests::exec::Refusal>()?,
            }
            ensure!(pods.len() <= 10, "more pods than addresses");
        };
        names_code(&refusal, "SUBNET_EXHAUSTED")?;
        ensure!(refusal.msg.contains("no free IPv4 address"), "{refusal}");
        node.stop_ipamd().await?;
        node.configure(&[PREFERRED]);
        node.start_ipamd().await?;
        let late = node.runtime.run("late").await?;
        ensure!(late.ip.contains(':'), "{} is not on IPv6", late.ip);
        let held = held(node).await?;
        ensure!(held["late"] == [late.ip.clone()], "{held:?}");
        both(&held["p0"])?;
        reach(node, &pods[..1], std::slice::from_ref(&late.ip)).await?;
        reach(node, std::slice::from_ref(&late), &held["p0"][1..]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_ipv6_refuses_only_pods_that_need_it() -> Result<()> {
    let settings = [LEAN[0], LEAN[1], ("TIDEPOOL_ADD_WAIT", "1s")];
    let spec = Spec { ipv6: true, ..Spec::new("fddeny", "m5.large", 1, &settings) };
    ExecCluster::with(spec, async |cluster| {
        let denied = json!({"fail": {"code": "UnauthorizedOperation"}});
        let denied = json!({"action": ASSIGN_IPV6, "when": "each", "effect": denied});
        let denied = cluster.sim.fault(denied).await?;
        let node = &mut cluster.nodes[0];
        let before = node.runtime.run("before").await?;
        node.stop_ipamd().await?;
        node.configure(&tests::cluster::DUAL_SETTINGS);
        node.start_ipamd_unready().await?;
        let refusal = node.runtime.refusal("p").await?;
        names_code(&refusal, "ACCESS_DENIED")?;
        ensure!(refusal.msg.contains("no free IPv6 address"), "{refusal}");
        node.stop_ipamd().await?;
        node.configure(&[PREFERRED]);
        node.start_ipamd().await?;
        let alone = node.runtime.run("alone").await?;
        ensure!(held(node).await?["alone"] == [alone.ip.clone()], "{}", alone.ip);
        reach(node, &[alone, before], &[]).await?;
        cluster.sim.mend(denied).await?;
        node.stop_ipamd().await?;
        node.start_ipamd().await?;
        run_patiently(node, "late", PATIENCE).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
