//! A real Prometheus scrapes real daemons on the simulator: each alert is fired by a fault, and each panel of the
//! dashboards gets data.

mod calls;
mod charts;
mod dashboards;
mod files;
mod network;
mod room;

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{self, ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually};
use tests::prometheus::Prometheus;
use tokio::process::Child;

const CREATE: &str = "CreateNetworkInterface";
const ASSIGN: &str = "AssignPrivateIpAddresses";
const MODIFY: &str = "ModifyNetworkInterfaceAttribute";
/// A pool that grows only when pods ask for it.
const LEAN: [(&str, &str); 2] = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "1")];

/// Runs `body` on a cluster with a Prometheus that sees no alert at first.
async fn watched(
    spec: Spec,
    body: impl AsyncFnOnce(&mut ExecCluster, &Prometheus) -> Result<()>,
) -> Result<()> {
    ExecCluster::with(spec, async |cluster| {
        let nodes: Vec<IpAddr> = cluster.nodes.iter().map(|node| node.address).collect();
        let prometheus = Prometheus::start(&cluster.nodes[0].netns, &nodes).await?;
        prometheus.is_quiet().await.context("before the first fault")?;
        body(cluster, &prometheus).await?;
        prometheus.stop().await
    })
    .await
}

/// Makes each call of `action` fail with `code` from now on.
async fn fail_each(cluster: &ExecCluster, action: &str, code: &str) -> Result<u64> {
    let effect = json!({"fail": {"code": code}});
    cluster.sim.fault(json!({"action": action, "when": "each", "effect": effect})).await
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

/// Waits for the ADDs, and repeats those that have failed, as a kubelet does. Then it removes the pods.
async fn end_burst(node: &ExecNode, burst: Vec<(Child, Pod)>) -> Result<()> {
    for (add, pod) in burst {
        if exec::added(add.wait_with_output().await?).is_err() {
            eventually("address for the pod", PATIENCE, async || {
                node.runtime.del(&pod).await?;
                node.runtime.add(&pod).await
            })
            .await?;
        }
        node.runtime.remove(&pod).await?;
    }
    Ok(())
}
