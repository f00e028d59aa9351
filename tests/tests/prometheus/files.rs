//! The rules and dashboards as files, and the metrics page as Prometheus's own tool judges it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{in_netns, output};
use tests::prometheus::{deploy, rules};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::{LEAN, dashboards};

/// What the tool holds against names of amazon-vpc-cni-k8s, which dashboards depend on.
const NAMES_OF_OTHERS: &str = "awscni_";

#[tokio::test]
async fn rules_are_valid_and_pass_their_unit_tests() -> Result<()> {
    output(Command::new("promtool").args(["check", "rules"]).arg(rules())).await?;
    let tests = deploy().join("prometheus/tidepool.rules.test.yaml");
    output(Command::new("promtool").args(["test", "rules"]).arg(tests)).await.map(|_| ())
}

/// The names of the alerts in a text with lines `alert: NAME`.
fn alerts_in(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(|line| Some(line.strip_prefix("alert: ")?.trim().to_owned())).collect()
}

/// Each alert is fired by a fault in this folder, has a unit test, and is explained.
#[test]
fn each_alert_is_tested_and_explained() -> Result<()> {
    let alerts = alerts_in(&std::fs::read_to_string(rules())?);
    ensure!(alerts.len() > 15, "only {alerts:?}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prometheus");
    let mut fired = String::new();
    for file in ["calls.rs", "network.rs", "room.rs"] {
        fired += &std::fs::read_to_string(folder.join(file))?;
    }
    let unit_tests = std::fs::read_to_string(deploy().join("prometheus/tidepool.rules.test.yaml"))?;
    let document = std::fs::read_to_string(deploy().join("../docs/alerts.md"))?;
    for alert in &alerts {
        ensure!(fired.contains(&format!("\"{alert}\"")), "no fault fires {alert}");
        ensure!(unit_tests.contains(&format!("alertname: {alert}\n")), "no unit test of {alert}");
        ensure!(document.contains(&format!("| `{alert}` |")), "docs/alerts.md lacks {alert}");
    }
    let rows = document.lines().filter(|line| line.starts_with("| `Tidepool")).count();
    ensure!(rows == alerts.len(), "docs/alerts.md has {rows} rows for {} alerts", alerts.len());
    Ok(())
}

/// The names of metrics in a query: words with one of these beginnings.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let is_metric =
        |word: &&str| ["tidepool_", "awscni_", "process_"].iter().any(|it| word.starts_with(it));
    words.filter(is_metric).map(str::to_owned).collect()
}

/// A dashboard or rule with a misspelt name would show nothing and never fire.
#[test]
fn rules_and_dashboards_use_metrics_that_exist() -> Result<()> {
    let document = std::fs::read_to_string(deploy().join("../docs/metrics.md"))?;
    let mut used = metrics_in(&std::fs::read_to_string(rules())?);
    for (_, dashboard) in dashboards::all()? {
        for panel in dashboards::panels(&dashboard)? {
            used.extend(panel.queries("node").flat_map(|(query, _)| metrics_in(&query)));
        }
    }
    ensure!(used.len() > 30, "only {used:?}");
    for metric in used {
        let of_histogram =
            ["_bucket", "_count", "_sum"].iter().find_map(|end| metric.strip_suffix(end));
        let names = [Some(metric.as_str()), of_histogram];
        let exists =
            names.into_iter().flatten().any(|it| document.contains(&format!("| `{it}` |")));
        ensure!(exists, "docs/metrics.md lacks {metric}");
    }
    Ok(())
}

/// Grafana needs unique numbers, and panels that do not overlap.
#[test]
fn dashboards_are_well_formed() -> Result<()> {
    let mut uids = BTreeSet::new();
    for (name, dashboard) in dashboards::all()? {
        ensure!(uids.insert(dashboard["uid"].to_string()), "{name}: its uid is another's");
        let panels = dashboard["panels"].as_array().context("no panels")?;
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].to_string()).collect();
        ensure!(ids.len() == panels.len(), "{name}: a number is used twice");
        let mut places = BTreeSet::new();
        for panel in panels {
            let side = |key: &str| panel["gridPos"][key].as_u64().context("no place");
            let (x, y, w, h) = (side("x")?, side("y")?, side("w")?, side("h")?);
            ensure!(x + w <= 24, "{name}: {} is too wide", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                ensure!(places.insert(cell), "{name}: {} overlaps", panel["title"]);
            }
        }
    }
    Ok(())
}

/// The text of a scrape, without the head of the answer.
async fn page(node: &ExecNode) -> Result<String> {
    let mut curl = in_netns(&node.netns, "bash");
    let ask =
        "exec 3<>/dev/tcp/127.0.0.1/61678; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let answer = output(curl.args(["-c", ask])).await?;
    Ok(answer.split_once("\r\n\r\n").context("no body")?.1.to_owned())
}

/// `promtool check metrics` has nothing against our names and texts.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_page_passes_the_check_of_prometheus() -> Result<()> {
    ExecCluster::with(Spec::new("pmet", "t3.small", 1, &LEAN), async |cluster| {
        let node = &cluster.nodes[0];
        let pod = node.runtime.run("p").await?;
        node.runtime.remove(&pod).await?;
        let page = page(node).await?;
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut promtool = promtool.stdout(Stdio::piped()).spawn().context("start promtool")?;
        let mut stdin = promtool.stdin.take().context("no stdin")?;
        stdin.write_all(page.as_bytes()).await?;
        drop(stdin);
        let out = promtool.wait_with_output().await?;
        let said = [out.stdout, out.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // 3 stands for advice, 1 for a page that cannot be read.
        ensure!(matches!(out.status.code(), Some(0 | 3)), "{said}\n{page}");
        let ours: Vec<_> = said.lines().filter(|line| !line.starts_with(NAMES_OF_OTHERS)).collect();
        ensure!(ours.is_empty(), "{ours:#?}");
        for (outcome, phase, verb) in [
            ("granted", "decision", "add"),
            ("granted", "record", "add"),
            ("granted", "kernel", "add"),
            ("released", "record", "del"),
        ] {
            let labels = format!("{{outcome=\"{outcome}\",phase=\"{phase}\",verb=\"{verb}\"}}");
            let sample = format!("tidepool_request_phase_seconds_count{labels} 1\n");
            ensure!(page.contains(&sample), "no {sample}{page}");
        }
        Ok(())
    })
    .await
}
