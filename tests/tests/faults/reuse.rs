//! An address serves one pod after another. No connection of the first pod may reach the second.

use anyhow::{Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually, in_netns, output};

/// Makes the node track connections, as kube-proxy does.
async fn track_connections(node: &ExecNode) -> Result<()> {
    let rules = "table inet t { chain seen { type filter hook output priority 0; ct state new counter; }; }";
    output(in_netns(&node.netns, "nft").arg(rules)).await.map(drop)
}

/// The connections of `address` that the node's kernel tracks.
async fn remembered(node: &ExecNode, address: &str) -> Result<Vec<String>> {
    let table = output(in_netns(&node.netns, "cat").arg("/proc/net/nf_conntrack")).await?;
    let of_it = table.lines().filter(|line| line.contains(&format!("={address} ")));
    Ok(of_it.map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn released_address_has_its_connections_forgotten() -> Result<()> {
    // The cooldown outlasts the test, so the connections go before the address serves again.
    let spec = Spec::new("freuse", "m5.large", 1, &[("IP_COOLDOWN_PERIOD", "600")]);
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        track_connections(node).await?;
        let (old, stays) = (node.runtime.run("old").await?, node.runtime.run("stays").await?);
        for pod in [&old, &stays] {
            let say = format!("echo > /dev/udp/{}/53", pod.ip);
            output(in_netns(&node.netns, "bash").args(["-c", &say])).await?;
            ensure!(remembered(node, &pod.ip).await?.len() == 1, "{} is not tracked", pod.ip);
        }
        node.runtime.remove(&old).await?;
        eventually("an end to the old pod's connections", PATIENCE, async || {
            let left = remembered(node, &old.ip).await?;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
        ensure!(!remembered(node, &stays.ip).await?.is_empty(), "the other pod's are gone too");
        cluster.books_agree(&[]).await
    })
    .await
}
