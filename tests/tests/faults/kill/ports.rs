//! The plugin dies between the steps of opening and closing a pod's host ports.

use anyhow::{Context, Result, ensure};
use failpoint::Order;
use serde_json::{Value, json};
use tests::exec::{ExecNode, Pod};
use tests::process::{PATIENCE, eventually, in_netns, output};

use super::{all_is_well, quick, with_pods};

/// The fail point of an ADD of a pod with host ports. Those of a DEL are in [`super::plugin::DEL`].
pub(super) const OPENING: &[&str] = &["ports-opened"];
const CLOSING: &str = "ports-unnoted";

/// A pod's own mark in the table.
const OWNER: &str = "\"p/eth0\"";

fn port() -> Value {
    let mapping = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
    json!({"runtimeConfig": {"portMappings": [mapping]}})
}

async fn has_ports(node: &ExecNode) -> Result<bool> {
    let rules = output(in_netns(&node.netns, "nft").args(["list", "ruleset"])).await?;
    Ok(rules.contains(OWNER))
}

async fn killed(node: &ExecNode, verb: &str, pod: &Pod, point: &str) -> Result<()> {
    let plugin = node.runtime.start_armed(verb, Some(pod), port(), point, Order::Kill).await?;
    super::plugin::dies(plugin, point).await?;
    ensure!(has_ports(node).await?, "no port was open at {point}");
    Ok(())
}

async fn until_closed(node: &ExecNode) -> Result<()> {
    eventually("end of the pod's host ports", PATIENCE, async || {
        ensure!(!has_ports(node).await?, "they are open");
        Ok(())
    })
    .await
}

/// Cleanup is by the runtime's DEL, by a GC, and by the daemon alone.
#[tokio::test(flavor = "multi_thread")]
async fn ports_of_killed_plugins_stay_with_nobody() -> Result<()> {
    let settings = [("MAX_ENI", "1"), ("IP_COOLDOWN_PERIOD", "0")];
    with_pods(quick("kpp", &settings), 2, async |cluster, steady| {
        for point in OPENING {
            let node = &cluster.nodes[0];
            let pod = node.runtime.pod("p").await?;
            killed(node, "ADD", &pod, point).await?;
            node.runtime.call("DEL", Some(&pod), port()).await?;
            ensure!(!has_ports(node).await?, "the DEL has left ports");
            node.runtime.remove(&pod).await?;

            let pod = node.runtime.pod("p").await?;
            killed(node, "ADD", &pod, point).await?;
            // The GC takes it as soon as the daemon has noticed that the caller is gone.
            eventually("collection", PATIENCE, async || {
                node.runtime.gc(steady).await?;
                let rules = output(in_netns(&node.netns, "ip").args(["-o", "link"])).await?;
                ensure!(!rules.contains("alias p/eth0"), "the link is there: {rules}");
                Ok(())
            })
            .await?;
            until_closed(node).await.context("after a GC")?;
            node.runtime.remove(&pod).await?;
        }
        let node = &cluster.nodes[0];
        let pod = node.runtime.pod("p").await?;
        node.runtime.call("ADD", Some(&pod), port()).await?;
        killed(node, "DEL", &pod, CLOSING).await?;
        // Without the port mappings, as if the runtime had lost them.
        node.runtime.remove(&pod).await?;
        until_closed(node).await.context("after a DEL that knows of no port")?;
        all_is_well(cluster, steady).await
    })
    .await
}
