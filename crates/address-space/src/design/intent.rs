//! What somebody wants: pools by Region, environment and team, VPCs, clusters, and ranges that others have.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde::Deserialize;

/// A plan as its author writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The ranges to plan in.
    pub space: Vec<Ipv4Net>,
    /// Ranges that nobody gets.
    #[serde(default)]
    pub reserved: Vec<NamedRange>,
    /// Ranges of data centres and offices, which VPCs have to reach.
    #[serde(default)]
    pub on_premises: Vec<NamedRange>,
    /// For how many years subnets have to last.
    #[serde(default = "three")]
    pub horizon_years: u32,
    /// What to lay out.
    pub pools: Vec<Pool>,
}

fn three() -> u32 {
    3
}

/// A range with its purpose.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedRange {
    /// The range.
    pub cidr: Ipv4Net,
    /// What it is for.
    #[serde(default)]
    pub why: String,
}

/// Address space of one Region, and of an environment or a team there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name, unique in the plan.
    pub name: String,
    /// Its Region.
    pub region: String,
    /// For example `prod`.
    #[serde(default)]
    pub environment: Option<String>,
    /// Who it is for.
    #[serde(default)]
    pub team: Option<String>,
    /// Its range, if it is decided.
    #[serde(default)]
    pub cidr: Option<Ipv4Net>,
    /// Its size, if it is to be larger than its VPCs need.
    #[serde(default)]
    pub size: Option<Netmask>,
    /// Its VPCs.
    #[serde(default)]
    pub vpcs: Vec<Vpc>,
}

/// A VPC of a [`Pool`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// Its name, unique in its pool.
    pub name: String,
    /// Its range, if it is decided.
    #[serde(default)]
    pub cidr: Option<Ipv4Net>,
    /// Its size, if it is to be larger than its subnets need.
    #[serde(default)]
    pub size: Option<Netmask>,
    /// The letters of its zones. Each cluster has a subnet in each.
    pub zones: Vec<String>,
    /// Its clusters.
    #[serde(default)]
    pub clusters: Vec<Cluster>,
}

/// A cluster of a [`Vpc`]. Nodes are spread over the zones.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name, unique in its VPC.
    pub name: String,
    /// The type of its nodes.
    pub instance_type: String,
    /// Its nodes today.
    pub nodes: u64,
    /// Pods with an address of their own on each node.
    pub pods_per_node: u32,
    /// The family of pods' addresses.
    #[serde(default)]
    pub family: Family,
    /// Settings of the daemon, such as `WARM_IP_TARGET`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// By how much the number of nodes grows in a year.
    #[serde(default)]
    pub growth_percent: u64,
    /// Nodes that run beside the others of a zone while these are replaced.
    #[serde(default = "one")]
    pub surge: u64,
    /// Addresses of each subnet for load balancers, endpoints and others.
    #[serde(default = "twenty")]
    pub other_addresses: u64,
    /// The size of its subnets, if it is decided.
    #[serde(default)]
    pub subnet_size: Option<Netmask>,
}

fn one() -> u64 {
    1
}

fn twenty() -> u64 {
    20
}

/// An address family of pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    #[default]
    Ipv4,
    /// IPv6, which takes no IPv4 address for a pod.
    Ipv6,
}

/// A size, written `/20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Netmask(u8);

impl Netmask {
    /// The number of bits, at most 28.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }
}

impl TryFrom<String> for Netmask {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bits = text.strip_prefix('/').and_then(|bits| bits.parse().ok());
        let bits = bits.filter(|bits| (4..=28).contains(bits));
        bits.map(Self).ok_or_else(|| format!("{text:?} is no size from /4 to /28"))
    }
}

impl Intent {
    /// What is wrong with the names, one sentence each. Names become those of resources and parts of commands.
    pub(super) fn bad_names(&self) -> Vec<(String, String)> {
        let mut bad = vec![];
        let mut check = |kind: &str, name: &str, seen: &mut BTreeSet<String>| {
            let is_good = name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.len() <= 40
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            if !is_good {
                let what = format!(
                    "the {kind} has a name that is not a letter and up to 39 letters, digits and dashes"
                );
                bad.push((name.chars().take(60).collect(), what));
            }
            if !seen.insert(name.to_owned()) {
                bad.push((name.to_owned(), format!("two {kind}s have this name")));
            }
        };
        let mut pools = BTreeSet::new();
        for pool in &self.pools {
            check("pool", &pool.name, &mut pools);
            check("Region", &pool.region, &mut BTreeSet::new());
            for text in [&pool.environment, &pool.team].into_iter().flatten() {
                check("environment or team", text, &mut BTreeSet::new());
            }
            let mut vpcs = BTreeSet::new();
            for vpc in &pool.vpcs {
                check("VPC", &vpc.name, &mut vpcs);
                let mut zones = BTreeSet::new();
                vpc.zones.iter().for_each(|zone| check("zone", zone, &mut zones));
                let mut clusters = BTreeSet::new();
                vpc.clusters.iter().for_each(|one| check("cluster", &one.name, &mut clusters));
            }
        }
        bad
    }
}
