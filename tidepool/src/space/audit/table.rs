//! The audit as text for people: tables first, and at the end what is wrong.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use address_space::Node;
use address_space::audit::{Audit, Finding};
use comfy_table::{Table, presets};
use command_line::printable;

use super::WhatIf;

/// The most nodes that are listed; `--output json` has all.
const MOST_NODES: usize = 20;

/// Paragraphs with an empty line between them. A paragraph without content is left out.
pub(super) fn render(audit: &Audit, targets: &[WhatIf]) -> String {
    let tables = [
        vpcs(audit),
        subnets(audit),
        pools(audit),
        holders(audit),
        clusters(&audit.nodes),
        hoarders(&audit.nodes),
        what_if(targets),
    ];
    let mut paragraphs: Vec<_> = tables.into_iter().flatten().collect();
    if !audit.gaps.is_empty() {
        paragraphs.push(lines(audit.gaps.iter().map(ToString::to_string)));
    }
    paragraphs.push(match audit.findings.is_empty() {
        true => "nothing is wrong".to_owned(),
        false => lines(audit.findings.iter().map(finding)),
    });
    paragraphs.join("\n\n") + "\n"
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| printable(&line)).collect::<Vec<_>>().join("\n")
}

/// `None` without a row.
pub(in crate::space) fn table<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> Option<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    rows.for_each(|row| {
        table.add_row(row.map(|cell| printable(&cell)));
    });
    (table.row_count() > 0).then(|| table.to_string())
}

fn vpcs(audit: &Audit) -> Option<String> {
    let rows = audit.vpcs.iter().map(|vpc| {
        let cidrs: Vec<_> = vpc.cidrs.iter().map(ToString::to_string).collect();
        let usage = &vpc.network_usage;
        [
            vpc.name.clone(),
            vpc.place.account.clone(),
            vpc.place.region.clone(),
            cidrs.join(" "),
            format!("{} %", vpc.percent),
            vpc.used.to_string(),
            format!("{} ({} %)", usage.units, usage.percent),
            format!("{} ({} %)", usage.peered_units, usage.peered_percent),
        ]
    });
    let header =
        ["VPC", "ACCOUNT", "REGION", "RANGES", "IN SUBNETS", "USED", "USAGE UNITS", "WITH PEERS"];
    table(header, rows)
}

fn subnets(audit: &Audit) -> Option<String> {
    let mut sorted: Vec<_> = audit.subnets.iter().collect();
    sorted.sort_by_key(|subnet| (Reverse(subnet.room.percent), &subnet.id));
    let rows = sorted.into_iter().map(|subnet| {
        let room = &subnet.room;
        [
            subnet.name.clone(),
            subnet.zone.clone(),
            subnet.cidr.to_string(),
            room.used.to_string(),
            room.free.to_string(),
            format!("{} %", room.percent),
            room.free_prefixes.to_string(),
            room.largest_free.map_or_else(|| "-".to_owned(), |block| block.to_string()),
        ]
    });
    table(["SUBNET", "ZONE", "RANGE", "USED", "FREE", "FULL", "FREE /28", "LARGEST FREE"], rows)
}

fn pools(audit: &Audit) -> Option<String> {
    let rows = audit.pools.iter().map(|pool| {
        let cidrs: Vec<_> = pool.cidrs.iter().map(ToString::to_string).collect();
        [
            pool.id.clone(),
            pool.locale.clone().unwrap_or_else(|| "-".to_owned()),
            cidrs.join(" "),
            pool.allocated.to_string(),
            format!("{} %", pool.percent),
            pool.broken_rules.len().to_string(),
        ]
    });
    table(["POOL", "LOCALE", "RANGES", "ALLOCATED", "FULL", "BROKEN RULES"], rows)
}

fn holders(audit: &Audit) -> Option<String> {
    let rows = audit.holders.iter().map(|sum| {
        let (holder, cluster) = sum.holder.names();
        [
            holder.to_owned(),
            cluster.unwrap_or("-").to_owned(),
            sum.n_enis.to_string(),
            sum.addresses.to_string(),
            sum.prefixes.to_string(),
        ]
    });
    table(["HOLDER", "CLUSTER", "INTERFACES", "ADDRESSES", "PREFIXES"], rows)
}

fn clusters(nodes: &[Node]) -> Option<String> {
    let mut sums: BTreeMap<&str, (u64, u64, Option<u64>)> = BTreeMap::new();
    for node in nodes {
        let (n, held, idle) = sums.entry(&node.cluster).or_insert((0, 0, Some(0)));
        *n += 1;
        *held += node.held();
        *idle = idle.zip(node.idle()).map(|(sum, idle)| sum + idle);
    }
    let rows = sums.into_iter().map(|(cluster, (n, held, idle))| {
        let idle = idle.map_or_else(|| "?".to_owned(), |idle| idle.to_string());
        [cluster.to_owned(), n.to_string(), held.to_string(), idle]
    });
    table(["CLUSTER", "NODES", "HELD FOR PODS", "IDLE"], rows)
}

/// The nodes with most idle addresses. Nobody knows them without the numbers of pods.
fn hoarders(nodes: &[Node]) -> Option<String> {
    let mut idle: Vec<_> = nodes.iter().filter_map(|node| Some((node.idle()?, node))).collect();
    idle.retain(|(idle, _)| *idle > 0);
    idle.sort_by_key(|(idle, node)| (Reverse(*idle), &node.instance));
    let rows = idle.into_iter().take(MOST_NODES).map(|(idle, node)| {
        let name = if node.name.is_empty() { node.instance.to_string() } else { node.name.clone() };
        let pods = node.pods.unwrap_or_default().to_string();
        [
            name,
            node.cluster.clone(),
            node.instance_type.clone(),
            node.held().to_string(),
            pods,
            idle.to_string(),
        ]
    });
    table(["NODE", "CLUSTER", "TYPE", "HELD", "PODS", "IDLE"], rows)
}

fn what_if(targets: &[WhatIf]) -> Option<String> {
    let now: BTreeMap<_, _> = targets
        .iter()
        .filter(|row| row.targets == "now")
        .map(|row| (&row.cluster, row.held.addresses()))
        .collect();
    let rows = targets.iter().map(|row| {
        let held = row.held.addresses();
        let before = now.get(&row.cluster).copied().unwrap_or_default();
        let freed = i128::from(before) - i128::from(held);
        [
            row.cluster.clone(),
            row.targets.clone(),
            row.nodes.to_string(),
            held.to_string(),
            format!("{freed:+}"),
            row.unplaced_pods.to_string(),
        ]
    });
    table(["CLUSTER", "TARGETS", "NODES", "ADDRESSES", "FREED", "PODS WITHOUT"], rows)
}

/// One line.
pub(in crate::space) fn finding(finding: &Finding) -> String {
    let Finding { severity, code, subject, what, cure } = finding;
    format!("{} {code} {subject}: {what}; {cure}", severity.as_str())
}
