//! Another program holds the lock of xtables, as `iptables -w` does while it waits or works.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::sim::OUTSIDE;

use crate::shell;

const LOCK: &str = "/run/xtables.lock";

/// Had the daemon or the plugin to wait for the lock, the test would hang: it is held to the end.
#[tokio::test(flavor = "multi_thread")]
async fn start_and_pods_do_not_wait_for_the_xtables_lock() -> Result<()> {
    let spec = Spec { outside: true, ..Spec::new("dlock", "t3.small", 1, &[]) };
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        shell(&node.netns, "nft flush ruleset").await?;
        let options = File::options().create(true).append(true).open(LOCK);
        let lock = options.with_context(|| format!("open {LOCK}"))?;
        flock(&lock, FlockOperation::LockExclusive).context("take the lock")?;
        let others = shell(&node.netns, "timeout 1 iptables-legacy -t nat -S").await;
        ensure!(others.is_err(), "iptables-legacy does not wait for the lock");

        node.start_ipamd().await?;
        let pods = node.runtime.run_all("p", 4).await?;
        for pod in &pods {
            ExecNode::seen_outside(&pod.netns, OUTSIDE).await?;
        }
        node.runtime.remove_all(&pods).await?;
        flock(&lock, FlockOperation::Unlock).context("release the lock")
    })
    .await
}
