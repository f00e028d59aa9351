//! Settings that change while the daemon runs: SIGHUP makes it read the file of settings again.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually, output};
use tokio::process::Command;

use crate::{all_reachable, lean};

/// Writes the file of settings and sends SIGHUP.
async fn reload(node: &ExecNode, text: &str) -> Result<()> {
    std::fs::write(file(node), text).context("write the settings")?;
    let ipamd = node.ipamd_pid()?.to_string();
    output(Command::new("kill").args(["-HUP", &ipamd])).await.map(|_| ())
}

fn file(node: &ExecNode) -> PathBuf {
    node.state_directory().join("env")
}

/// Waits until the pool is at rest with `n_free` free addresses.
async fn until_free(node: &ExecNode, n_free: u64) -> Result<()> {
    eventually("wanted number of free addresses", PATIENCE, async || {
        let view = node.view().await?;
        let free = view.counts.context("no counts")?.free;
        let in_flight = &view.in_flight;
        ensure!(free == n_free && in_flight.is_empty(), "{free} free, not {n_free}; {in_flight:?}");
        Ok(())
    })
    .await
}

/// Waits until the log has a line with all of `texts`.
async fn until_logged(node: &ExecNode, texts: &[&str]) -> Result<()> {
    eventually("line in the log", PATIENCE, async || {
        let log = std::fs::read_to_string(node.log()).context("read the log")?;
        let is_it = |line: &str| texts.iter().all(|text| line.contains(text));
        ensure!(log.lines().any(is_it), "no line of the log has all of {texts:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_target_changed_at_sighup_grows_the_pool() -> Result<()> {
    ExecCluster::with(lean("flive"), async |cluster| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        std::fs::write(file(node), "WARM_IP_TARGET=2\n").context("write the settings")?;
        let path = file(node).display().to_string();
        node.configure(&[("TIDEPOOL_ENV_FILE", &path)]);
        node.start_ipamd().await?;
        let node = &cluster.nodes[0];
        until_free(node, 2).await.context("at the start")?;
        let ipamd = node.ipamd_pid()?;

        reload(node, "WARM_IP_TARGET=6\n").await?;
        until_free(node, 6).await.context("after SIGHUP")?;
        until_logged(node, &["\"WARM_IP_TARGET\"", "\"before\":\"2\"", "\"now\":\"6\""]).await?;
        let pods = node.runtime.run_all("p", 2).await?;
        until_free(node, 6).await.context("with pods")?;
        all_reachable(node, &pods).await?;
        ensure!(node.ipamd_pid()? == ipamd, "the daemon has been restarted");
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_file_at_sighup_keeps_the_policy() -> Result<()> {
    ExecCluster::with(lean("flbad"), async |cluster| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        std::fs::write(file(node), "WARM_IP_TARGET=3\n").context("write the settings")?;
        let path = file(node).display().to_string();
        node.configure(&[("TIDEPOOL_ENV_FILE", &path)]);
        node.start_ipamd().await?;
        let node = &cluster.nodes[0];
        until_free(node, 3).await.context("at the start")?;

        reload(node, "WARM_IP_TARGET=7\nMAX_ENI=none\n").await?;
        until_logged(node, &["settings refused", "MAX_ENI"]).await?;
        node.runtime.run("p").await?;
        until_free(node, 3).await.context("under the earlier policy")?;

        reload(node, "WARM_IP_TARGET=5\n").await?;
        until_free(node, 5).await.context("with a good file again")?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn log_level_changed_at_sighup_holds_at_once() -> Result<()> {
    ExecCluster::with(lean("flevel"), async |cluster| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        std::fs::write(file(node), "AWS_VPC_K8S_CNI_LOGLEVEL=error\n").context("write")?;
        let path = file(node).display().to_string();
        node.configure(&[("TIDEPOOL_ENV_FILE", &path), ("TIDEPOOL_LOG_FORMAT", "text")]);
        std::fs::remove_file(node.log())?;
        node.start_ipamd().await?;
        let node = &cluster.nodes[0];
        let pods = node.runtime.run_all("p", 3).await?;
        let log = std::fs::read_to_string(node.log())?;
        ensure!(!log.contains("INFO"), "{log}");

        reload(node, "AWS_VPC_K8S_CNI_LOGLEVEL=info\n").await?;
        until_logged(node, &["INFO", "setting has changed", "AWS_VPC_K8S_CNI_LOGLEVEL"]).await?;
        // The pool grows, by a call that is logged as text.
        let more = node.runtime.run_all("q", 3).await?;
        until_logged(node, &["INFO", "calling EC2"]).await?;
        let log = std::fs::read_to_string(node.log())?;
        ensure!(log.lines().all(|line| !line.starts_with('{')), "{log}");
        all_reachable(node, &[pods, more].concat()).await
    })
    .await
}
