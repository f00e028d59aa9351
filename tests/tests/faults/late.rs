//! ADDs that the daemon accepts only after their callers have been killed and the DELs have come.

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually, in_netns, output};
use tokio::process::Command;

use crate::start_burst;

const PODS: usize = 12;

/// Waits until `n` connections wait for the daemon to accept them.
async fn queued(node: &ExecNode, n: usize) -> Result<()> {
    let socket = node.socket().display().to_string();
    eventually("connections in the queue", PATIENCE, async || {
        let listeners = output(in_netns(&node.netns, "ss").args(["-xlH"])).await?;
        let listener = listeners.lines().find(|line| line.contains(&socket));
        let mut words = listener.context("nobody listens")?.split_whitespace();
        let queued: usize = words.nth(2).context("a listener without a queue")?.parse()?;
        ensure!(queued == n, "{queued} in the queue, not {n}");
        Ok(())
    })
    .await
}

/// The daemon sees that a caller has hung up before it handles the request.
#[tokio::test(flavor = "multi_thread")]
async fn add_of_a_killed_caller_in_the_queue_gets_nothing() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "14"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("flate", "m5.large", 1, &settings), async |cluster| {
        let node = &cluster.nodes[0];
        let ipamd = node.ipamd_pid()?.to_string();
        let signal = async |name: &str| output(Command::new("kill").args([name, &ipamd])).await;
        signal("-STOP").await?;
        let burst = start_burst(node, "late", PODS).await?;
        queued(node, PODS).await?;
        let mut pods = vec![];
        for (mut add, pod) in burst {
            add.kill().await?;
            pods.push(pod);
        }
        let mut dels = vec![];
        for pod in &pods {
            dels.push(node.runtime.start_verb("DEL", pod).await?);
        }
        queued(node, 2 * PODS).await?;
        signal("-CONT").await?;
        for del in dels {
            ensure!(del.wait_with_output().await?.status.success(), "a DEL has failed");
        }
        // Its ADD is behind all of them in the queue.
        let next = node.runtime.run("next").await?;
        let view = node.view().await?;
        ensure!(view.pods.len() == 1, "granted to the dead: {:?}", view.pods);
        node.runtime.remove(&next).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
