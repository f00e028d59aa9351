//! A DEL comes late, or while no daemon runs.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use tests::books::kernel;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually};

use crate::{call, check, connect, host, single, until_held};

/// Connects pods until one gets `address`. Addresses that never served come before it, and it serves only after the
/// kernel has been read.
async fn connect_until(node: &ExecNode, name: &str, address: &str) -> Result<(Pod, Value)> {
    eventually("address that serves again", PATIENCE, async || {
        let (pod, result) = connect(node, name).await?;
        if pod.ip != address {
            node.runtime.remove(&pod).await?;
            bail!("{name} has {}, not {address}", pod.ip);
        }
        Ok((pod, result))
    })
    .await
}

/// The DEL comes again when another pod has its address: with a result that names the address, without one, and
/// through a file on disk.
#[tokio::test(flavor = "multi_thread")]
async fn assert_32_late_del_leaves_another_pods_address() -> Result<()> {
    ExecCluster::with(single("a32"), async |cluster| {
        let node = &mut cluster.nodes[0];
        let (first, old) = connect(node, "first").await?;
        node.runtime.del(&first).await?;
        let (second, result) = connect_until(node, "second", &first.ip).await?;

        let before = kernel(&host(node)).await?;
        let with_result = json!({"prevResult": old});
        for conf in [json!({}), with_result.clone()] {
            call(node, "DEL", Some(&first), conf).await?;
        }
        node.stop_ipamd().await?;
        call(node, "DEL", Some(&first), with_result).await?;
        ensure!(!node.pending_dels()?.is_empty(), "the DEL without the daemon is not on disk");
        node.start_ipamd_unready().await?;
        eventually("end of the note", PATIENCE, async || {
            ensure!(node.pending_dels()?.is_empty(), "still there: {:?}", node.pending_dels()?);
            Ok(())
        })
        .await?;
        check(node, &second, &result).await?;
        until_held(node, &[("second", &second.ip)]).await?;
        ensure!(kernel(&host(node)).await? == before, "the kernel was changed");
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_33_del_without_the_daemon_is_applied_once() -> Result<()> {
    ExecCluster::with(single("a33"), async |cluster| {
        let node = &mut cluster.nodes[0];
        let (first, result) = connect(node, "first").await?;
        node.kill_ipamd().await?;
        for _ in 0..2 {
            call(node, "DEL", Some(&first), json!({"prevResult": result})).await?;
            ensure!(node.pending_dels()?.len() == 1, "{:?}", node.pending_dels()?);
        }
        node.start_ipamd().await?;
        until_held(node, &[]).await?;
        ensure!(
            node.pending_dels()?.is_empty(),
            "applied, yet on disk: {:?}",
            node.pending_dels()?
        );
        let (second, result) = connect(node, "second").await?;
        ensure!(first.ip == second.ip, "{} was not used again: {}", first.ip, second.ip);
        node.kill_ipamd().await?;
        node.start_ipamd_unready().await?;
        check(node, &second, &result).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
