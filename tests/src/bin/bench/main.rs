//! `make bench`: what the whole path costs, measured and printed, never asserted.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod caller;
mod floor;
mod latency;
mod repair;
mod spread;
mod throughput;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::cluster::{Cluster, Node, NodeOf, Runtime, Spec};
use tests::process::{eventually, program};

const SHRINK_PATIENCE: Duration = Duration::from_secs(60);
const QUICK: [(&str, &str); 3] = [
    ("IP_COOLDOWN_PERIOD", "2"),
    ("TIDEPOOL_SHRINK_DELAY", "500ms"),
    ("TIDEPOOL_MIN_ENI_AGE", "2s"),
];

#[tokio::main]
async fn main() -> Result<()> {
    sizes()?;
    if std::env::var_os("BENCH_REPAIRS").is_some() {
        let size = latency::Size::from_environment()?;
        return latency::repairs(&mut spread::Report::default(), size).await;
    }
    for (mode, prefix) in [("secondary addresses", "false"), ("prefixes", "true")] {
        let mut settings = QUICK.to_vec();
        settings.push(("ENABLE_PREFIX_DELEGATION", prefix));
        let spec = Spec::new("bench", "m5.4xlarge", 1, &settings);
        Cluster::with(spec, async |cluster| calls_for_fifty_pods(mode, cluster).await).await?;
        // A short rest, or the addresses of one measurement would be missing in the next.
        let settings = [("ENABLE_PREFIX_DELEGATION", prefix), ("IP_COOLDOWN_PERIOD", "1")];
        let spec = Spec::new("bench", "m5.4xlarge", 1, &settings);
        Cluster::with(spec, async |cluster| {
            println!("memory of ipamd, {mode}: {} MiB idle", memory(&cluster.nodes[0])?);
            memory_at_110_pods(mode, &cluster.nodes[0]).await
        })
        .await?;
    }
    let size = latency::Size::from_environment()?;
    latency::measure(size).await?;
    throughput::measure(size.transfer).await
}

fn sizes() -> Result<()> {
    let mib = |path: &Path| -> Result<f64> {
        let bytes = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
        Ok(f64::from(u32::try_from(bytes)?) / f64::from(1 << 20))
    };
    for name in ["ipamd", "vpc-sim"] {
        println!("size of {name} (this profile): {:.1} MiB", mib(&program(name)?)?);
    }
    if let Some(plugin) = std::env::var_os("TIDEPOOL_CNI") {
        println!("size of aws-cni as it ships: {:.2} MiB", mib(Path::new(&plugin))?);
    }
    Ok(())
}

async fn calls_for_fifty_pods(mode: &str, cluster: &Cluster) -> Result<()> {
    let node = &cluster.nodes[0];
    let before = cluster.sim.calls().await?;
    let total = async || anyhow::Ok(node.view().await?.counts.unwrap_or_default().total);
    let held = total().await?;
    let pods = node.run_pods("p", 50).await?;
    node.remove_pods(&pods).await?;
    eventually("shrunken pool", SHRINK_PATIENCE, async || {
        let holds = total().await?;
        ensure!(holds <= held, "{holds} addresses, not {held}");
        Ok(())
    })
    .await?;
    println!("EC2 calls for 0 → 50 → 0 pods, {mode}:");
    for (action, count) in cluster.sim.calls().await? {
        let count = count - before.get(&action).copied().unwrap_or_default();
        if count > 0 {
            println!("  {count:>4}  {action}");
        }
    }
    Ok(())
}

async fn memory_at_110_pods(mode: &str, node: &Node) -> Result<()> {
    let start = Instant::now();
    let pods = node.run_pods("p", 110).await?;
    println!("110 sandboxes through containerd, {mode}: {:.1} s", start.elapsed().as_secs_f64());
    println!("memory of ipamd, {mode}: {} MiB at 110 pods", memory(node)?);
    node.remove_pods(&pods).await
}

/// Resident memory of the daemon, in MiB.
fn memory<R: Runtime>(node: &NodeOf<R>) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.ipamd_pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("read VmRSS")?;
    Ok(kib / 1024)
}
