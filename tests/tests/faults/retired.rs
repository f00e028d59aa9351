//! Links that DELs leave to the daemon: it removes them, or the next daemon does, and no pod notices.

use anyhow::{Result, ensure};
use tests::books::RETIRED;
use tests::exec::{ExecNode, Pod};
use tests::process::{PATIENCE, eventually, in_netns, output};

use crate::kill::{all_is_well, quick, with_pods};

/// The names of the links that wait.
async fn retired(node: &ExecNode) -> Result<Vec<String>> {
    let words = ["-br", "link", "show", "group", RETIRED];
    let printed = output(in_netns(&node.netns, "ip").args(words)).await?;
    Ok(printed.lines().map(str::to_owned).collect())
}

/// The namespaces go on, so that nothing but the daemon can remove the links.
async fn until_removed(node: &ExecNode, pods: &[Pod]) -> Result<()> {
    eventually("end of the links", PATIENCE, async || {
        let (left, metrics) = (retired(node).await?, node.scrape().await?);
        ensure!(left.is_empty(), "{left:?} are left");
        let waiting = metrics.get("tidepool_retired_links").map(String::as_str);
        ensure!(waiting == Some("0"), "{waiting:?} by the metric");
        Ok(())
    })
    .await?;
    for pod in pods {
        let namespace = pod.netns.trim_start_matches("/run/netns/");
        let links = output(in_netns(namespace, "ip").args(["-br", "link"])).await?;
        ensure!(!links.contains("eth0"), "{} still has {links}", pod.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn retired_links_go_by_this_daemon_or_the_next() -> Result<()> {
    let settings = [("IP_COOLDOWN_PERIOD", "0"), ("WARM_IP_TARGET", "4")];
    with_pods(quick("fret", &settings), 2, async |cluster, steady| {
        let node = &mut cluster.nodes[0];
        let mut pods = node.runtime.run_all("p", 4).await?;
        for pod in &pods {
            node.runtime.del(pod).await?;
        }
        until_removed(node, &pods).await?;

        for pod in &mut pods {
            pod.ip = node.runtime.add(pod).await?;
        }
        for pod in &pods {
            node.runtime.del(pod).await?;
        }
        node.kill_ipamd().await?;
        node.start_ipamd().await?;
        until_removed(node, &pods).await?;

        // At once, in the same sandboxes.
        for pod in &mut pods {
            pod.ip = node.runtime.add(pod).await?;
            node.runtime.del(pod).await?;
            pod.ip = node.runtime.add(pod).await?;
        }
        let all = [steady, &pods].concat();
        all_is_well(cluster, &all).await?;
        let node = &cluster.nodes[0];
        ensure!(retired(node).await?.is_empty(), "an ADD has left what was in its way");
        node.runtime.remove_all(&pods).await?;
        all_is_well(cluster, steady).await
    })
    .await
}
