//! A report as text for people.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::clairvoyant::ratios;
use super::{Aim, CaseReport, EqualService, Report};
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

/// The report as tables. It ends with a line break.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = format!("{}\n\n{}\n", report.about, scores(report).trim_fmt());
    if let Some(verdict) = verdict(report) {
        text.push_str(&format!("\n{}\n", verdict.trim_fmt()));
    }
    text.push_str(&format!("\n{}\n", ratios(&report.cases).trim_fmt()));
    for case in &report.cases {
        details(&mut text, case);
    }
    text
}

pub(super) fn table(header: impl IntoIterator<Item = impl Into<Cell>>, n_words: usize) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.into_iter().map(Into::into).collect::<Vec<Cell>>());
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
    bound(&case.scores).into_iter().for_each(&mut line);
    if let Some(equal) = &case.equal_service {
        line(equal_service(equal));
    }
}

fn equal_service(equal: &EqualService) -> String {
    let EqualService { warm_ip, is_enough, score } = equal;
    let what = match is_enough {
        true => format!("serves as well as ours with WARM_IP_TARGET={warm_ip}"),
        false => format!("serves worse than ours with any WARM_IP_TARGET up to {warm_ip}"),
    };
    let (wait, idle) = (seconds(score.wait_ms.p99), score.idle.mean_per_pod);
    let calls = score.mutating_calls_per_pod;
    format!("\n  the incumbent {what}: p99 {wait} s, {idle:.2} idle/pod, {calls:.3} mutating/pod")
}

fn bound(scores: &[Score]) -> Option<String> {
    let score = scores.first()?;
    let calls = score.bound_calls.iter().filter(|(_, n)| **n > 0);
    let calls: Vec<_> = calls.map(|(action, n)| format!("{n} {action}")).collect();
    let (bound, calls) = (seconds(score.bound_ms.filter(|ms| *ms > 0)?), calls.join(", "));
    let mean = seconds(score.mean_wait_bound_ms?);
    let means = scores.iter().map(|score| {
        let (mean, who) = (seconds(score.wait_ms.mean), score.strategy.as_str());
        format!("{mean} s with {who}")
    });
    let means: Vec<_> = means.collect();
    Some(format!(
        "\n  token buckets allow the last pod after {bound} s at best ({calls})\n  \
         they allow a mean wait of {mean} s at best; it is {}",
        means.join(", ")
    ))
}

/// One line per case, and one column per aim that any case has. `None` without aims.
fn verdict(report: &Report) -> Option<Table> {
    let mut columns: Vec<&Aim> = Vec::new();
    for aim in report.cases.iter().flat_map(|case| &case.aims) {
        if columns.iter().all(|column| column.what != aim.what) {
            columns.push(aim);
        }
    }
    let title = |aim: &&Aim| format!("{} ≤ {:.2}", aim.what, aim.at_most);
    let header = std::iter::once("aims".to_owned()).chain(columns.iter().map(title));
    let mut table = table(header, 1);
    for case in &report.cases {
        let cell = |column: &&Aim| {
            let aim = case.aims.iter().find(|aim| aim.what == column.what);
            aim.map_or_else(|| "-".to_owned(), aim_text)
        };
        table.add_row(std::iter::once(case.policy.clone()).chain(columns.iter().map(cell)));
    }
    (!columns.is_empty()).then_some(table)
}

fn aim_text(aim: &Aim) -> String {
    let ratio = aim.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    format!("{ratio} {}", if aim.met { "met" } else { "missed" })
}
