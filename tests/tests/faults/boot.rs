//! Starts while EC2, the metadata service and STS, or some of them, do not answer. The daemon does not use the API
//! server.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, Process, eventually, in_netns};

use crate::away::{cut_off_from, reconnect};
use crate::{all_reachable, run_patiently};

/// Until the pool grows again. A call that has failed several times is retried within about a minute.
const GROWS_AFTER: Duration = Duration::from_secs(100);
/// Packets to EC2, to the metadata service, to both, and to STS.
const EC2: &str = "ip daddr 169.254.169.254 tcp dport 8773";
const METADATA: &str = "ip daddr 169.254.169.254 tcp dport 80";
const BOTH: &str = "ip daddr 169.254.169.254";
const STS: &str = "tcp dport 4566";
const EVERYTHING: &str = "tcp dport { 80, 4566, 8773 }";
/// The lines of `ipamd status` for each of them, at the latest after a call has timed out.
const EC2_AWAY: &str = "EC2 does not answer";
const METADATA_AWAY: &str = "METADATA_AWAY: the metadata service does not answer";
const NO_CREDENTIALS: &str = "no credentials yet";
/// In the state directory of each node.
const NODE_FILE: &str = "tidepool-node.json";

/// moto's server on the node itself, as STS: an implementation by other authors.
async fn start_sts(node: &mut ExecNode) -> Result<Process> {
    let program = std::env::var_os("TIDEPOOL_MOTO_SERVER").unwrap_or_else(|| "moto_server".into());
    let log = node.state_directory().join("sts.log");
    let mut command = in_netns(&node.netns, program);
    let mut moto = Process::start("moto", command.args(["-H", "127.0.0.1", "-p", "4566"]), &log)?;
    moto.wait_until("it runs", async || {
        let said = std::fs::read_to_string(&log).context("read its log")?;
        ensure!(said.contains("Running on "), "not yet");
        Ok(())
    })
    .await?;
    let token = node.state_directory().join("token");
    std::fs::write(&token, "header.claims.signature").context("write a token")?;
    node.configure(&[
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/aws-node"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string()),
        ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:4566"),
    ]);
    Ok(moto)
}

/// Waits until `ipamd status` shows each of the `texts`.
async fn until_shown(node: &ExecNode, texts: &[&str]) -> Result<()> {
    eventually("line about each service that is away", PATIENCE, async || {
        let status = node.status().await?;
        let unsaid = texts.iter().find(|text| !status.contains(**text));
        ensure!(unsaid.is_none(), "{unsaid:?} is not shown:\n{status}");
        Ok(())
    })
    .await
}

/// Checks in the log after `n_logged` bytes that the daemon has not waited for the timeout of a call of EC2.
fn serves_before_a_call_fails(node: &ExecNode, n_logged: u64) -> Result<()> {
    let log = std::fs::read(node.log()).context("read the log")?;
    let log = String::from_utf8_lossy(&log[usize::try_from(n_logged)?..]).into_owned();
    let serves = log.find("ipamd is serving").context("no line about its start")?;
    let fails = log.find("EC2 call failed").context("no call has failed")?;
    ensure!(serves < fails, "it serves only after a call has failed: {log}");
    Ok(())
}

/// The daemon dies, and another starts while nftables applies `verdict` to `packets`.
#[expect(clippy::print_stdout, reason = "how long it takes is worth knowing")]
async fn starts_cut_off(name: &str, packets: &str, verdict: &str, said: &[&str]) -> Result<()> {
    let settings = [("WARM_IP_TARGET", "4"), ("IP_COOLDOWN_PERIOD", "1")];
    let spec = Spec::new(name, "m5.large", 1, &settings);
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        let sts = if packets.contains("4566") {
            let sts = start_sts(node).await?;
            node.stop_ipamd().await?;
            node.start_ipamd().await.context("with the role of a service account")?;
            Some(sts)
        } else {
            None
        };
        let mut pods = cluster.nodes[0].runtime.run_all("p", 3).await?;
        cluster.books_agree(&[]).await.context("before")?;
        cluster.nodes[0].kill_ipamd().await?;
        cut_off_from(&cluster.nodes[0], packets, verdict).await?;

        let start = Instant::now();
        let node = &mut cluster.nodes[0];
        let n_logged = std::fs::metadata(node.log()).context("read the log's length")?.len();
        node.start_ipamd_unready().await?;
        let answers = start.elapsed();
        pods.push(node.runtime.run("fresh").await?);
        let added = start.elapsed();
        node.runtime.remove(&pods.remove(0)).await?;
        let deleted = start.elapsed();
        // On an idle machine all of it takes less than a second.
        println!("{name}: it answers after {answers:.0?}, ADD {added:.0?}, DEL {deleted:.0?}");
        all_reachable(node, &pods).await?;
        until_shown(node, said).await?;
        if verdict == "drop" {
            serves_before_a_call_fails(node, n_logged)?;
        }

        reconnect(node).await?;
        let node = &cluster.nodes[0];
        for name in ["a", "b", "c", "d", "e"] {
            pods.push(run_patiently(node, name, GROWS_AFTER).await?);
        }
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await?;
        drop(sts);
        eventually("end of the lines about services that were away", GROWS_AFTER, async || {
            let status = cluster.nodes[0].status().await?;
            let still = said.iter().find(|text| status.contains(**text));
            ensure!(still.is_none(), "{still:?} is still shown:\n{status}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn start_with_all_services_dropped_serves_new_pods() -> Result<()> {
    starts_cut_off("fbhole", EVERYTHING, "drop", &[EC2_AWAY, METADATA_AWAY, NO_CREDENTIALS]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn start_with_all_services_refused_serves_new_pods() -> Result<()> {
    let said = [EC2_AWAY, METADATA_AWAY, NO_CREDENTIALS];
    starts_cut_off("fbrst", BOTH, "reject with tcp reset", &said).await
}

#[tokio::test(flavor = "multi_thread")]
async fn start_with_ec2_dropped_serves_new_pods() -> Result<()> {
    starts_cut_off("fbec2", EC2, "drop", &[EC2_AWAY, "(DescribeNetworkInterfaces: "]).await
}

/// The credentials come from the metadata service too.
#[tokio::test(flavor = "multi_thread")]
async fn start_with_metadata_dropped_serves_new_pods() -> Result<()> {
    starts_cut_off("fbimds", METADATA, "drop", &[METADATA_AWAY, NO_CREDENTIALS]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn start_with_sts_dropped_serves_new_pods() -> Result<()> {
    starts_cut_off("fbsts", STS, "drop", &[EC2_AWAY, NO_CREDENTIALS]).await
}

/// The metadata service shows old ENIs. The daemon decides nothing by them.
#[tokio::test(flavor = "multi_thread")]
async fn start_with_frozen_metadata_releases_nothing() -> Result<()> {
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

/// Both nodes run on one kernel and in one boot, so a node accepts the kept facts of the other.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_with_another_instances_facts_ends() -> Result<()> {
    let spec = Spec::new("fbself", "m5.large", 2, &[]);
    ExecCluster::with(spec, async |cluster| {
        let state = |index: usize| cluster.nodes[index].state_directory().join(NODE_FILE);
        let (mine, others) = (state(0), state(1));
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        std::fs::copy(others, mine).context("copy what is kept of the other node")?;
        cut_off_from(node, BOTH, "drop").await?;
        node.start_ipamd_unready().await?;
        reconnect(node).await?;
        eventually("end of the daemon", PATIENCE, async || {
            ensure!(node.view().await.is_err(), "it still answers");
            Ok(())
        })
        .await?;
        let log = std::fs::read_to_string(node.log()).context("read the log")?;
        ensure!(log.contains("but the metadata service names"), "the log does not say why");
        node.kill_ipamd().await.ok();
        node.start_ipamd().await.context("the next start uses the service's answer")?;
        node.runtime.run("p").await.map(|_| ())
    })
    .await
}
