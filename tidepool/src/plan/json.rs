//! The plan as JSON. Scripts rely on the keys: keys are added, never renamed or removed. Lists are
//! ordered by ENI, the primary first, and within an ENI the fullest first.

use std::collections::BTreeMap;

use ipam::block::BlockKind;
use ipam::forecast::EniForecast;
use serde::Serialize;

use super::Planned;

#[derive(Serialize)]
struct Plan<'a> {
    instance_type: &'a str,
    /// `secondary-ip`, `prefix` or `ipv6`.
    mode: &'static str,
    /// The value of `--pods`.
    pods: u32,
    max_pods: u32,
    enis: usize,
    pods_per_eni: Vec<usize>,
    #[serde(flatten)]
    supply: Supply,
    unused_ips: u64,
    /// The most at any moment while the pods are added to an empty node.
    peak_unused_ips: u64,
    unplaced_pods: u32,
    /// The code that these pods fail with; null if all fit.
    unplaced_code: Option<&'static str>,
    /// By action, from an empty node. An action that is never called is left out.
    ec2_calls: BTreeMap<&'static str, u32>,
    warnings: &'a [String],
}

#[derive(Serialize)]
#[serde(untagged)]
enum Supply {
    Prefixes {
        attached_prefixes: usize,
        pods_per_prefix: Vec<usize>,
        unused_prefixes: usize,
        prefixes_per_eni: Vec<usize>,
    },
    Addresses {
        attached_secondary_ips: usize,
        ips_per_eni: Vec<usize>,
    },
}

/// The plan on one line.
pub(super) fn render(planned: &Planned<'_>) -> serde_json::Result<String> {
    let Planned { instance_type, n_pods, limits: _, policy, forecast, warnings } = planned;
    let kind = policy.families.policy().kind;
    let unplaced = forecast.unplaced.as_ref();
    let plan = Plan {
        instance_type,
        mode: kind.mode(),
        pods: *n_pods,
        max_pods: policy.max_pods,
        enis: forecast.enis.len(),
        pods_per_eni: forecast.enis.iter().map(EniForecast::n_pods).collect(),
        supply: supply(kind, &forecast.enis),
        unused_ips: forecast.n_unused(),
        peak_unused_ips: forecast.peak_unused,
        unplaced_pods: unplaced.map_or(0, |unplaced| unplaced.n_pods),
        unplaced_code: unplaced.map(|unplaced| unplaced.refusal.code.as_str()),
        ec2_calls: forecast.calls.iter().map(|(action, n)| (action.as_str(), *n)).collect(),
        warnings,
    };
    Ok(serde_json::to_string(&plan)? + "\n")
}

fn supply(kind: BlockKind, enis: &[EniForecast]) -> Supply {
    let per_eni: Vec<_> = enis.iter().map(EniForecast::n_blocks).collect();
    let n_blocks = per_eni.iter().sum();
    match kind {
        BlockKind::V4Address => {
            Supply::Addresses { attached_secondary_ips: n_blocks, ips_per_eni: per_eni }
        }
        BlockKind::V4Prefix | BlockKind::V6Prefix => {
            let pods: Vec<_> = enis.iter().flat_map(|eni| &eni.pods_per_block).copied().collect();
            Supply::Prefixes {
                attached_prefixes: n_blocks,
                unused_prefixes: pods.iter().filter(|n| **n == 0).count(),
                pods_per_prefix: pods,
                prefixes_per_eni: per_eni,
            }
        }
    }
}
