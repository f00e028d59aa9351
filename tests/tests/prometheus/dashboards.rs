//! Asks what the dashboards ask.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::prometheus::{Prometheus, Series, deploy, target};

use crate::charts;

/// What Grafana makes of `$__rate_interval`: here the scrapes of some seconds.
const RATE_INTERVAL: &str = "15s";
/// Where the panels are drawn, if somebody wants that.
const CHARTS: &str = "TIDEPOOL_CHARTS";

/// One panel that has queries.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) kind: String,
    pub(crate) title: String,
    pub(crate) unit: String,
    /// Expression and legend.
    targets: Vec<(String, String)>,
}

/// A panel's line: its legend and its values.
pub(crate) type Line = (String, Series);

/// The dashboards, each with its name.
pub(crate) fn all() -> Result<Vec<(String, Value)>> {
    ["cluster", "node", "subnet"]
        .into_iter()
        .map(|name| Ok((name.to_owned(), read(name)?)))
        .collect()
}

fn read(name: &str) -> Result<Value> {
    let path = deploy().join(format!("grafana/{name}.json"));
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}

/// The panels that have queries.
pub(crate) fn panels(dashboard: &Value) -> Result<Vec<Panel>> {
    let panels = dashboard["panels"].as_array().context("no panels")?;
    panels.iter().filter(|panel| panel["type"] != "row").map(panel).collect()
}

fn panel(panel: &Value) -> Result<Panel> {
    let text =
        |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("in {panel}"));
    let targets = panel["targets"].as_array().context("no targets")?;
    let targets: Result<_> =
        targets.iter().map(|it| Ok((text(&it["expr"])?, text(&it["legendFormat"])?))).collect();
    Ok(Panel {
        kind: text(&panel["type"])?,
        title: text(&panel["title"])?,
        unit: text(&panel["fieldConfig"]["defaults"]["unit"])?,
        targets: targets?,
    })
}

impl Panel {
    /// Each query as Grafana sends it for this node and all subnets.
    pub(crate) fn queries(&self, node: &str) -> impl Iterator<Item = (String, &str)> {
        let node = node.to_owned();
        self.targets.iter().map(move |(expression, legend)| {
            let query = expression.replace("$__rate_interval", RATE_INTERVAL);
            (query.replace("$node", &node).replace("$subnet", ".*"), legend.as_str())
        })
    }
}

/// Runs each query since `start`, and draws the panels if that is asked for.
pub(crate) async fn all_have_data(prometheus: &Prometheus, node: IpAddr, start: u64) -> Result<()> {
    let node = target(node);
    for (name, dashboard) in all()? {
        let mut drawn = vec![];
        for panel in panels(&dashboard)? {
            let mut lines: Vec<Line> = vec![];
            for (query, legend) in panel.queries(&node) {
                let series = prometheus.range(&query, start).await?;
                let has_data = series.iter().flat_map(|it| &it.samples).any(|(_, n)| n.is_finite());
                ensure!(has_data, "dashboard {name}, panel {:?}: no data for {query}", panel.title);
                lines.extend(series.into_iter().map(|it| (legend_of(legend, &it), it)));
            }
            drawn.push((panel, lines));
        }
        if let Some(folder) = std::env::var_os(CHARTS) {
            let file: PathBuf = Path::new(&folder).join(format!("{name}.svg"));
            std::fs::write(&file, charts::draw(&drawn)?)
                .with_context(|| format!("write {}", file.display()))?;
        }
    }
    Ok(())
}

/// Fills in the labels: `{{state}}` is the value of the label `state`.
fn legend_of(legend: &str, series: &Series) -> String {
    series.labels.iter().fold(legend.to_owned(), |legend, (label, value)| {
        legend.replace(&format!("{{{{{label}}}}}"), value)
    })
}
