//! What a node's `ipamd status` and `ipamd subnets` print as JSON, as far as a cluster is about it.

use anyhow::Context as _;
use serde::Deserialize;

/// The answer of one node.
#[derive(Debug)]
pub(super) struct NodeAnswer {
    /// Its name.
    pub(super) node: String,
    /// Its pool, or why there is no answer.
    pub(super) pool: Result<Pool, String>,
    /// The subnets of its zone.
    pub(super) subnets: Vec<Subnet>,
}

/// The pool of a node.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Pool {
    pub(super) instance_type: String,
    pub(super) version: String,
    pub(super) mode: String,
    pub(super) counts: Counts,
    /// What keeps the pool from its targets, one phrase each.
    pub(super) blocked: Vec<String>,
}

/// Sums of addresses.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Counts {
    pub(super) total: u64,
    pub(super) assigned: u64,
    pub(super) cooling: u64,
    pub(super) free: u64,
    pub(super) waiting: u64,
}

/// A subnet as one node sees it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Subnet {
    pub(super) id: String,
    pub(super) cidr: String,
    /// By EC2's last answer to that node.
    pub(super) free_addresses: Option<u32>,
    pub(super) role: String,
    /// Those of the node's ENIs in it.
    pub(super) counts: Counts,
    pub(super) refusals: Vec<Refusal>,
    /// When EC2 was asked, in milliseconds since the Unix epoch; `None` if it has not answered yet. It is set from the
    /// whole answer.
    #[serde(skip)]
    pub(super) described_ms: Option<u64>,
}

/// A kind of block that the subnet has refused lately.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refusal {
    pub(super) of: String,
    pub(super) code: String,
}

#[derive(Deserialize)]
struct Subnets {
    described_ms: Option<u64>,
    subnets: Vec<Subnet>,
}

/// The pool in the JSON of `ipamd status`.
pub(super) fn status(text: &str) -> anyhow::Result<Pool> {
    serde_json::from_str(text).context("read the node's status")
}

/// The subnets in the JSON of `ipamd subnets`.
pub(super) fn subnets(text: &str) -> anyhow::Result<Vec<Subnet>> {
    let Subnets { described_ms, mut subnets } =
        serde_json::from_str(text).context("read the node's subnets")?;
    subnets.iter_mut().for_each(|subnet| subnet.described_ms = described_ms);
    Ok(subnets)
}
