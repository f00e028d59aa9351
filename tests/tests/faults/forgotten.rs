//! A runtime forgets a sandbox without a DEL. Namespace and link stay behind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::books::kernel;
use tests::cluster::{Cluster, Node, Spec};
use tests::containerd::Sandbox;
use tests::exec::Pod;
use tests::pings::Pings;
use tests::process::{eventually, in_netns, output};

/// Two polls of the daemon, and the cleanup.
const TWO_LOOKS: Duration = Duration::from_secs(150);

/// Waits until the daemon has learnt that the runtime has `n` sandboxes.
async fn has_listed(node: &Node, n: usize) -> Result<()> {
    eventually("look at the runtime", TWO_LOOKS, async || {
        let listed = node.scrape().await?.remove("tidepool_runtime_sandboxes");
        ensure!(listed == Some(n.to_string()), "{listed:?} instead of {n}");
        Ok(())
    })
    .await
}

async fn has(node: &Node, pod: &Sandbox) -> Result<bool> {
    Ok(node.held().await?.contains(&(pod.id.clone(), pod.ip.clone())))
}

/// Checks that no pod has the address in the daemon's view, and that the kernel has nothing of its pod.
async fn rests(node: &Node, gone: &Sandbox) -> Result<()> {
    let view = node.view().await?;
    let counts = view.counts.context("no counts")?;
    ensure!(!has(node, gone).await?, "{} still has {}", gone.name, gone.ip);
    ensure!(counts.quarantined == 0, "{counts:?}: {:?}", view.blocked);
    let kernel = kernel(&format!("/run/netns/{}", node.netns)).await?;
    // Another address may begin with the same digits.
    let mut words = kernel.split(|c: char| c.is_whitespace() || c == '/');
    ensure!(words.all(|word| word != gone.ip), "{kernel}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_forgotten_by_the_runtime_is_released() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1")];
    Cluster::with(Spec::new("efrgt", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let steady = node.runtime.run("default", "steady").await?;
        let gone = node.runtime.run("default", "gone").await?;
        let Sandbox { name, netns, ip, .. } = steady.clone();
        let pings = Pings::start(node, &[Pod { name, netns, ip }]).await?;
        has_listed(node, 2).await?;

        node.runtime.forget(&gone).await?;
        has_listed(node, 1).await?;
        ensure!(has(node, &gone).await?, "one look was enough");
        eventually("end of what was forgotten", TWO_LOOKS, || rests(node, &gone)).await?;
        ensure!(has(node, &steady).await?, "{} has lost {}", steady.name, steady.ip);
        pings.none_is_lost().await?;
        let left = gone.netns.trim_start_matches("/var/run/netns/");
        output(in_netns(&node.netns, "ip").args(["netns", "delete", left])).await?;

        let host = format!("/run/netns/{}", node.netns);
        let again = eventually("reuse of the address", TWO_LOOKS, async || {
            let pod = node.runtime.run("default", "again").await?;
            if pod.ip != gone.ip {
                node.remove_pods(std::slice::from_ref(&pod)).await?;
            }
            ensure!(pod.ip == gone.ip, "{} instead of {}", pod.ip, gone.ip);
            Ok(pod)
        })
        .await?;
        Node::ping(&host, &again.ip).await.context("node to the next pod")?;
        node.remove_pods(&[again, steady]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
