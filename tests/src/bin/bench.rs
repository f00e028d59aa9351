//! `make bench`: what the whole path costs, measured and printed, never asserted.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tests::cluster::{Cluster, Node, Spec};
use tests::process::{PATIENCE, eventually, output, program};
use tokio::process::Command;

const ADDS: usize = 200;
const SHRINK_PATIENCE: Duration = Duration::from_secs(60);
const QUICK: [(&str, &str); 3] = [
    ("IP_COOLDOWN_PERIOD", "2"),
    ("TIDEPOOL_SHRINK_DELAY", "500ms"),
    ("TIDEPOOL_MIN_ENI_AGE", "2s"),
];

#[tokio::main]
async fn main() -> Result<()> {
    sizes()?;
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
            add_latency(mode, &cluster.nodes[0]).await?;
            memory_at_110_pods(mode, &cluster.nodes[0]).await
        })
        .await?;
    }
    Ok(())
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

/// Starts the plugin as a runtime would, one pod at a time while the pool is warm.
async fn add_latency(mode: &str, node: &Node) -> Result<()> {
    let mut times = vec![];
    for index in 0..ADDS {
        eventually("free address", PATIENCE * 2, async || {
            let free = node.view().await?.counts.unwrap_or_default().free;
            ensure!(free > 0, "no free address");
            Ok(())
        })
        .await?;
        let pod = format!("bench-{}-{index}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &pod])).await?;
        times.push(cni(node, "ADD", &pod)?);
        cni(node, "DEL", &pod)?;
        output(Command::new("ip").args(["netns", "del", &pod])).await?;
    }
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "ADD with a warm pool, exec to exit, {mode}, {ADDS} pods: p50 {:?}, p99 {:?}",
        at(50),
        at(99)
    );
    Ok(())
}

/// Runs one verb of the plugin in the node's namespace; gives the time from exec to exit.
fn cni(node: &Node, verb: &str, pod: &str) -> Result<Duration> {
    let list: Value = serde_json::from_str(&std::fs::read_to_string(node.conflist())?)?;
    let mut config = list["plugins"][0].clone();
    config["cniVersion"] = "1.0.0".into();
    config["name"] = list["name"].clone();
    let mut command = std::process::Command::new(node.plugin());
    command
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", pod)
        .env("CNI_NETNS", format!("/run/netns/{pod}"))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    // A thread of its own: entering the node's namespace must not touch the runtime's threads.
    let netns = std::fs::File::open(format!("/run/netns/{}", node.netns))?;
    let run = move || -> Result<Duration> {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        let start = Instant::now();
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("the plugin's stdin")?;
        stdin.write_all(config.to_string().as_bytes())?;
        drop(stdin);
        let out = child.wait_with_output()?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        Ok(start.elapsed())
    };
    let done = std::thread::spawn(run).join();
    done.map_err(|_| anyhow!("the measuring thread panicked"))?
        .with_context(|| format!("{verb} of {pod}"))
}

async fn memory_at_110_pods(mode: &str, node: &Node) -> Result<()> {
    let start = Instant::now();
    let pods = node.run_pods("p", 110).await?;
    println!("110 sandboxes through containerd, {mode}: {:.1} s", start.elapsed().as_secs_f64());
    println!("memory of ipamd, {mode}: {} MiB at 110 pods", memory(node)?);
    node.remove_pods(&pods).await
}

/// Resident memory of the daemon, in MiB.
fn memory(node: &Node) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.ipamd_pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("read VmRSS")?;
    Ok(kib / 1024)
}
