//! The cluster as text for people.

use std::time::Duration;

use comfy_table::{Table, presets};
use command_line::printable;

use super::answer::{NodeAnswer, Pool};
use super::sums::{Pace, Sums};

/// Two tables and the sums. The nodes that leave most addresses idle come first.
pub(super) fn render(nodes: &[NodeAnswer], sums: &Sums, pace: &Pace) -> String {
    let mut paragraphs = vec![nodes_table(nodes).to_string()];
    if !sums.subnets.is_empty() {
        paragraphs.push(subnets_table(sums, pace).to_string());
    }
    let mut lines = vec![sentence(nodes, sums)];
    lines.extend(hoarding(sums));
    for node in nodes {
        match &node.pool {
            Ok(pool) => {
                lines.extend(pool.blocked.iter().map(|why| format!("{}: {why}", node.node)))
            }
            Err(why) => lines.push(format!("{}: no answer: {why}", node.node)),
        }
    }
    let lines = lines.iter().map(|line| printable(line)).collect::<Vec<_>>();
    paragraphs.push(lines.join("\n"));
    paragraphs.join("\n\n") + "\n"
}

fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| printable(&cell)));
    }
    table
}

fn nodes_table(nodes: &[NodeAnswer]) -> Table {
    let mut sorted: Vec<_> = nodes.iter().collect();
    let n_free = |node: &NodeAnswer| node.pool.as_ref().map_or(0, |pool| pool.counts.free);
    sorted.sort_by_key(|node| (std::cmp::Reverse(n_free(node)), &node.node));
    let rows = sorted.into_iter().map(|node| match &node.pool {
        Ok(Pool { instance_type, version: _, mode, counts, blocked: _ }) => [
            node.node.clone(),
            instance_type.clone(),
            mode.clone(),
            counts.total.to_string(),
            counts.assigned.to_string(),
            counts.cooling.to_string(),
            counts.free.to_string(),
            counts.waiting.to_string(),
        ],
        Err(_) => {
            let dash = || "-".to_owned();
            [node.node.clone(), dash(), dash(), dash(), dash(), dash(), dash(), dash()]
        }
    });
    table(["NODE", "TYPE", "MODE", "HELD", "USED", "COOLING", "IDLE", "WAITING"], rows)
}

fn subnets_table(sums: &Sums, pace: &Pace) -> Table {
    let rows = sums.subnets.iter().map(|(id, subnet)| {
        let refusals: Vec<_> = subnet.refusals.iter().map(String::as_str).collect();
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        [
            id.clone(),
            or_dash(subnet.cidr.clone()),
            or_dash(subnet.free_addresses.map(|free| free.to_string()).unwrap_or_default()),
            subnet.n_nodes.to_string(),
            subnet.counts.total.to_string(),
            subnet.counts.assigned.to_string(),
            subnet.counts.free.to_string(),
            or_dash(pace.get(id).map(|left| span(*left)).unwrap_or_default()),
            or_dash(refusals.join(", ")),
        ]
    });
    let header =
        ["SUBNET", "RANGE", "FREE", "NODES", "HELD", "USED", "IDLE", "EXHAUSTED IN", "REFUSES"];
    table(header, rows)
}

fn sentence(nodes: &[NodeAnswer], sums: &Sums) -> String {
    let n_answers = nodes.iter().filter(|node| node.pool.is_ok()).count();
    let counts = sums.counts;
    format!(
        "{n_answers} of {} nodes hold {} addresses: {} used, {} cooling, {} idle; {} pods waiting",
        nodes.len(),
        counts.total,
        counts.assigned,
        counts.cooling,
        counts.free,
        counts.waiting
    )
}

/// The nodes with half of all idle addresses.
fn hoarding(sums: &Sums) -> Option<String> {
    let names: Vec<_> =
        sums.hoarders.iter().map(|(node, free)| format!("{node} ({free})")).collect();
    (!names.is_empty())
        .then(|| format!("half of the idle addresses or more are on {}", names.join(", ")))
}

/// Minutes and hours; seconds only below two minutes.
fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::*;

    fn node(name: &str, free: u64) -> NodeAnswer {
        let status = format!(
            r#"{{"instance_type": "m5.large", "version": "0.1.0", "mode": "prefix", "blocked": [],
                "counts": {{"total": 16, "assigned": 2, "cooling": 1, "free": {free}, "waiting": 0}}}}"#
        );
        let subnets = r#"{"described_ms": 5, "subnets": [{"id": "subnet-a", "cidr": "10.0.0.0/24",
            "free_addresses": 100, "role": "new-enis", "enis": 1, "refusals":
            [{"of": "prefix", "code": "SUBNET_FRAGMENTED", "until_ms": 1}],
            "counts": {"total": 16, "assigned": 2, "cooling": 1, "free": 13, "waiting": 0}}]}"#;
        NodeAnswer {
            node: name.into(),
            pool: Ok(answer::status(&status).unwrap()),
            subnets: answer::subnets(subnets).unwrap(),
        }
    }

    #[test]
    fn nodes_with_most_idle_addresses_come_first() {
        let silent = NodeAnswer {
            node: "c\u{1b}[2J".into(),
            pool: Err("no answer within 30s".into()),
            subnets: vec![],
        };
        let nodes = [node("a", 3), node("b", 13), silent];
        let sums = Sums::of(&nodes);
        let pace = Pace::from([("subnet-a".to_owned(), Duration::from_secs(3700))]);
        let text = render(&nodes, &sums, &pace);
        let trimmed: Vec<&str> = text.lines().map(str::trim).collect();
        let rows: Vec<_> = trimmed
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            rows,
            [
                "NODE TYPE MODE HELD USED COOLING IDLE WAITING",
                "b m5.large prefix 16 2 1 13 0",
                "a m5.large prefix 16 2 1 3 0",
                "c\\u{1b}[2J - - - - - - -",
                "",
                "SUBNET RANGE FREE NODES HELD USED IDLE EXHAUSTED IN REFUSES",
                "subnet-a 10.0.0.0/24 100 2 32 4 26 61m prefix SUBNET_FRAGMENTED",
                "",
                "2 of 3 nodes hold 32 addresses: 4 used, 2 cooling, 16 idle; 0 pods waiting",
                "half of the idle addresses or more are on b (13)",
                "c\\u{1b}[2J: no answer: no answer within 30s",
            ]
        );
    }
}
