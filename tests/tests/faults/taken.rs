//! Other programs take away what the daemon and the plugin have put into the kernel, or put there what cuts pods
//! off. systemd-networkd, NetworkManager, net-utils and people at a shell do so.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::{Node, Spec};
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually, in_netns, output};

/// Less than the minute after which the daemon looks at the kernel anyway.
const SOON: Duration = Duration::from_secs(45);

async fn ip(node: &ExecNode, arguments: &str) -> Result<String> {
    output(in_netns(&node.netns, "ip").args(arguments.split(' '))).await
}

/// Waits until the node reaches each pod and CHECK finds each whole.
async fn healed(node: &ExecNode, pods: &[Pod], what: &str) -> Result<()> {
    let host = format!("/run/netns/{}", node.netns);
    eventually(what, SOON, async || {
        for pod in pods {
            node.runtime.check(pod).await?;
            Node::ping(&host, &pod.ip).await?;
            Node::ping(&pod.netns, "10.0.0.1").await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_survive_what_other_programs_take() -> Result<()> {
    // Pods on the primary and on a secondary ENI.
    let spec = Spec::new("ftaken", "t3.small", 1, &[("WARM_IP_TARGET", "2")]);
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        let pods = node.runtime.run_all("pod", 5).await?;
        healed(node, &pods, "pods before any damage").await?;
        // The kernel's own rules of the main and the default table go too.
        ip(node, "rule flush").await?;
        healed(node, &pods, "pods after `ip rule flush`").await?;
        // A repair may come while the flush is under way, and the daemon counts it afterwards.
        eventually("count of restored pods", PATIENCE, async || {
            let restored = node.scrape().await?.remove("tidepool_pod_networks_restored_total");
            let n: usize = restored.as_deref().unwrap_or("0").parse()?;
            ensure!(n >= pods.len(), "{n} pods were counted");
            Ok(())
        })
        .await?;
        let last = pods.last().map(|pod| pod.ip.clone()).unwrap_or_default();
        for damage in [
            format!("route del {last}"),
            format!("rule del to {last} priority 512"),
            format!("address add {last}/20 dev ens5"),
        ] {
            ip(node, &damage).await?;
            healed(node, &pods, &format!("pods after `ip {damage}`")).await?;
        }
        // Also what was taken while no daemon ran.
        node.kill_ipamd().await?;
        ip(node, &format!("route del {last}")).await?;
        node.start_ipamd().await?;
        healed(node, &pods, "pods after a restart").await?;
        node.runtime.remove_all(&pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn address_on_another_link_of_the_host_is_named() -> Result<()> {
    let spec = Spec::new("fonhost", "t3.small", 1, &[("WARM_IP_TARGET", "2")]);
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let pod = node.runtime.run("web").await?;
        ip(node, "link add other type bridge").await?;
        ip(node, &format!("address add {}/32 dev other", pod.ip)).await?;
        eventually("a line in the status", SOON, async || {
            let status = node.status().await?;
            let line = format!("{} is on the host's link other", pod.ip);
            ensure!(status.contains(&line), "{status}");
            Ok(())
        })
        .await?;
        ensure!(node.runtime.check(&pod).await.is_err(), "CHECK says 0");
        ip(node, "link del other").await?;
        eventually("an end of the line", PATIENCE, async || {
            let status = node.status().await?;
            ensure!(!status.contains("host's link"), "{status}");
            Ok(())
        })
        .await?;
        node.runtime.check(&pod).await?;
        node.runtime.remove(&pod).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
