//! The plan as text for people: what the node holds, then what that costs.

use std::fmt::Display;

use comfy_table::{Table, presets};
use ipam::block::BlockKind;
use ipam::forecast::{EniForecast, Forecast};
use settings::{families_text, limits_text, targets_text};

use super::Planned;

/// Paragraphs with an empty line between them.
pub(super) fn render(planned: &Planned<'_>) -> String {
    let Planned { n_pods, policy, forecast, warnings, .. } = planned;
    let mut paragraphs = vec![head(planned)];
    let kind = policy.families.policy().kind;
    match kind {
        BlockKind::V4Address | BlockKind::V4Prefix => {
            paragraphs.extend([enis(kind, &forecast.enis).to_string(), idle(forecast)]);
        }
        BlockKind::V6Prefix => paragraphs.push(IPV6_HOLDS.to_owned()),
    }
    paragraphs.push(calls(forecast, *n_pods));
    if let Some(unplaced) = &forecast.unplaced {
        let (code, message) = (unplaced.refusal.code.as_str(), &unplaced.refusal.message);
        paragraphs.push(format!(
            "{} pods get no address and fail with {code}: {message}",
            unplaced.n_pods
        ));
    }
    paragraphs.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
    paragraphs.join("\n\n") + "\n"
}

/// Unused addresses out of 2^48 are no loss, so their number is left out.
const IPV6_HOLDS: &str = "The primary ENI holds one IPv6 prefix (/80, 2^48 addresses), whatever the \
                          number of pods; there is no other ENI for pods.";

fn head(planned: &Planned<'_>) -> String {
    let Planned { instance_type, n_pods, limits, policy, .. } = planned;
    format!(
        "{n_pods} pods on {instance_type} ({}), at most {} pods\nmode {}, {}",
        limits_text(*limits),
        policy.max_pods,
        families_text(policy.families),
        targets_text(policy),
    )
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn enis(kind: BlockKind, enis: &[EniForecast]) -> Table {
    let blocks = match kind {
        BlockKind::V4Address => "ADDRESSES",
        BlockKind::V4Prefix | BlockKind::V6Prefix => "PREFIXES",
    };
    let mut table = table(&["ENI", blocks, "PODS", "UNUSED ADDRESSES"]);
    let row = |name: String, cells: [&dyn Display; 3]| {
        std::iter::once(name).chain(cells.map(ToString::to_string)).collect::<Vec<_>>()
    };
    for (index, eni) in enis.iter().enumerate() {
        table.add_row(row(index.to_string(), [&eni.n_blocks(), &eni.n_pods(), &eni.n_unused]));
    }
    let sum = |count: fn(&EniForecast) -> usize| enis.iter().map(count).sum::<usize>();
    let n_unused: u64 = enis.iter().map(|eni| eni.n_unused).sum();
    let sums = [&sum(EniForecast::n_blocks) as &dyn Display, &sum(EniForecast::n_pods), &n_unused];
    table.add_row(row("all".to_owned(), sums));
    table
}

fn idle(forecast: &Forecast) -> String {
    let (now, peak) = (forecast.n_unused(), forecast.peak_unused);
    format!("idle addresses: {now}; at most {peak} on the way from an empty node")
}

/// The calls, in all and for each pod.
fn calls(forecast: &Forecast, n_pods: u32) -> String {
    let total: u32 = forecast.calls.values().sum();
    let n_placed = n_pods - forecast.unplaced.as_ref().map_or(0, |unplaced| unplaced.n_pods);
    let per_pod = match n_placed {
        0 => String::new(),
        n => format!(", {:.2} for each pod", f64::from(total) / f64::from(n)),
    };
    let mut table = table(&["EC2 ACTION", "CALLS"]);
    for (action, n) in &forecast.calls {
        table.add_row([action.as_str().to_owned(), n.to_string()]);
    }
    format!("EC2 calls from an empty node, pods added one by one: {total}{per_pod}\n{table}")
}
