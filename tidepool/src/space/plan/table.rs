//! A plan as text for people: a tree of ranges, the nodes that it is sized by, what differs, what is wrong.

use address_space::design::diff::{Difference, Kind};
use address_space::design::{Design, FOREVER, LaidSubnet};
use command_line::printable;

use super::Sized;
use crate::space::audit::table::{finding, table};

/// Paragraphs with an empty line between them.
pub(super) fn render(
    design: &Design,
    nodes: &[Sized],
    differences: &[Difference],
    years: u32,
) -> String {
    let tables = [tree(design, years), sizes(nodes)];
    let mut paragraphs: Vec<_> = tables.into_iter().flatten().collect();
    if !differences.is_empty() {
        let n_same = differences.iter().filter(|one| one.kind == Kind::Same).count();
        let others = differences.iter().filter(|one| one.kind != Kind::Same);
        let line =
            |one: &Difference| format!("{} {}: {}", one.kind.as_str(), one.subject, one.what);
        let mut lines: Vec<_> = others.map(|one| printable(&line(one))).collect();
        lines.push(format!("{n_same} ranges are as planned"));
        paragraphs.push(lines.join("\n"));
    }
    if !design.findings.is_empty() {
        let lines: Vec<_> = design.findings.iter().map(|one| printable(&finding(one))).collect();
        paragraphs.push(lines.join("\n"));
    }
    paragraphs.join("\n\n") + "\n"
}

fn tree(design: &Design, years: u32) -> Option<String> {
    let mut rows = vec![];
    let row = |name: String, range: String, place: &str, rest: [String; 4]| {
        let [today, later, lasts, reserved] = rest;
        [name, range, place.to_owned(), today, later, lasts, reserved]
    };
    for pool in &design.pools {
        let tags: Vec<_> = pool.tags.iter().map(|(_, value)| value.as_str()).collect();
        let name = format!("{} {}", pool.name, tags.join(" "));
        let none = || [const { String::new() }; 4];
        rows.push(row(name.trim_end().to_owned(), pool.cidr.to_string(), &pool.region, none()));
        for vpc in &pool.vpcs {
            rows.push(row(format!("├─ {}", vpc.name), vpc.cidr.to_string(), "", none()));
            rows.extend(vpc.subnets.iter().map(|subnet| {
                let name = format!("│  ├─ {}", subnet.name);
                row(name, subnet.cidr.to_string(), &subnet.zone, numbers(subnet))
            }));
        }
    }
    let later = format!("IN {years} YEARS");
    let header = ["RANGE OF", "RANGE", "REGION", "TODAY", &later, "LASTS", "RESERVE FOR PREFIXES"];
    table(header, rows.into_iter())
}

fn numbers(subnet: &LaidSubnet) -> [String; 4] {
    let [today, later] = subnet.need;
    let lasts = match subnet.lasts_years {
        years if years >= FOREVER => format!("{FOREVER} years or more"),
        years => format!("{years} years"),
    };
    let reserved: Vec<_> = subnet.for_prefixes.iter().map(ToString::to_string).collect();
    [today.to_string(), later.to_string(), lasts, reserved.join(" ")]
}

fn sizes(nodes: &[Sized]) -> Option<String> {
    let rows = nodes.iter().map(|node| {
        [
            node.cluster.clone(),
            node.instance_type.clone(),
            node.pods_per_node.to_string(),
            node.single.to_string(),
            node.prefixes.to_string(),
        ]
    });
    table(["CLUSTER", "NODE", "PODS", "ADDRESSES AT P99", "PREFIXES AT P99"], rows)
}
