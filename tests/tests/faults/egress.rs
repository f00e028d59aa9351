//! Pods reach the family that their VPC addresses are not of, through their node.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tests::books::kernel;
use tests::cluster::{IPV6_SETTINGS, Spec};
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually, in_netns, output};
use tests::sim::{OUTSIDE, OUTSIDE_V6};
use tokio::process::Command;

use crate::all_reachable;

/// A node with both families, whose subnet leads to an internet gateway.
fn spec(name: &str, settings: &[(&'static str, &str)]) -> Spec {
    Spec { outside: true, ipv6: true, ..Spec::new(name, "m5.large", 1, settings) }
}

/// A node whose pods are on IPv6, with the settings in a file.
fn ipv6_spec(name: &str) -> Spec {
    spec(name, &IPV6_SETTINGS)
}

/// The first answer of the outside to the pod: what ADD returns is usable.
async fn seen_at_once(pod: &Pod, outside: IpAddr, expect: IpAddr) -> Result<()> {
    let seen = ExecNode::seen_outside(&pod.netns, outside).await?;
    ensure!(seen == expect, "{} is seen as {seen}, not {expect}", pod.ip);
    Ok(())
}

/// The node-local address of each pod, in the order of the pods.
async fn node_locals(node: &ExecNode, pods: &[Pod]) -> Result<Vec<String>> {
    let view = node.view().await?;
    let of = |pod: &Pod| {
        let is_its = |of: &str| of == pod.name;
        let mut found = view.pods.iter();
        let found =
            found.find(|it| it.attachment.as_ref().is_some_and(|at| is_its(&at.container_id)));
        found.map(|found| found.node_local.clone()).with_context(|| format!("no {}", pod.name))
    };
    pods.iter().map(of).collect()
}

/// Waits until the outside answers from where the node is.
async fn outside_answers(node: &ExecNode, outside: IpAddr) -> Result<IpAddr> {
    let host = format!("/run/netns/{}", node.netns);
    eventually("answer to the node", PATIENCE, || ExecNode::seen_outside(&host, outside)).await
}

/// No pod opens a connection to another one by its node-local address.
async fn closed_to_each_other(pods: &[Pod], locals: &[String]) -> Result<()> {
    for (pod, other) in [(&pods[0], &locals[1]), (&pods[1], &locals[0])] {
        let pinged = ExecNode::ping(&pod.netns, other).await;
        ensure!(pinged.is_err(), "{} reaches {other}", pod.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_pods_reach_ipv4_outside_as_the_node() -> Result<()> {
    let spec = ipv6_spec("fegr4");
    let public = IpAddr::V4(spec.public_address(0).context("a node without a public address")?);
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        ensure!(outside_answers(node, OUTSIDE).await? == public, "the node has another address");
        let pods = node.runtime.run_all("p", 3).await?;
        for pod in &pods {
            ensure!(pod.ip.contains(':'), "the result shows {}", pod.ip);
            seen_at_once(pod, OUTSIDE, public).await?;
            seen_at_once(pod, OUTSIDE_V6, pod.ip.parse()?).await?;
        }
        let locals = node_locals(node, &pods).await?;
        ensure!(locals.iter().all(|ip| ip.starts_with("169.254.17")), "{locals:?}");
        closed_to_each_other(&pods, &locals).await?;
        all_reachable(node, &pods).await?;
        // Another program takes table and routes away.
        output(in_netns(&node.netns, "nft").args(["flush", "ruleset"])).await?;
        let link = output(in_netns(&node.netns, "ip").args(["route", "get", &locals[0]])).await?;
        let link = link.split_whitespace().find(|word| word.starts_with("eni"));
        let link = link.context("no route to a pod")?.to_owned();
        let del = ["route", "del", &locals[0], "dev", &link];
        output(in_netns(&node.netns, "ip").args(del)).await?;
        eventually("way of the pod", PATIENCE, || seen_at_once(&pods[0], OUTSIDE, public)).await?;
        whole_until_the_end(cluster, &pods).await
    })
    .await
}

/// CHECK finds nothing at any pod, and their DELs leave nothing.
async fn whole_until_the_end(cluster: &ExecCluster, pods: &[Pod]) -> Result<()> {
    for pod in pods {
        cluster.nodes[0].runtime.check(pod).await?;
    }
    cluster.books_agree(&[]).await?;
    cluster.nodes[0].runtime.remove_all(pods).await?;
    cluster.books_agree(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv4_pods_reach_ipv6_outside_as_the_node() -> Result<()> {
    let settings = [
        ("WARM_IP_TARGET", "2"),
        ("ENABLE_V6_EGRESS", "true"),
        ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "none"),
    ];
    let spec = spec("fegr6", &settings);
    let public = IpAddr::V4(spec.public_address(0).context("a node without a public address")?);
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let own = IpAddr::V6(node.ipv6_address.context("a node without IPv6")?);
        ensure!(outside_answers(node, OUTSIDE_V6).await? == own, "the node has another address");
        // Some are on a secondary ENI.
        let pods = node.runtime.run_all("p", 12).await?;
        for pod in &pods {
            seen_at_once(pod, OUTSIDE_V6, own).await?;
            seen_at_once(pod, OUTSIDE, public).await?;
        }
        let locals = node_locals(node, &pods).await?;
        ensure!(locals.iter().all(|ip| ip.starts_with("fd00::ac:")), "{locals:?}");
        closed_to_each_other(&pods, &locals).await?;
        whole_until_the_end(cluster, &pods).await
    })
    .await
}

fn file(node: &ExecNode) -> PathBuf {
    node.state_directory().join("env")
}

/// Switches the setting, and waits until the log says so.
async fn switch(node: &ExecNode, on: bool) -> Result<()> {
    std::fs::write(file(node), format!("ENABLE_V4_EGRESS={on}\n")).context("write the settings")?;
    let text = std::fs::read_to_string(node.log()).context("read the log")?;
    let before = text.matches("settings read again").count();
    let ipamd = node.ipamd_pid()?.to_string();
    output(Command::new("kill").args(["-HUP", &ipamd])).await?;
    eventually("new settings", PATIENCE, async || {
        let text = std::fs::read_to_string(node.log()).context("read the log")?;
        ensure!(text.matches("settings read again").count() > before, "not read yet");
        Ok(())
    })
    .await
}

/// What `nft` and `ip` print of the node, once it has a table of ours or not.
async fn host(node: &ExecNode, has_table: bool) -> Result<String> {
    eventually("table as wanted", PATIENCE, async || {
        let rules = output(in_netns(&node.netns, "nft").args(["list", "ruleset"])).await?;
        ensure!(rules.contains("table ip tidepool") == has_table, "{rules}");
        Ok(rules + &kernel(&format!("/run/netns/{}", node.netns)).await?)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn egress_switched_while_pods_run_changes_new_pods_alone() -> Result<()> {
    let spec = ipv6_spec("fegrsw");
    let public = IpAddr::V4(spec.public_address(0).context("a node without a public address")?);
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        let path = file(node).display().to_string();
        std::fs::write(&path, "ENABLE_V4_EGRESS=false\n").context("write the settings")?;
        node.configure(&[("TIDEPOOL_ENV_FILE", &path)]);
        node.start_ipamd().await?;
        let off = host(node, false).await?;
        switch(node, true).await?;
        let on = host(node, true).await?;
        let with = node.runtime.run("with").await?;
        seen_at_once(&with, OUTSIDE, public).await?;
        switch(node, false).await?;
        let without = node.runtime.run("without").await?;
        ensure!(
            node_locals(node, std::slice::from_ref(&without)).await? == [""],
            "a new pod got an address"
        );
        ensure!(ExecNode::seen_outside(&without.netns, OUTSIDE).await.is_err(), "it has a way");
        node.kill_ipamd().await?;
        node.start_ipamd().await?;
        // The running pod keeps what it has, also after another start and a flush.
        seen_at_once(&with, OUTSIDE, public).await?;
        output(in_netns(&node.netns, "nft").args(["flush", "ruleset"])).await?;
        eventually("way of the pod", PATIENCE, || seen_at_once(&with, OUTSIDE, public)).await?;
        node.runtime.check(&with).await?;
        node.runtime.remove_all(&[with, without]).await?;
        // The kernel is as after a fresh start with either value.
        ensure!(host(node, false).await? == off, "the host differs from a fresh start without");
        switch(node, true).await?;
        ensure!(host(node, true).await? == on, "the host differs from a fresh start with");
        cluster.books_agree(&[]).await
    })
    .await
}
