//! DELs and ADDs after damage to the record.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::books::kernel;
use tests::exec::{ExecCluster, ExecNode, Pod};

use crate::{call, connect, host, spec, until_held};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Missing,
    Truncated,
    NewerVersion,
}

impl Damage {
    fn inflict(self, log: &Path) -> Result<()> {
        let text = std::fs::read_to_string(log)?;
        match self {
            Damage::Missing => std::fs::remove_file(log)?,
            Damage::Truncated => std::fs::write(log, &text[..text.len() / 2])?,
            Damage::NewerVersion => std::fs::write(log, newer(&text)?)?,
        }
        Ok(())
    }
}

/// The log as a daemon of the next format would have written it.
fn newer(text: &str) -> Result<String> {
    let (header, rest) = text.split_once('\n').context("a log of less than a line")?;
    let (_, payload) = header.split_once(',').context("a header without a payload")?;
    let mut payload: Value = serde_json::from_str(payload.trim_end_matches(']'))?;
    let version = payload["version"].as_u64().context("a header without a version")?;
    payload["version"] = json!(version + 1);
    let payload = payload.to_string();
    let sum = crc32fast::hash(payload.as_bytes());
    Ok(format!("[\"{sum:08x}\",{payload}]\n{rest}"))
}

/// Pods run, and the daemon returns to a damaged record of them.
async fn damaged(
    name: &str,
    damage: Damage,
    body: impl AsyncFnOnce(&ExecNode, &[(Pod, Value)]) -> Result<()>,
) -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "0")];
    ExecCluster::with(spec(name, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let directory = node.state_directory().to_owned();
        let log = directory.join("tidepool.jsonl");
        let mut pods = vec![];
        for index in 0..3 {
            pods.push(connect(node, &format!("p{index}")).await?);
        }
        node.stop_ipamd().await?;
        damage.inflict(&log)?;
        let damaged = std::fs::read(&log).ok();
        node.start_ipamd().await?;
        if damage != Damage::Missing {
            let names = std::fs::read_dir(&directory)?.filter_map(|entry| Some(entry.ok()?.path()));
            let asides = names.filter(|path| path.to_string_lossy().contains(".damaged-"));
            let kept: Vec<_> = asides.map(std::fs::read).collect::<std::io::Result<_>>()?;
            ensure!(kept.len() == 1 && Some(&kept[0]) == damaged.as_ref(), "kept {kept:?}");
        }
        body(node, &pods).await
    })
    .await
}

async fn dels_succeed(node: &ExecNode, pods: &[(Pod, Value)]) -> Result<()> {
    for (pod, result) in pods {
        for conf in [json!({"prevResult": result}), json!({})] {
            call(node, "DEL", Some(pod), conf).await.with_context(|| format!("DEL of {pod:?}"))?;
        }
    }
    until_held(node, &[]).await?;
    let left = kernel(&host(node)).await?;
    ensure!(pods.iter().all(|(pod, _)| !left.contains(&pod.ip)), "left of the pods: {left}");
    connect(node, "next").await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_65_del_without_the_record_succeeds() -> Result<()> {
    damaged("a65m", Damage::Missing, dels_succeed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_65_del_with_a_truncated_record_succeeds() -> Result<()> {
    damaged("a65t", Damage::Truncated, dels_succeed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_65_del_with_a_newer_record_succeeds() -> Result<()> {
    damaged("a65v", Damage::NewerVersion, dels_succeed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_record_gives_no_running_pods_address_away() -> Result<()> {
    damaged("a65d", Damage::Missing, async |node, pods| {
        for index in 0..4 {
            let (next, _) = connect(node, &format!("next{index}")).await?;
            let taken = pods.iter().find(|(pod, _)| pod.ip == next.ip);
            ensure!(taken.is_none(), "{next:?} has the address of {taken:?}");
        }
        Ok(())
    })
    .await
}
