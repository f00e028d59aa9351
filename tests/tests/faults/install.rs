//! The daemon as the entry of its container: what it puts on the node, and when.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::cluster::{Cluster, Spec};
use tests::exec::ExecCluster;
use tests::obstacles::Tmpfs;
use tests::process::{PATIENCE, eventually};

const DESCRIBE: &str = "DescribeNetworkInterfaces";

async fn appears(path: &Path) -> Result<()> {
    eventually("the installed file", PATIENCE, async || {
        ensure!(path.exists(), "there is no {}", path.display());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn conflist_comes_once_a_pod_could_get_an_address() -> Result<()> {
    Cluster::with(Spec::new("finst", "t3.small", 1, &[]), async |cluster| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        // As on a node that has just booted, where EC2 cannot be reached.
        for entry in std::fs::read_dir(node.state_directory())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("tidepool") {
                std::fs::remove_file(&path)?;
            }
        }
        let fault =
            cluster.sim.fail("DescribeNetworkInterfaces", 1_000_000, "InternalError").await?;
        node.leave_installation_to_ipamd()?;
        eventually("a runtime without a network", PATIENCE, async || {
            ensure!(node.runtime.network_ready().await.is_err(), "its network is ready");
            Ok(())
        })
        .await?;

        node.start_ipamd_unready().await?;
        appears(&node.plugin()).await?;
        let loopback = node.plugin().with_file_name("loopback");
        appears(&loopback).await?;
        // The daemon has had the time to write it.
        let sim = &cluster.sim;
        let described =
            async || anyhow::Ok(sim.calls().await?.get(DESCRIBE).copied().unwrap_or_default());
        let before = described().await?;
        eventually("further attempts to describe the ENIs", PATIENCE, async || {
            let n = described().await?;
            ensure!(n >= before + 2, "{n} describes, {before} before");
            Ok(())
        })
        .await?;
        ensure!(!node.conflist().exists(), "the runtime would start pods that get no address");

        cluster.sim.mend(fault).await?;
        appears(&node.conflist()).await?;
        eventually("network of the runtime", PATIENCE, || node.runtime.network_ready()).await?;
        // With the plugin under its name `loopback` too.
        let pods = node.run_pods("p", 2).await?;
        let shown = node.runtime.exec(&pods[0], &["/bin/ip", "link", "show", "lo"]).await?;
        ensure!(shown.contains("LOOPBACK,UP"), "{shown}");

        let text = std::fs::read_to_string(node.conflist())?;
        node.kill_ipamd().await?;
        node.start_ipamd().await?;
        node.remove_pods(&pods).await?;
        node.stop_ipamd().await?;
        ensure!(std::fs::read_to_string(node.conflist())? == text, "the conflist has changed");
        ensure!(node.plugin().exists(), "the plugin has gone");
        node.start_ipamd().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_directory_is_named_and_tried_again() -> Result<()> {
    let conflists = Tmpfs::mount("finro").await?;
    let path = conflists.0.display().to_string();
    conflists.remount("ro").await?;
    ExecCluster::with(Spec::new("finro", "t3.small", 1, &[]), async |cluster| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        node.leave_installation_to_ipamd()?;
        let settings = [("HOST_CNI_CONFDIR_PATH", path.as_str())];
        node.configure(&settings);
        // It serves all the same.
        node.start_ipamd().await?;
        let says = async |expect: bool| {
            let blocked = node.view().await?.blocked;
            let line = "INSTALL: the conflist cannot be installed: write ";
            let said = blocked.iter().any(|text| text.starts_with(line) && text.contains(&path));
            ensure!(said == expect, "{blocked:?}");
            Ok(())
        };
        eventually("the daemon to name the directory", PATIENCE, async || says(true).await).await?;
        conflists.remount("rw").await?;
        appears(&conflists.0.join("10-aws.conflist")).await?;
        eventually("the end of the fault", PATIENCE, async || says(false).await).await?;
        std::fs::write(conflists.0.join("05-other.conflist"), "{}").context("write another")?;
        node.stop_ipamd().await?;
        node.start_ipamd().await?;
        eventually("the daemon to name the other conflist", PATIENCE, async || {
            let blocked = node.view().await?.blocked;
            let said = |text: &String| text.starts_with("INSTALL: 05-other.conflist comes before");
            ensure!(blocked.iter().any(said), "{blocked:?}");
            Ok(())
        })
        .await
    })
    .await
}
