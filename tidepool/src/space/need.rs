//! What a node of a planned cluster holds: the daemon's own engine on the simulated EC2, while pods come and go.

use std::time::Duration;

use address_space::design::{Cluster, Family, NodeNeed};
use ipam::block::BlockKind;
use ipam::forecast::forecast;
use lab::spec::{NodeSpec, VpcSpec};
use lab::trace::{TraceAction, TraceStep};
use lab::{PodStart, Setup, Strategy};
use serde::Serialize;
use settings::Settings;

/// Before the trace the node starts.
const WARM_UP: Duration = Duration::from_secs(15 * 60);
const MINUTES: u32 = 120;
/// Of the pods, one in so many is replaced each minute.
const REPLACED: u32 = 10;

/// A planned cluster and its nodes, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Sized {
    pub(super) cluster: String,
    pub(super) instance_type: String,
    pub(super) pods_per_node: u32,
    /// At the 99th percentile over time.
    pub(super) single: u64,
    pub(super) prefixes: u64,
}

/// What a node holds at the 99th percentile over two hours, in which a tenth of its pods is replaced each minute. It is the
/// same for the same cluster.
///
/// # Errors
/// Why nobody can say: the type is not known, a setting is wrong, or the pods do not fit.
pub(super) fn need(cluster: &Cluster) -> Result<NodeNeed, String> {
    let Cluster { instance_type, pods_per_node, .. } = cluster;
    let limits = settings::known_limits(instance_type)
        .ok_or_else(|| format!("instance type {instance_type} is not in the built-in table"))?;
    let settings = Settings::read(&variables(cluster).into_iter().collect())
        .map_err(|fault| fault.to_string())?;
    let policy = settings::policy(&settings, limits, settings::known_vcpus(instance_type))
        .map_err(|fault| fault.to_string())?;
    let fit = limits.max_pods(&policy).saturating_sub(ipam::policy::HOST_NETWORK_PODS);
    if *pods_per_node > fit {
        return Err(format!(
            "{pods_per_node} pods do not fit on {instance_type}: at most {fit} do"
        ));
    }
    let kind = policy.families.policy().kind;
    if kind == BlockKind::V6Prefix {
        // The primary interface has one IPv4 address, and all pods share a prefix of IPv6.
        return Ok(NodeNeed { single: 1, prefixes: 0 });
    }
    let n_enis = forecast(limits, policy.clone(), *pods_per_node).enis.len();
    let node = NodeSpec { instance_type: instance_type.clone(), policy };
    let outcome = lab::run(&setup(node, *pods_per_node), Strategy::Tidepool);
    let outcome = outcome.map_err(|fault| format!("simulate a node: {fault}"))?;
    let mut held: Vec<u64> = outcome.score.samples.iter().map(|sample| sample.held).collect();
    held.sort_unstable();
    let held = held.get(held.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
    let n_enis = outcome.blocks.iter().map(Vec::len).max().unwrap_or_default().max(n_enis) as u64;
    Ok(match kind {
        BlockKind::V4Prefix if limits.prefixes => {
            NodeNeed { single: n_enis, prefixes: held.div_ceil(16) }
        }
        BlockKind::V4Prefix | BlockKind::V4Address | BlockKind::V6Prefix => {
            NodeNeed { single: n_enis + held, prefixes: 0 }
        }
    })
}

/// The settings as the daemon reads them.
fn variables(cluster: &Cluster) -> std::collections::BTreeMap<String, String> {
    let mut variables = cluster.settings.clone();
    if cluster.family == Family::Ipv6 {
        for name in ["ENABLE_IPv6", "ENABLE_PREFIX_DELEGATION"] {
            variables.insert(name.to_owned(), "true".to_owned());
        }
    }
    variables
}

/// One node with all its pods from the beginning.
fn setup(node: NodeSpec, pods: u32) -> Setup {
    let step = |minute: u32, action| TraceStep { at: Duration::from_secs(60) * minute, action };
    let mut trace = vec![step(0, TraceAction::Create { pods, life: None })];
    let replaced = pods.div_ceil(REPLACED);
    for minute in 5..MINUTES {
        trace.push(step(minute, TraceAction::Delete { pods: replaced }));
        trace.push(step(minute, TraceAction::Create { pods: replaced, life: None }));
    }
    Setup {
        vpc: VpcSpec::wide(),
        node_specs: vec![node],
        nodes: 1,
        warm_up: WARM_UP,
        trace,
        lasts: Duration::from_secs(60) * MINUTES,
        seed: 1,
        start: PodStart::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_needs_what_it_holds_under_churn() {
        let check = |kind: &str,
                     pods: u32,
                     settings: &str,
                     family: &str,
                     expect: Result<(u64, u64), &str>| {
            let text = format!(
                "{{name: c, instance_type: {kind}, nodes: 1, pods_per_node: {pods}, family: {family}, settings: {{{settings}}}}}"
            );
            let cluster: Cluster = serde_saphyr::from_str(&text).unwrap();
            match (need(&cluster), expect) {
                (Ok(need), Ok(expect)) => {
                    assert_eq!((need.single, need.prefixes), expect, "{text}")
                }
                (Err(fault), Err(expect)) => assert!(fault.contains(expect), "{text}: {fault}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        };
        check("m5.large", 9, "WARM_IP_TARGET: '2'", "ipv4", Ok((14, 0)));
        check("m5.large", 20, "ENABLE_PREFIX_DELEGATION: 'true'", "ipv4", Ok((1, 3)));
        check("m5.large", 20, "", "ipv6", Ok((1, 0)));
        check("m5.large", 28, "", "ipv4", Err("28 pods do not fit on m5.large: at most 27 do"));
        check("t2.medium", 3, "", "ipv6", Err("no prefixes"));
        check("m5.larg", 3, "", "ipv4", Err("not in the built-in table"));
        check("m5.large", 3, "WARM_IP_TARGET: many", "ipv4", Err("WARM_IP_TARGET=\"many\""));
    }
}
