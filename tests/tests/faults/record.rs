//! A record that is lost or damaged while pods run.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually};

use crate::all_reachable;

async fn until_quarantined(node: &ExecNode, n: u64) -> Result<()> {
    eventually("quarantine", PATIENCE, async || {
        let view = node.view().await?;
        let quarantined = view.counts.context("no counts")?.quarantined;
        ensure!(quarantined == n, "{quarantined}, not {n}: {:?}", view.blocked);
        Ok(())
    })
    .await
}

/// Ten pods run, the record suffers, ten more come; then the old ones go.
async fn suffers(
    name: &str,
    n_forgotten: u64,
    damage: impl Fn(&Path) -> std::io::Result<()>,
) -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new(name, "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let log = node.socket().parent().context("no folder")?.join("tidepool.jsonl");
        let old = node.runtime.run_all("old", 10).await?;
        node.stop_ipamd().await?;
        damage(&log)?;
        node.start_ipamd().await?;
        until_quarantined(node, n_forgotten).await?;

        let new = node.runtime.run_all("new", 10).await?;
        let both: Vec<_> = old.iter().chain(&new).cloned().collect();
        let addresses: BTreeSet<_> = both.iter().map(|pod| &pod.ip).collect();
        ensure!(addresses.len() == 20, "an address is given twice: {old:?} {new:?}");
        all_reachable(node, &both).await?;

        node.runtime.remove_all(&old).await?;
        until_quarantined(node, 0).await?;
        all_reachable(node, &new).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_gone_gives_no_address_twice() -> Result<()> {
    suffers("frgon", 10, |log| std::fs::remove_file(log)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_full_of_zeros_gives_no_address_twice() -> Result<()> {
    suffers("frnul", 10, |log| {
        let length = usize::try_from(std::fs::metadata(log)?.len()).unwrap_or(usize::MAX);
        std::fs::write(log, vec![0; length])
    })
    .await
}

/// Only the header is left, and half a line.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_cut_off_gives_no_address_twice() -> Result<()> {
    suffers("frcut", 10, |log| {
        let text = std::fs::read_to_string(log)?;
        let header = text.find('\n').unwrap_or(0);
        std::fs::write(log, &text[..(header + 20).min(text.len())])
    })
    .await
}
