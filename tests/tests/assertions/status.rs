//! The answers of STATUS, and its cost in calls.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::books::kernel;
use tests::exec::{ExecCluster, ExecNode, Refusal};
use tests::process::{PATIENCE, eventually, output};
use tokio::process::Command;
use tokio::time::timeout;

use crate::{call, connect, host, refused, spec, status, until_calm};

#[tokio::test(flavor = "multi_thread")]
async fn assert_44_and_48_status_is_true_and_costs_no_call() -> Result<()> {
    ExecCluster::with(spec("a44", &[("WARM_IP_TARGET", "3")]), async |cluster| {
        let node = &cluster.nodes[0];
        until_calm(node, 3).await?;
        let before =
            (cluster.sim.calls().await?, node.view().await?.counts, kernel(&host(node)).await?);
        for _ in 0..5 {
            ensure!(status(node).await?.is_null(), "STATUS printed something");
        }
        let after =
            (cluster.sim.calls().await?, node.view().await?.counts, kernel(&host(node)).await?);
        ensure!(before == after, "{before:?} has become {after:?}");
        connect(node, "p").await.map(|_| ())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_45_and_49_status_without_daemon_or_in_old_version() -> Result<()> {
    ExecCluster::with(spec("a45", &[]), async |cluster| {
        let node = &mut cluster.nodes[0];
        for version in ["0.4.0", "1.0.0"] {
            let old = json!({"cniVersion": version});
            refused(call(node, "STATUS", None, old).await, 1)?;
        }
        let pid = node.ipamd_pid()?.to_string();
        output(Command::new("kill").args(["-STOP", &pid])).await?;
        // The daemon answers nothing until STATUS has ended, and the configured timeout is far beyond PATIENCE.
        let slow = json!({"ipamdTimeout": "600s"});
        let answer = timeout(PATIENCE, call(node, "STATUS", None, slow)).await;
        output(Command::new("kill").args(["-CONT", &pid])).await?;
        let answer = answer.context("STATUS has no bound of its own")?;
        refused(answer, 50).context("of a daemon that hangs")?;

        node.stop_ipamd().await?;
        refused(status(node).await, 50).context("of a daemon that is stopped")?;
        node.start_ipamd().await?;
        status(node).await?;
        node.kill_ipamd().await?;
        refused(status(node).await, 50).context("of a daemon that is killed")?;
        node.start_ipamd().await
    })
    .await
}

/// A node loses its only address to another ENI while its daemon is down. STATUS and ADD name the subnet. Then the
/// address comes back, and `served` waits for the effect.
async fn exhausted(name: &str, served: impl AsyncFnOnce(&ExecNode) -> Result<()>) -> Result<()> {
    let mut spec = spec(name, &[("WARM_IP_TARGET", "1"), ("TIDEPOOL_ADD_WAIT", "2s")]);
    spec.subnet = "10.0.0.0/28";
    // AWS takes 5 of the 16 addresses and the node takes .10. One address is left.
    spec.used = (4..14).filter(|last| *last != 10).map(|last| format!("10.0.0.{last}")).collect();
    ExecCluster::with(spec, async |cluster| {
        until_calm(&cluster.nodes[0], 1).await?;
        cluster.nodes[0].stop_ipamd().await?;
        let network = cluster.sim.network().await?;
        let eni = &network["instances"][0]["enis"][0];
        let taken = json!({"eni": eni["id"], "addresses": eni["secondaries"]});
        cluster.sim.disturb(json!({"unassign": taken})).await?;
        let subnet = eni["subnet_id"].as_str().context("no subnet")?;
        let before = cluster.sim.enis().await?;
        cluster.sim.ec2("CreateNetworkInterface", &[("SubnetId", subnet)]).await?;
        let after = cluster.sim.enis().await?;
        let other = after.difference(&before).next().context("no new ENI")?;
        cluster.nodes[0].start_ipamd_unready().await?;

        let node = &cluster.nodes[0];
        eventually("SUBNET_EXHAUSTED", PATIENCE, async || {
            names(&refused(status(node).await, 50)?, subnet)
        })
        .await?;
        let refusal = node.runtime.refusal("early").await?;
        ensure!(refusal.code == 103, "{refusal}");
        names(&refusal, subnet)?;

        cluster.sim.ec2("DeleteNetworkInterface", &[("NetworkInterfaceId", other)]).await?;
        served(node).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

fn names(refusal: &Refusal, subnet: &str) -> Result<()> {
    let named = refusal.msg.starts_with("SUBNET_EXHAUSTED: ") && refusal.msg.contains(subnet);
    ensure!(named, "not the exhaustion of {subnet}: {refusal}");
    Ok(())
}

/// A pod that waits makes the daemon ask EC2 sooner. With it the node is full, and stays ready.
#[tokio::test(flavor = "multi_thread")]
async fn assert_25_and_46_exhausted_subnet_is_named_and_recovers() -> Result<()> {
    exhausted("a46", async |node| {
        eventually("address", PATIENCE, || node.runtime.run("late")).await?;
        status(node).await.map(|_| ())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes: that long a subnet is left alone that no pod waits for"]
async fn assert_46_status_says_yes_when_the_subnet_has_rested() -> Result<()> {
    const REST: Duration = Duration::from_secs(120);
    exhausted("a46r", async |node| {
        eventually("STATUS that says yes", REST + PATIENCE, || status(node)).await?;
        node.runtime.run("late").await.map(|_| ())
    })
    .await
}
