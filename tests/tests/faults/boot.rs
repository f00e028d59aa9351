//! Starts while EC2 and the metadata service, from which the credentials come too, do not answer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::ExecCluster;
use tests::process::{PATIENCE, eventually};

use crate::away::{cut_off_from, reconnect};
use crate::{all_reachable, run_patiently};

/// Far above what it takes, which is printed: under a second.
const BOUND: Duration = Duration::from_secs(5);
/// Until the pool grows again. A daemon that finds no credentials at all, as where the metadata service
/// refuses connections, asks EC2 again after a minute.
const GROWS_AFTER: Duration = Duration::from_secs(100);
/// EC2 and the metadata service.
const EVERYTHING: &str = "ip daddr 169.254.169.254";
/// In the state directory of each node.
const NODE_FILE: &str = "tidepool-node.json";

/// The daemon dies, and another starts while packets to EC2 and to the metadata service meet
/// `verdict`.
#[expect(clippy::print_stdout, reason = "how long it takes is worth knowing")]
async fn starts_cut_off(name: &str, verdict: &str) -> Result<()> {
    let settings = [("WARM_IP_TARGET", "4"), ("IP_COOLDOWN_PERIOD", "1")];
    let spec = Spec::new(name, "m5.large", 1, &settings);
    ExecCluster::with(spec, async |cluster| {
        let mut pods = cluster.nodes[0].runtime.run_all("p", 3).await?;
        cluster.books_agree(&[]).await.context("before")?;
        cluster.nodes[0].kill_ipamd().await?;
        cut_off_from(&cluster.nodes[0], EVERYTHING, verdict).await?;

        let start = Instant::now();
        let node = &mut cluster.nodes[0];
        node.start_ipamd_unready().await?;
        let answers = start.elapsed();
        pods.push(node.runtime.run("fresh").await?);
        let added = start.elapsed();
        node.runtime.remove(&pods.remove(0)).await?;
        let deleted = start.elapsed();
        println!("{name}: it answers after {answers:.0?}, ADD {added:.0?}, DEL {deleted:.0?}");
        ensure!(deleted < BOUND, "ADD took {added:?} from the start, ADD and DEL {deleted:?}");
        all_reachable(node, &pods).await?;

        reconnect(node).await?;
        let node = &cluster.nodes[0];
        for name in ["a", "b", "c", "d", "e"] {
            pods.push(run_patiently(node, name, GROWS_AFTER).await?);
        }
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_in_a_black_hole_serves_fresh_pods() -> Result<()> {
    starts_cut_off("fbhole", "drop").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_refused_everywhere_serves_fresh_pods() -> Result<()> {
    starts_cut_off("fbrst", "reject with tcp reset").await
}

/// What the metadata service says of the ENIs is old. Nothing is decided by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_by_frozen_metadata_releases_nothing() -> Result<()> {
    let spec = Spec::new("fbfrz", "m5.large", 1, &[("WARM_IP_TARGET", "1")]);
    ExecCluster::with(spec, async |cluster| {
        let network = cluster.sim.network().await?;
        let instance = network["instances"][0]["id"].as_str().context("an instance without id")?;
        cluster.sim.disturb(json!({"freeze_imds": {"instance": instance}})).await?;
        let pods = cluster.nodes[0].runtime.run_all("p", 12).await?;
        cluster.nodes[0].kill_ipamd().await?;
        cluster.nodes[0].start_ipamd().await?;
        all_reachable(&cluster.nodes[0], &pods).await?;
        cluster.books_agree(&[]).await?;
        ensure!(cluster.nodes[0].view().await?.pods.len() == pods.len());
        Ok(())
    })
    .await
}

/// Both nodes run on one kernel, hence in one boot: so one of them can take itself for the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_on_another_instance_than_it_was_told_ends() -> Result<()> {
    let spec = Spec::new("fbself", "m5.large", 2, &[]);
    ExecCluster::with(spec, async |cluster| {
        let state = |index: usize| cluster.nodes[index].state_directory().join(NODE_FILE);
        let (mine, others) = (state(0), state(1));
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        std::fs::copy(others, mine).context("copy what is kept of the other node")?;
        cut_off_from(node, EVERYTHING, "drop").await?;
        node.start_ipamd_unready().await?;
        reconnect(node).await?;
        eventually("end of the daemon", PATIENCE, async || {
            ensure!(node.view().await.is_err(), "it still answers");
            Ok(())
        })
        .await?;
        let log = std::fs::read_to_string(node.log()).context("read the log")?;
        ensure!(log.contains("by the metadata service's word"), "the log does not say why");
        node.kill_ipamd().await.ok();
        node.start_ipamd().await.context("the next start goes by that")?;
        node.runtime.run("p").await.map(|_| ())
    })
    .await
}
