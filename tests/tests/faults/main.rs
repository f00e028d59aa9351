//! Faults around a node: EC2 throttles, loses answers, or is slow, full or away; processes crash; disks are full;
//! somebody changes ENIs. Each test starts real processes, and at its end record, kernel and EC2 agree.

mod api_server;
mod api_tls;
mod away;
mod boot;
mod busy;
mod crash;
mod crossing;
mod desk;
mod disk;
mod doctor;
mod dual;
mod egress;
mod forgotten;
mod hands;
mod hint;
mod install;
mod ipv6;
mod kill;
mod late;
mod launched;
mod leaks;
mod limits;
mod live_settings;
mod metrics;
mod migration;
mod node_object;
mod outside;
mod place;
mod policies;
mod provisioning;
mod questions;
mod record;
mod refused;
mod retired;
mod reuse;
mod short;
mod succession;
mod taken;
mod traces;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::{self, ExecCluster, ExecNode, Pod, Refusal};
use tests::process::{PATIENCE, eventually};
use tokio::process::Child;

const CREATE: &str = "CreateNetworkInterface";
const ATTACH: &str = "AttachNetworkInterface";
const ASSIGN: &str = "AssignPrivateIpAddresses";
const MODIFY: &str = "ModifyNetworkInterfaceAttribute";
/// A pool that grows only when pods ask for it.
const LEAN: [(&str, &str); 2] = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "1")];

/// One m5.large, which takes 9 addresses on each of 3 ENIs.
fn lean(name: &str) -> Spec {
    Spec::new(name, "m5.large", 1, &LEAN)
}

/// Every pod reaches the first one, and the node reaches them all.
async fn all_reachable(node: &ExecNode, pods: &[Pod]) -> Result<()> {
    let node_ns = format!("/run/netns/{}", node.netns);
    for pod in pods {
        ExecNode::ping(&node_ns, &pod.ip).await.context("node to pod")?;
        ExecNode::ping(&pod.netns, &pods[0].ip).await.context("pod to pod")?;
    }
    Ok(())
}

/// Waits until `action` has been called `n` times.
async fn called(cluster: &ExecCluster, action: &str, n: u64) -> Result<()> {
    eventually("call of EC2", PATIENCE, async || {
        let calls = cluster.sim.calls().await?.get(action).copied().unwrap_or_default();
        ensure!(calls >= n, "{calls} calls of {action}, not {n}");
        Ok(())
    })
    .await
}

async fn n_calls(cluster: &ExecCluster, action: &str) -> Result<u64> {
    Ok(cluster.sim.calls().await?.get(action).copied().unwrap_or_default())
}

/// Adds a pod again and again, as a kubelet does, at most for `patience`.
async fn run_patiently(node: &ExecNode, name: &str, patience: Duration) -> Result<Pod> {
    eventually("address for the pod", patience, || node.runtime.run(name)).await
}

/// Starts an ADD for each of `count` pods.
async fn start_burst(node: &ExecNode, prefix: &str, count: usize) -> Result<Vec<(Child, Pod)>> {
    let mut burst = vec![];
    for index in 0..count {
        let pod = node.runtime.pod(&format!("{prefix}{index}")).await?;
        burst.push((node.runtime.start_verb("ADD", &pod).await?, pod));
    }
    Ok(burst)
}

/// Waits for the ADDs. An ADD that has failed is repeated, as a kubelet does.
async fn end_burst(node: &ExecNode, burst: Vec<(Child, Pod)>) -> Result<Vec<Pod>> {
    let mut pods = vec![];
    for (add, mut pod) in burst {
        pod.ip = match exec::added(add.wait_with_output().await?) {
            Ok(ip) => ip,
            Err(_) => add_again(node, &pod).await?,
        };
        pods.push(pod);
    }
    Ok(pods)
}

/// DEL and ADD until both succeed.
async fn add_again(node: &ExecNode, pod: &Pod) -> Result<String> {
    eventually("address for the pod", PATIENCE, async || {
        node.runtime.del(pod).await?;
        node.runtime.add(pod).await
    })
    .await
}

fn names_code(refusal: &Refusal, code: &str) -> Result<()> {
    ensure!(refusal.msg.starts_with(&format!("{code}: ")), "not {code}: {refusal}");
    ensure!(refusal.msg.contains("subnet-") && refusal.msg.contains(" in use"), "{refusal}");
    Ok(())
}
