//! How soon the daemon puts back what another program removes, on a node with many pods and ranges.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::exec::ExecNode;
use tests::process::{PATIENCE, eventually, in_netns, output};

use crate::spread::Report;

/// Repairs are at least a second apart.
const ROUNDS: usize = 20;

/// Ranges without SNAT, for the setting.
pub(crate) fn ranges() -> String {
    let ranges: Vec<_> = (0..50).map(|index| format!("172.16.{index}.0/24")).collect();
    ranges.join(",")
}

/// Measures the daemon's repairs on a node with `n_pods` pods.
pub(crate) async fn measure(report: &mut Report, node: &ExecNode, n_pods: usize) -> Result<()> {
    let (mut tables, mut rules) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        output(in_netns(&node.netns, "nft").args(["flush", "ruleset"])).await?;
        tables.push(until_back("table of the daemon", || has_table(node)).await?);
        output(in_netns(&node.netns, "ip").args(["rule", "flush"])).await?;
        for rule in [["32766", "main"], ["32767", "default"]] {
            let add = ["rule", "add", "priority", rule[0], "lookup", rule[1]];
            // The daemon may have put it back.
            in_netns(&node.netns, "ip").args(add).output().await?;
        }
        rules.push(until_back("rules of the pods", || has_rules(node, n_pods)).await?);
    }
    report.line("repair: nft flush ruleset, 50 ranges", tables);
    report.line(&format!("repair: ip rule flush, {n_pods} pods"), rules);
    Ok(())
}

async fn until_back<F: Future<Output = Result<()>>>(
    what: &str,
    is_back: impl FnMut() -> F,
) -> Result<Duration> {
    let start = Instant::now();
    eventually(what, PATIENCE, is_back).await?;
    Ok(start.elapsed())
}

async fn has_table(node: &ExecNode) -> Result<()> {
    let list = ["list", "set", "ip", "tidepool", "untranslated"];
    output(in_netns(&node.netns, "nft").args(list)).await.map(drop)
}

async fn has_rules(node: &ExecNode, n_pods: usize) -> Result<()> {
    let rules =
        output(in_netns(&node.netns, "ip").args(["rule", "show", "priority", "512"])).await?;
    ensure!(rules.lines().count() >= n_pods, "rules are missing");
    Ok(())
}
