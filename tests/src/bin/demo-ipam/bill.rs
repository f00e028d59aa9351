//! Step 5: what the addresses cost, and what they would cost with prefix delegation.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::organization::Organization;

/// Prints the bill with so many pods on each node, and checks that prefixes are cheaper if each counts as one address.
pub(crate) async fn show(organization: &Organization<'_>, pods: usize) -> Result<()> {
    let story = organization.story;
    story.act("5. the bill, and what other targets would cost");
    let pods = pods.to_string();
    let cost = ["cost", "--pods-per-node", &pods];
    let bill = organization.ipam(&[&cost[..], &["--save", "now.json"]].concat()).await?;
    ensure!(bill.code == 0, "{}", bill.text);
    bill.show();
    let again = [&cost[..], &["--from", "now.json", "--output", "json"]].concat();
    let json = organization.tidepool(&again).await?.json()?;
    let (now, prefixes) = (of(&json, "now")?, of(&json, "ENABLE_PREFIX_DELEGATION=true")?);
    let least = |row: &Value| row["active"]["least"].as_u64().context("no number");
    ensure!(least(prefixes)? < least(now)?, "{prefixes} is not below {now}");
    ensure!(prefixes["unplaced_pods"] == 0, "{prefixes}");
    for (row, what) in [(now, "now"), (prefixes, "with prefix delegation")] {
        let (active, month) = (&row["active"], &row["usd_by_month"]);
        story.good(&format!("{what}: {} addresses, {} USD a month", range(active), range(month)));
    }
    Ok(())
}

/// The row of these targets.
fn of<'a>(bill: &'a Value, targets: &str) -> Result<&'a Value> {
    let mut rows = bill["targets"].as_array().context("no targets")?.iter();
    rows.find(|row| row["targets"] == targets).with_context(|| format!("no {targets} in {bill}"))
}

fn range(bounds: &Value) -> String {
    let [least, most] = ["least", "most"].map(|bound| bounds[bound].to_string().replace('"', ""));
    if least == most { least } else { format!("{least} to {most}") }
}
