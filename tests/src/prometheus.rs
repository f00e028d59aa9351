//! A real Prometheus that scrapes the nodes of a cluster, in the network of its first node, with the rules of `deploy/`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::process::{PATIENCE, Process, eventually, in_netns, output};

/// Where it listens, inside the node's network.
const LISTEN: &str = "127.0.0.1:9090";
/// The pause between two scrapes, and between two evaluations of the rules.
const INTERVAL: &str = "500ms";

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    netns: String,
    dir: PathBuf,
}

/// The values of a metric's labels, and of the metric over time: seconds since 1970, and the value then.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Values by label.
    pub labels: BTreeMap<String, String>,
    /// Ascending by time.
    pub samples: Vec<(f64, f64)>,
}

/// The file of alert rules.
#[must_use]
pub fn rules() -> PathBuf {
    deploy().join("prometheus/tidepool.rules.yaml")
}

/// What the project ships for clusters.
#[must_use]
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

impl Prometheus {
    /// Starts it in the network namespace `netns`, and waits until it has scraped each of `nodes`. Alerts wait for
    /// nothing: each `for` of the rules is 0 s.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub async fn start(netns: &str, nodes: &[IpAddr]) -> Result<Self> {
        let dir = PathBuf::from(format!("/run/{netns}-prometheus"));
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let text = std::fs::read_to_string(rules()).context("read the rules")?;
        let at_once = |line: &str| match line.trim_start().starts_with("for:") {
            true => line
                .split_once("for:")
                .map_or_else(String::new, |(indent, _)| format!("{indent}for: 0s")),
            false => line.to_owned(),
        };
        let text: Vec<_> = text.lines().map(at_once).collect();
        std::fs::write(dir.join("rules.yaml"), text.join("\n")).context("write the rules")?;
        let targets: Vec<_> = nodes.iter().map(|node| target(*node)).collect();
        // JSON is YAML too.
        let config = json!({
            "global": {
                "scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL,
            },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "aws-node", "static_configs": [{"targets": targets}]}],
        });
        std::fs::write(dir.join("prometheus.yml"), config.to_string())
            .context("write the configuration")?;
        let mut command = in_netns(netns, "prometheus");
        command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        command.arg(format!("--web.listen-address={LISTEN}")).arg("--log.level=warn");
        let process = Process::start("prometheus", &mut command, &dir.join("prometheus.log"))?;
        let started = Self { process, netns: netns.to_owned(), dir };
        let up = eventually("scrape of each node", PATIENCE, async || {
            let up = started.query("up == 1").await?;
            ensure!(up.len() == nodes.len(), "{} of {} nodes", up.len(), nodes.len());
            Ok(())
        });
        up.await.with_context(|| started.process.tail())?;
        Ok(started)
    }

    /// The value of each series now.
    ///
    /// # Errors
    ///
    /// If the expression is wrong, or nobody answers.
    pub async fn query(&self, expression: &str) -> Result<Vec<Series>> {
        self.ask("instant", &[], expression).await
    }

    /// The values of each series since `start`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// If the expression is wrong, or nobody answers.
    pub async fn range(&self, expression: &str, start: u64) -> Result<Vec<Series>> {
        let start = format!("--start={start}");
        self.ask("range", &[&start, "--step=1s"], expression).await
    }

    async fn ask(&self, kind: &str, options: &[&str], expression: &str) -> Result<Vec<Series>> {
        let mut command = in_netns(&self.netns, "promtool");
        command.args(["query", kind, "--format=json"]).args(options);
        let answer = output(command.arg(format!("http://{LISTEN}")).arg(expression)).await?;
        let answer: Vec<Value> = serde_json::from_str(&answer).context("read the answer")?;
        answer.iter().map(Series::read).collect()
    }

    /// The names of the alerts that fire.
    ///
    /// # Errors
    ///
    /// If nobody answers.
    pub async fn firing(&self) -> Result<BTreeSet<String>> {
        let alerts = self.query("ALERTS{alertstate=\"firing\"}").await?;
        Ok(alerts.into_iter().filter_map(|mut alert| alert.labels.remove("alertname")).collect())
    }

    /// Waits until an alert fires.
    ///
    /// # Errors
    ///
    /// If it does not; the error names those that do.
    pub async fn fires(&self, alert: &str) -> Result<()> {
        eventually(&format!("alert {alert}"), 2 * PATIENCE, async || {
            let firing = self.firing().await?;
            ensure!(firing.contains(alert), "these fire: {firing:?}");
            Ok(())
        })
        .await
    }

    /// Waits until an alert does not fire any more.
    ///
    /// # Errors
    ///
    /// If it fires on.
    pub async fn ends(&self, alert: &str) -> Result<()> {
        eventually(&format!("end of the alert {alert}"), 2 * PATIENCE, async || {
            let firing = self.firing().await?;
            ensure!(!firing.contains(alert), "these fire: {firing:?}");
            Ok(())
        })
        .await
    }

    /// Waits until no alert fires.
    ///
    /// # Errors
    ///
    /// If one fires on.
    pub async fn is_quiet(&self) -> Result<()> {
        eventually("quiet", PATIENCE, async || {
            let firing = self.firing().await?;
            ensure!(firing.is_empty(), "these fire: {firing:?}");
            Ok(())
        })
        .await
    }

    /// Waits until an expression has a value.
    ///
    /// # Errors
    ///
    /// If it has none.
    pub async fn shows(&self, expression: &str) -> Result<()> {
        eventually(expression, 2 * PATIENCE, async || {
            ensure!(!self.query(expression).await?.is_empty(), "no value");
            Ok(())
        })
        .await
    }

    /// Ends it, and removes what it has stored.
    ///
    /// # Errors
    ///
    /// If it does not end.
    pub async fn stop(mut self) -> Result<()> {
        self.process.stop().await?;
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}

/// A node as the label `instance` names it.
#[must_use]
pub fn target(node: IpAddr) -> String {
    std::net::SocketAddr::new(node, 61678).to_string()
}

impl Series {
    fn read(answer: &Value) -> Result<Self> {
        let labels = serde_json::from_value(answer["metric"].clone()).context("read the labels")?;
        let samples = match answer["values"].as_array() {
            Some(values) => values.iter().map(sample).collect::<Result<_>>()?,
            None => vec![sample(&answer["value"])?],
        };
        Ok(Self { labels, samples })
    }
}

/// A pair of time and value; the value is text.
fn sample(pair: &Value) -> Result<(f64, f64)> {
    let time = pair[0].as_f64().context("a sample without time")?;
    let value = pair[1].as_str().context("a sample without value")?;
    Ok((time, value.parse().with_context(|| format!("read the value {value}"))?))
}
