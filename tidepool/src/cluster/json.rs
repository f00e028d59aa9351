//! The cluster as JSON. Keys are added, never renamed or removed. Numbers are counts of addresses unless the key says
//! otherwise.

use serde::Serialize;

use super::answer::{Counts, NodeAnswer};
use super::sums::{Pace, Sums};

#[derive(Serialize)]
struct Cluster<'a> {
    nodes: Vec<Node<'a>>,
    subnets: Vec<Subnet<'a>>,
    /// Over the nodes that have answered.
    held: u64,
    used: u64,
    idle: u64,
    /// The nodes that together hold half of all idle addresses, those with most first.
    hoarders: Vec<&'a str>,
}

#[derive(Serialize)]
struct Node<'a> {
    node: &'a str,
    /// Why it has not answered; `null` if it has. Then the numbers are 0.
    fault: Option<&'a str>,
    instance_type: &'a str,
    version: &'a str,
    mode: &'a str,
    held: u64,
    used: u64,
    cooling: u64,
    idle: u64,
    /// A count of ADDs that wait for an address.
    waiting: u64,
    blocked: &'a [String],
}

#[derive(Serialize)]
struct Subnet<'a> {
    id: &'a str,
    cidr: &'a str,
    /// By the newest answer that a node has of EC2; `null` without any.
    free: Option<u32>,
    /// When EC2 was asked for that, in milliseconds since the Unix epoch.
    described_ms: Option<u64>,
    /// A count of nodes with addresses in it.
    nodes: u64,
    held: u64,
    used: u64,
    idle: u64,
    /// `address SUBNET_EXHAUSTED`, for each refusal of a node.
    refusals: Vec<&'a str>,
    /// Seconds until it is exhausted at the present pace; `null` if the nodes take none of it, or without `--over`.
    exhausted_in_s: Option<u64>,
}

/// The cluster, indented, with a newline at the end.
pub(super) fn render(nodes: &[NodeAnswer], sums: &Sums, pace: &Pace) -> serde_json::Result<String> {
    let subnets = sums.subnets.iter().map(|(id, subnet)| Subnet {
        id,
        cidr: &subnet.cidr,
        free: subnet.free_addresses,
        described_ms: subnet.described_ms,
        nodes: subnet.n_nodes,
        held: subnet.counts.total,
        used: subnet.counts.assigned,
        idle: subnet.counts.free,
        refusals: subnet.refusals.iter().map(String::as_str).collect(),
        exhausted_in_s: pace.get(id).map(std::time::Duration::as_secs),
    });
    let cluster = Cluster {
        nodes: nodes.iter().map(node).collect(),
        subnets: subnets.collect(),
        held: sums.counts.total,
        used: sums.counts.assigned,
        idle: sums.counts.free,
        hoarders: sums.hoarders.iter().map(|(node, _)| node.as_str()).collect(),
    };
    Ok(serde_json::to_string_pretty(&cluster)? + "\n")
}

fn node(answer: &NodeAnswer) -> Node<'_> {
    let pool = answer.pool.as_ref().ok();
    let counts = pool.map_or_else(Counts::default, |pool| pool.counts);
    Node {
        node: &answer.node,
        fault: answer.pool.as_ref().err().map(String::as_str),
        instance_type: pool.map_or("", |pool| &pool.instance_type),
        version: pool.map_or("", |pool| &pool.version),
        mode: pool.map_or("", |pool| &pool.mode),
        held: counts.total,
        used: counts.assigned,
        cooling: counts.cooling,
        idle: counts.free,
        waiting: counts.waiting,
        blocked: pool.map_or(&[], |pool| &pool.blocked),
    }
}
