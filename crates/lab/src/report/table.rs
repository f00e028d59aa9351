//! A report as text for people.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::{Aim, CaseReport, Report};
use crate::score::{Score, share};

const HEADER: [&str; 14] = [
    "policy",
    "strategy",
    "pods",
    "no address",
    "wait p50 s",
    "p99",
    "max",
    "last pod s",
    "idle/pod",
    "p95",
    "calls/pod",
    "mutating",
    "throttled",
    "failed ADDs",
];

/// The report as tables; ends with a line break.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = format!("{}\n\n{}\n", report.about, scores(report).trim_fmt());
    for case in &report.cases {
        details(&mut text, case);
    }
    text
}

fn table<const N: usize>(header: [&str; N], n_words: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(n_words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn scores(report: &Report) -> Table {
    let mut table = table(HEADER, 2);
    for case in &report.cases {
        for score in &case.scores {
            table.add_row(row(&case.policy, score));
        }
    }
    table
}

fn row(policy: &str, score: &Score) -> Vec<String> {
    let throttled: u64 = score.calls.values().map(|count| count.throttled).sum();
    vec![
        policy.to_owned(),
        score.strategy.as_str().to_owned(),
        score.pods.created.to_string(),
        (score.pods.waiting + score.pods.gave_up).to_string(),
        seconds(score.wait_ms.p50),
        seconds(score.wait_ms.p99),
        seconds(score.wait_ms.max),
        score.last_pod_ms.map_or_else(|| "-".to_owned(), seconds),
        format!("{:.2}", score.idle.mean_per_pod),
        format!("{:.2}", score.idle.p95_per_pod),
        format!("{:.3}", score.calls_per_pod),
        format!("{:.3}", score.mutating_calls_per_pod),
        throttled.to_string(),
        score.failed_adds.values().sum::<u64>().to_string(),
    ]
}

fn seconds(ms: u64) -> String {
    format!("{:.3}", share(ms, 1000))
}

fn details(text: &mut String, case: &CaseReport) {
    let mut line = |line: String| writeln!(text, "{line}").expect("a String takes everything");
    for score in &case.scores {
        line(format!("\n{}, {}", case.policy, score.strategy.as_str()));
        if let Some(ready) = score.last_node_ready_ms {
            line(format!("  last node ready after {} s", seconds(ready)));
        }
        for (code, n) in &score.failed_adds {
            line(format!("  failed ADDs: {n} {code}"));
        }
        if score.wrong_addresses > 0 {
            line(format!("  WRONG ADDRESSES: {}", score.wrong_addresses));
        }
        for (action, count) in &score.calls {
            let mut ends = format!("  {action}: {} granted", count.granted);
            for (n, end) in [(count.throttled, "throttled"), (count.refused, "refused")] {
                if n > 0 {
                    ends.push_str(&format!(", {n} {end}"));
                }
            }
            line(ends);
        }
    }
    if let Some(score) = case.scores.first() {
        bound(score).into_iter().for_each(&mut line);
    }
    for aim in &case.aims {
        line(format!("  aim: {}", aim_text(aim)));
    }
}

fn bound(score: &Score) -> Option<String> {
    let calls = score.bound_calls.iter().filter(|(_, n)| **n > 0);
    let calls: Vec<_> = calls.map(|(action, n)| format!("{n} {action}")).collect();
    let calls = if calls.is_empty() { "no call".to_owned() } else { calls.join(", ") };
    let bound = seconds(score.bound_ms?);
    Some(format!("\n  token buckets allow the last pod after {bound} s at best ({calls})"))
}

fn aim_text(aim: &Aim) -> String {
    let Aim { what, ours, theirs, ratio, at_most, met } = aim;
    let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let verdict = if *met { "met" } else { "NOT met" };
    format!("{what}: {ours:.3} to {theirs:.3} = {ratio}, at most {at_most:.2}: {verdict}")
}
