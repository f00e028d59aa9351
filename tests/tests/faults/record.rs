//! A record that is lost or damaged while pods run.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually, in_netns, output};

use crate::all_reachable;

/// No address serves twice within a test. The daemon accepts a pod's link to an address that rests on record only
/// after 150 s.
fn spec(name: &str) -> Spec {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "120")];
    Spec::new(name, "m5.large", 1, &settings)
}

async fn until_quarantined(node: &ExecNode, n: u64) -> Result<()> {
    eventually("quarantine", PATIENCE, async || {
        let view = node.view().await?;
        let quarantined = view.counts.context("no counts")?.quarantined;
        ensure!(quarantined == n, "{quarantined}, not {n}: {:?}", view.blocked);
        Ok(())
    })
    .await
}

/// Checks that no two pods have the same address.
fn all_differ(pods: &[Pod]) -> Result<()> {
    let addresses: BTreeSet<_> = pods.iter().map(|pod| &pod.ip).collect();
    ensure!(addresses.len() == pods.len(), "an address is given twice: {pods:?}");
    Ok(())
}

async fn all_pass_check(node: &ExecNode, pods: &[Pod]) -> Result<()> {
    for pod in pods {
        node.runtime.check(pod).await.with_context(|| format!("CHECK of {}", pod.name))?;
    }
    Ok(())
}

/// Ten pods run, the record is damaged, and ten more pods come. Then the old pods go, some after another start.
async fn suffers(name: &str, damage: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
    ExecCluster::with(spec(name), async |cluster| {
        let node = &mut cluster.nodes[0];
        let log = node.state_directory().join("tidepool.jsonl");
        let gone = node.runtime.run_all("gone", 3).await?;
        node.runtime.remove_all(&gone).await?;
        let mut old = node.runtime.run_all("old", 10).await?;
        node.stop_ipamd().await?;
        damage(&log)?;
        node.start_ipamd().await?;
        cluster.books_agree(&[]).await.context("after the damage")?;
        let node = &mut cluster.nodes[0];
        until_quarantined(node, 0).await?;
        all_pass_check(node, &old).await?;

        let new = node.runtime.run_all("new", 10).await?;
        let both: Vec<_> = old.iter().chain(&new).cloned().collect();
        all_differ(&both)?;
        all_reachable(node, &both).await?;

        let first = old.split_off(5);
        node.runtime.remove_all(&first).await?;
        node.kill_ipamd().await?;
        node.start_ipamd().await?;
        all_pass_check(node, &old).await?;
        node.runtime.remove_all(&old).await?;
        all_reachable(node, &new).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_record_keeps_pods_addresses() -> Result<()> {
    suffers("frgon", |log| std::fs::remove_file(log)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn record_full_of_zeros_keeps_pods_addresses() -> Result<()> {
    suffers("frnul", |log| {
        let length = usize::try_from(std::fs::metadata(log)?.len()).unwrap_or(usize::MAX);
        std::fs::write(log, vec![0; length])
    })
    .await
}

/// Only the header is left, and half a line.
#[tokio::test(flavor = "multi_thread")]
async fn record_of_half_a_line_keeps_pods_addresses() -> Result<()> {
    suffers("frcut", |log| {
        let text = std::fs::read_to_string(log)?;
        let header = text.find('\n').unwrap_or(0);
        std::fs::write(log, &text[..(header + 20).min(text.len())])
    })
    .await
}

/// The record ends among the ADDs.
#[tokio::test(flavor = "multi_thread")]
async fn record_without_its_end_keeps_pods_addresses() -> Result<()> {
    suffers("frend", |log| {
        let text = std::fs::read_to_string(log)?;
        let middle = text.find("\"old").unwrap_or(text.len());
        let end = text[middle..].match_indices("\"old").nth(4).map_or(text.len(), |(at, _)| at);
        std::fs::write(log, &text[..middle + end])
    })
    .await
}

/// A line of the log: `text` with its checksum.
fn line(text: &str) -> String {
    format!("[\"{:08x}\",{text}]\n", crc32fast::hash(text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn record_of_a_later_version_keeps_pods_addresses() -> Result<()> {
    suffers("frfut", |log| {
        let text = std::fs::read_to_string(log)?;
        let (_, rest) = text.split_once('\n').unwrap_or_default();
        let header = r#"{"format":"tidepool","version":9,"instance":"i-0123456789abcdef0"}"#;
        std::fs::write(log, line(header) + rest)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn record_of_another_boot_keeps_pods_addresses() -> Result<()> {
    suffers("frboot", |log| {
        let boot = line(r#"{"booted":{"boot":"a start of the machine before"}}"#);
        let text = std::fs::read_to_string(log)?;
        let lines = text.lines().map(|line| match line.contains("{\"booted\"") {
            true => boot.clone(),
            false => format!("{line}\n"),
        });
        std::fs::write(log, lines.collect::<String>())
    })
    .await
}

/// As the pods of amazon-vpc-cni-k8s stand there without its checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_unmarked_links_go_to_nobody() -> Result<()> {
    ExecCluster::with(spec("frstr"), async |cluster| {
        let node = &mut cluster.nodes[0];
        let log = node.state_directory().join("tidepool.jsonl");
        let old = node.runtime.run_all("old", 10).await?;
        for pod in &old {
            let route =
                output(in_netns(&node.netns, "ip").args(["route", "show", &pod.ip])).await?;
            let (_, link) = route.split_once("dev ").context("a route without device")?;
            let link = link.split(' ').next().unwrap_or_default();
            let words = ["link", "set", "dev", link, "alias", ""];
            output(in_netns(&node.netns, "ip").args(words)).await?;
        }
        node.stop_ipamd().await?;
        std::fs::remove_file(log)?;
        node.start_ipamd().await?;
        until_quarantined(node, 10).await?;

        let new = node.runtime.run_all("new", 10).await?;
        let both: Vec<_> = old.iter().chain(&new).cloned().collect();
        all_differ(&both)?;
        all_reachable(node, &both).await?;

        node.runtime.remove_all(&old).await?;
        until_quarantined(node, 0).await?;
        all_reachable(node, &new).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
