//! How the daemon learns the limits of its instance, and how long a start waits for EC2's answer.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually};

use crate::away::{cut_off, reconnect};
use crate::{all_reachable, lean, n_calls};

const ASK: &str = "DescribeInstanceTypes";
const BY_EC2: &str = "EC2";
const BEFORE: &str = "EC2, at an earlier start";
const TABLE: &str = "built-in table";
const TABLE_UNTIL_EC2: &str = "built-in table until EC2 answers";

fn file(node: &ExecNode) -> PathBuf {
    node.socket().with_file_name("tidepool-limits.json")
}

/// Checks that the daemon has the limits of an m5.large from the source `from`.
async fn has_limits(node: &ExecNode, from: &str) -> Result<()> {
    let limits = node.view().await?.limits.context("no limits")?;
    let known = (limits.enis, limits.addresses_per_eni, limits.prefixes, limits.from.as_str());
    ensure!(known == (3, 10, true, from), "{known:?} and not {from:?}");
    Ok(())
}

/// Starts and stops the daemon. EC2 has been asked `n_asked` times in all by then.
async fn starts(cluster: &mut ExecCluster, from: &str, n_asked: u64) -> Result<()> {
    let node = &mut cluster.nodes[0];
    node.start_ipamd().await?;
    has_limits(node, from).await?;
    let asked = n_calls(cluster, ASK).await?;
    ensure!(asked == n_asked, "asked {asked} times and not {n_asked}");
    cluster.nodes[0].stop_ipamd().await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_asked_again_only_if_the_answer_is_lost() -> Result<()> {
    ExecCluster::with(lean("flonce"), async |cluster| {
        has_limits(&cluster.nodes[0], BY_EC2).await?;
        ensure!(n_calls(cluster, ASK).await? == 1, "not asked once at the first start");
        let shown = cluster.nodes[0].status().await?;
        let line = "limits: 3 ENIs, 10 addresses on each, prefixes (EC2)";
        ensure!(shown.lines().any(|found| found == line), "status shows no limits: {shown}");
        cluster.nodes[0].stop_ipamd().await?;
        starts(cluster, BEFORE, 1).await?;

        let file = file(&cluster.nodes[0]);
        let kept = std::fs::read_to_string(&file)?;
        let damage = |text: &str| {
            std::fs::write(&file, text)?;
            // A start with kept facts waits 200 ms for EC2, and a busy machine may need longer.
            std::fs::remove_file(file.with_file_name("tidepool-node.json"))
        };
        damage(&kept.replace(":10,", ":50,"))?;
        starts(cluster, BY_EC2, 2).await.context("with a damaged file")?;
        ensure!(std::fs::read_to_string(&file)? == kept, "the file was not mended");

        damage(&kept[..kept.len() / 2])?;
        starts(cluster, BY_EC2, 3).await.context("with half a file")?;
        starts(cluster, BEFORE, 3).await.context("with a mended file")?;
        cluster.nodes[0].start_ipamd().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_answer_of_ec2_leaves_the_built_in_table() -> Result<()> {
    ExecCluster::with(lean("fltabl"), async |cluster| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        std::fs::remove_file(file(node))?;
        cluster.sim.fail(ASK, 1, "UnauthorizedOperation").await?;
        starts(cluster, TABLE, 2).await.context("denied")?;
        let late = json!({"action": ASK, "when": {"next": 1}, "effect": {"delay": {"ms": 8000}}});
        cluster.sim.fault(late).await?;

        let node = &mut cluster.nodes[0];
        node.start_ipamd().await?;
        // The start has not waited for the answer: otherwise the source would be EC2.
        has_limits(node, TABLE_UNTIL_EC2).await?;
        let pods = node.runtime.run_all("p", 3).await?;
        all_reachable(node, &pods).await?;
        let file = file(node);
        eventually("limits in the file", PATIENCE, async || {
            ensure!(file.exists(), "the late answer is not kept");
            Ok(())
        })
        .await?;
        node.stop_ipamd().await?;
        starts(cluster, BEFORE, 3).await.context("after a late answer")?;

        std::fs::remove_file(file)?;
        let node = &mut cluster.nodes[0];
        cut_off(node, "drop").await?;
        node.start_ipamd_unready().await?;
        // The start has not waited for the call's timeout either: otherwise the source would be the plain table.
        has_limits(node, TABLE_UNTIL_EC2).await?;
        reconnect(node).await
    })
    .await
}
