//! A runtime that forgets a sandbox without a DEL: its namespace and its link stay behind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::books::kernel;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::forgetful::Forgetful;
use tests::pings::Pings;
use tests::process::eventually;

/// Two looks of the daemon's, and what follows.
const TWO_LOOKS: Duration = Duration::from_secs(150);

/// Ends a pod properly: soon after, the daemon looks.
async fn make_it_look(node: &ExecNode, name: &str) -> Result<()> {
    let pod = node.runtime.run(name).await?;
    node.runtime.remove(&pod).await
}

async fn has(node: &ExecNode, pod: &Pod) -> Result<bool> {
    Ok(node.held().await?.contains(&(pod.name.clone(), pod.ip.clone())))
}

/// The address is nobody's by the daemon, and rests.
async fn rests(node: &ExecNode, gone: &Pod) -> Result<()> {
    let view = node.view().await?;
    let counts = view.counts.context("no counts")?;
    ensure!(!has(node, gone).await?, "{} still has {}", gone.name, gone.ip);
    ensure!(counts.quarantined == 0, "{counts:?}: {:?}", view.blocked);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runtime_forgets_goes_and_what_it_never_had_stays() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("frun", "m5.large", 1, &settings), async |cluster| {
        let node = &cluster.nodes[0];
        let host = format!("/run/netns/{}", node.netns);
        let runtime = Forgetful::start(&node.runtime_socket())?;
        let [steady, by_hand] =
            [node.runtime.run("steady").await?, node.runtime.run("hand").await?];
        let pings = Pings::start(node, &[steady.clone(), by_hand.clone()]).await?;
        // Of an address that has not served nothing is left that is no pod's doing.
        make_it_look(node, "first").await?;
        let before = kernel(&host).await?;
        let gone = node.runtime.run("gone").await?;
        make_it_look(node, "second").await?;
        runtime.has(["steady", "gone"]).await?;

        make_it_look(node, "third").await?;
        runtime.has(["steady"]).await?;
        ensure!(has(node, &gone).await?, "one look was enough");
        eventually("end of what was forgotten", TWO_LOOKS, async || {
            rests(node, &gone).await?;
            let after = kernel(&host).await?;
            ensure!(after == before, "before: {before}\nafter: {after}");
            Ok(())
        })
        .await?;
        for pod in [&steady, &by_hand] {
            ensure!(has(node, pod).await?, "{} has lost {}", pod.name, pod.ip);
        }
        cluster.books_agree(&[]).await?;
        let node = &cluster.nodes[0];
        let again = eventually("reuse of the address", TWO_LOOKS, async || {
            let pod = node.runtime.run("again").await?;
            if pod.ip != gone.ip {
                node.runtime.remove(&pod).await?;
            }
            ensure!(pod.ip == gone.ip, "{} instead of {}", pod.ip, gone.ip);
            Ok(pod)
        })
        .await?;
        ExecNode::ping(&host, &again.ip).await.context("node to the next pod")?;
        pings.none_is_lost().await?;
        for pod in [&gone, &again, &by_hand, &steady] {
            node.runtime.remove(pod).await?;
        }
        cluster.books_agree(&[]).await
    })
    .await
}
