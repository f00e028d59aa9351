//! The kernel refuses what the daemon writes for the whole node. The daemon says so wherever somebody may look.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Refusal};
use tests::obstacles::own_nat_table;
use tests::process::{PATIENCE, eventually, in_netns, output};

/// What each place must say.
const WHY: &str = "write nftables table ip tidepool";

async fn gauge(node: &ExecNode, name: &str) -> Result<Option<String>> {
    Ok(node.scrape().await?.remove(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn nat_that_the_kernel_refuses_is_named_everywhere() -> Result<()> {
    let spec = Spec::new("frefused", "t3.small", 1, &[("WARM_IP_TARGET", "2")]);
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        let pod = node.runtime.run("before").await?;
        node.stop_ipamd().await?;
        output(in_netns(&node.netns, "nft").args(["delete", "table", "ip", "tidepool"])).await?;
        let mut owner = own_nat_table(node).await?;
        node.start_ipamd_unready().await?;

        let refusal = node.runtime.refusal("meanwhile").await?;
        ensure!(refusal.code == 112 && refusal.to_string().contains(WHY), "{refusal}");
        let asked = node.runtime.call("STATUS", None, json!({"cniVersion": "1.1.0"})).await;
        let status: Refusal = asked.err().context("STATUS says 0")?.downcast()?;
        ensure!(status.code == 51 && status.to_string().contains(WHY), "{status}");
        let shown = node.status().await?;
        ensure!(shown.contains(WHY) && shown.contains("Operation not permitted"), "{shown}");
        for (metric, is_zero) in [
            ("tidepool_ready", true),
            (r#"tidepool_enis{state="linking"}"#, false),
            (r#"tidepool_disagreements{kind="unlinked_eni"}"#, false),
        ] {
            let found = gauge(node, metric).await?;
            ensure!((found.as_deref() == Some("0")) == is_zero, "{metric} is {found:?}");
        }

        drop(owner.stdin.take());
        owner.wait().await?;
        eventually("readiness", PATIENCE, async || {
            let ready = gauge(node, "tidepool_ready").await?;
            ensure!(ready.as_deref() == Some("1"), "{}", node.status().await?);
            Ok(())
        })
        .await?;
        let next = node.runtime.run("after").await?;
        ensure!(!node.status().await?.contains(WHY), "the status still names it");
        node.runtime.remove_all(&[pod, next]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
