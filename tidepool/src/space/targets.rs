//! What other targets would make nodes hold, by the daemon's own engine.

use std::collections::BTreeMap;

use address_space::Node;
use ipam::block::BlockKind;
use ipam::forecast::forecast;
use serde::Serialize;
use settings::Settings;

/// Targets that are compared, as settings. The empty list is what amazon-vpc-cni-k8s does by default.
const CANDIDATES: &[&[(&str, &str)]] = &[
    &[],
    &[("WARM_IP_TARGET", "5")],
    &[("WARM_IP_TARGET", "2")],
    &[("ENABLE_PREFIX_DELEGATION", "true")],
    &[("ENABLE_PREFIX_DELEGATION", "true"), ("WARM_IP_TARGET", "5")],
    &[("ENABLE_PREFIX_DELEGATION", "true"), ("ENABLE_IPv6", "true")],
];

/// IPv4 addresses that nodes hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Held {
    /// Primary addresses of interfaces.
    pub(crate) own: u64,
    /// Secondary addresses.
    pub(crate) single: u64,
    /// Prefixes of sixteen addresses.
    pub(crate) prefixes: u64,
    /// IPv6 prefixes, which take no IPv4 address.
    pub(crate) ipv6_prefixes: u64,
}

impl Held {
    /// All IPv4 addresses.
    pub(crate) fn addresses(self) -> u64 {
        self.own + self.single + 16 * self.prefixes
    }

    pub(crate) fn add(&mut self, other: Self) {
        let Self { own, single, prefixes, ipv6_prefixes } = other;
        self.own += own;
        self.single += single;
        self.prefixes += prefixes;
        self.ipv6_prefixes += ipv6_prefixes;
    }

    /// What a node holds now.
    pub(crate) fn of(node: &Node) -> Self {
        let Node { own, single, prefixes, ipv6_prefixes, .. } = *node;
        Self { own, single, prefixes, ipv6_prefixes }
    }
}

/// A cluster with one choice of targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct WhatIf {
    pub(crate) cluster: String,
    /// The settings, or `now`.
    pub(crate) targets: String,
    /// Nodes whose type and number of pods are known.
    pub(crate) nodes: u64,
    pub(crate) held: Held,
    /// Pods that would get no address.
    pub(crate) unplaced_pods: u64,
}

/// For each cluster: what its nodes hold now, and what they would hold at rest with each of the targets. Nodes of unknown
/// types, or with an unknown number of pods, are left out of both.
pub(crate) fn what_if(nodes: &[Node]) -> Vec<WhatIf> {
    let mut forecasts = Forecasts::default();
    let mut clusters: BTreeMap<&str, Vec<(&Node, u32)>> = BTreeMap::new();
    for node in nodes {
        let pods = node.pods.and_then(|pods| u32::try_from(pods).ok());
        if let Some(pods) = pods.filter(|_| settings::known_limits(&node.instance_type).is_some()) {
            clusters.entry(&node.cluster).or_default().push((node, pods));
        }
    }
    let mut rows = vec![];
    for (cluster, nodes) in clusters {
        let mut now = WhatIf {
            cluster: cluster.to_owned(),
            targets: "now".to_owned(),
            nodes: nodes.len() as u64,
            held: Held::default(),
            unplaced_pods: 0,
        };
        nodes.iter().for_each(|(node, _)| now.held.add(Held::of(node)));
        let each = CANDIDATES.iter().map(|candidate| {
            let mut row = WhatIf { targets: text(candidate), held: Held::default(), ..now.clone() };
            for (node, pods) in &nodes {
                let (held, unplaced) = forecasts.of(&node.instance_type, *pods, candidate);
                row.held.add(held);
                row.unplaced_pods += unplaced;
            }
            row
        });
        let each: Vec<_> = each.collect();
        rows.push(now);
        rows.extend(each);
    }
    rows
}

fn text(candidate: &[(&str, &str)]) -> String {
    if candidate.is_empty() {
        return "WARM_ENI_TARGET=1 (default)".to_owned();
    }
    let pairs = candidate.iter().map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join(" ")
}

type Question<'a> = (String, u32, &'a [(&'a str, &'a str)]);

/// Nodes are alike, so few forecasts serve many.
#[derive(Default)]
struct Forecasts<'a>(BTreeMap<Question<'a>, (Held, u64)>);

impl<'a> Forecasts<'a> {
    /// What a node with these pods holds at rest, and the pods that do not fit.
    fn of(&mut self, kind: &str, pods: u32, given: &'a [(&'a str, &'a str)]) -> (Held, u64) {
        let key = (kind.to_owned(), pods, given);
        let answer = self.0.entry(key);
        *answer.or_insert_with(|| {
            held(kind, pods, given).unwrap_or_else(|| (Held::default(), pods.into()))
        })
    }
}

/// `None` if the type is not known, or takes no such settings.
pub(crate) fn held(kind: &str, pods: u32, given: &[(&str, &str)]) -> Option<(Held, u64)> {
    let variables = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings = Settings::read(&variables.collect()).ok()?;
    let limits = settings::known_limits(kind)?;
    let policy = settings::policy(&settings, limits, settings::known_vcpus(kind)).ok()?;
    let blocks = policy.families.policy().kind;
    // A type without prefixes takes single addresses instead.
    let blocks = if blocks == BlockKind::V4Prefix && !limits.prefixes {
        BlockKind::V4Address
    } else {
        blocks
    };
    let forecast = forecast(limits, policy, pods);
    let n = forecast.enis.iter().map(|eni| eni.n_blocks() as u64).sum();
    let own = forecast.enis.len() as u64;
    let held = Held { own, ..Held::default() };
    let held = match blocks {
        BlockKind::V4Address => Held { single: n, ..held },
        BlockKind::V4Prefix => Held { prefixes: n, ..held },
        BlockKind::V6Prefix => Held { ipv6_prefixes: n, ..held },
    };
    Some((held, forecast.unplaced.map_or(0, |unplaced| unplaced.n_pods.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_holds_what_the_engine_forecasts() {
        let check = |kind, pods, given: &[(&str, &str)], expect| {
            let found = held(kind, pods, given)
                .map(|(held, left)| (held.own, held.single, held.prefixes, left));
            assert_eq!(found, expect, "{kind} {pods} {given:?}");
        };
        check("m5.large", 5, CANDIDATES[0], Some((2, 18, 0, 0)));
        check("m5.large", 5, CANDIDATES[2], Some((1, 7, 0, 0)));
        check("m5.large", 30, CANDIDATES[2], Some((3, 27, 0, 3)));
        check("m5.large", 5, CANDIDATES[3], Some((1, 0, 2, 0)));
        check("m5.large", 5, CANDIDATES[5], Some((1, 0, 0, 0)));
        // It takes no prefixes.
        check("t2.medium", 3, CANDIDATES[3], Some((2, 10, 0, 0)));
        check("t2.medium", 3, CANDIDATES[5], None);
        check("kangaroo", 3, CANDIDATES[0], None);
    }
}
