//! What a node will hold. A forecast runs the real engine to rest against an EC2 that grants everything.
//!
//! It has no formula of its own. It shows what the engine does on a node with a large subnet whose calls
//! succeed.

mod ec2;
mod run;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use self::run::Run;
use crate::call::Action;
use crate::event::{Refusal, RefusalCode};
use crate::plan::full_of_pods;
use crate::policy::{Limits, Policy};
use crate::view::EniView;

/// A node at rest, and the calls that led there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// The ENIs, by device index; the primary is the first.
    pub enis: Vec<EniForecast>,
    /// The most addresses without a pod at one time, seen while the pool was at rest between two pods.
    pub peak_unused: u64,
    /// How often each action was called since the start of the daemon on an empty node. Actions that were
    /// never called are left out.
    pub calls: BTreeMap<Action, u32>,
    /// The pods that got no address; `None` if all of them fit.
    pub unplaced: Option<Unplaced>,
}

/// One ENI of a [`Forecast`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniForecast {
    /// How many pods each of its prefixes or single addresses serves, the fullest first.
    pub pods_per_block: Vec<usize>,
    /// Its addresses without a pod.
    pub n_unused: u64,
}

/// Pods that do not fit on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// Their number, at least one.
    pub n_pods: u32,
    /// The refusal that the first of them got.
    pub refusal: Refusal,
}

/// Starts the daemon on an instance with only its primary ENI and adds `n_pods` pods one by one. The pool
/// settles after each. Then time passes until nothing more goes back. Subnets are never short, no call fails
/// or takes time, and pods are patient, whatever `policy.timing.add_wait` is. `policy` has one family.
///
/// The same arguments give the same answer. Cost: that of running as many pods as fit.
#[must_use]
pub fn forecast(limits: Limits, policy: Policy, n_pods: u32) -> Forecast {
    let max_pods = policy.max_pods;
    let mut run = Run::start(limits, policy);
    let mut peak_unused = run.n_unused();
    let mut unplaced = None;
    for n_placed in 0..n_pods {
        // A pool may hold more addresses, above all with prefixes, but kubelet starts no more pods.
        let placed =
            if n_placed < max_pods { run.add_pod(n_placed) } else { Err(beyond(max_pods)) };
        if let Err(refusal) = placed {
            // No pod goes, so later pods get no address either.
            unplaced = Some(Unplaced { n_pods: n_pods - n_placed, refusal });
            break;
        }
        peak_unused = peak_unused.max(run.n_unused());
    }
    run.rest();
    Forecast {
        enis: run.view().enis.iter().map(EniForecast::of).collect(),
        peak_unused,
        calls: run.into_calls(),
        unplaced,
    }
}

fn beyond(max_pods: u32) -> Refusal {
    let (code, message) = (RefusalCode::MaxPods, full_of_pods(max_pods.into()));
    Refusal { code, message, retry_after: None }
}

impl Forecast {
    /// The addresses without a pod on all ENIs together.
    #[must_use]
    pub fn n_unused(&self) -> u64 {
        self.enis.iter().map(|eni| eni.n_unused).sum()
    }
}

impl EniForecast {
    fn of(eni: &EniView) -> Self {
        let mut pods_per_block: Vec<_> =
            eni.blocks.values().map(|block| block.assigned.len()).collect();
        pods_per_block.sort_by_key(|n| Reverse(*n));
        Self { pods_per_block, n_unused: eni.blocks.values().map(|block| block.free).sum() }
    }

    /// The number of its prefixes or single addresses.
    #[must_use]
    pub fn n_blocks(&self) -> usize {
        self.pods_per_block.len()
    }

    /// The number of pods that it serves.
    #[must_use]
    pub fn n_pods(&self) -> usize {
        self.pods_per_block.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::block::BlockKind;
    use crate::policy::{Families, FamilyPolicy, Placement, Targets, Timing, WarmSettings};

    /// A forecast for three ENIs with three addresses each, with all delays zero.
    fn of(
        kind: BlockKind,
        targets: Targets,
        max_enis: u16,
        max_pods: u32,
        n_pods: u32,
    ) -> Forecast {
        let limits = Limits { enis: 3, addresses_per_eni: 4, prefixes: true };
        let family = FamilyPolicy { targets, ..FamilyPolicy::new(kind, WarmSettings::default()) };
        let policy = Policy {
            families: Families::single(family),
            placement: Placement::LikePrimary,
            provisioning: crate::policy::Provisioning::Always,
            max_enis: Some(max_enis),
            max_pods,
            delegated_prefixes: None,
            connection_tracking: crate::connection_tracking::ConnectionTracking::default(),
            mtu: 9001,
            pod_ipv6: crate::record::PodIpv6::AsItIs,
            nat: crate::policy::NatPolicy::default(),
            timing: Timing {
                cooldown: Duration::ZERO,
                add_wait: Duration::ZERO,
                grow_delay: Duration::ZERO,
                shrink_delay: Duration::ZERO,
                min_eni_age: Duration::ZERO,
                leak_age: None,
            },
        };
        forecast(limits, policy, n_pods)
    }

    #[test]
    fn pods_that_do_not_fit_are_counted_with_the_cause() {
        let check = |kind, max_enis, max_pods, n_pods, expect: Option<(u32, &str)>| {
            let targets = Targets::Ip { warm: 1, minimum: 0 };
            let unplaced = of(kind, targets, max_enis, max_pods, n_pods).unplaced;
            let unplaced = unplaced.map(|u| (u.n_pods, u.refusal.code.as_str()));
            assert_eq!(unplaced, expect, "{kind:?}, {max_enis} ENIs, {max_pods} for {n_pods} pods");
        };
        check(BlockKind::V4Address, 9, 100, 9, None);
        check(BlockKind::V4Address, 9, 100, 10, Some((1, "ENI_LIMIT")));
        check(BlockKind::V4Address, 2, 100, 10, Some((4, "ENI_LIMIT")));
        check(BlockKind::V4Address, 9, 5, u32::MAX, Some((u32::MAX - 5, "MAX_PODS")));
        check(BlockKind::V4Prefix, 9, 500, 144, None);
        check(BlockKind::V4Prefix, 9, 500, 150, Some((6, "ENI_LIMIT")));
        check(BlockKind::V4Prefix, 9, 20, 40, Some((20, "MAX_PODS")));
        check(BlockKind::V6Prefix, 9, 110, 110, None);
        check(BlockKind::V6Prefix, 9, 110, 500, Some((390, "MAX_PODS")));
    }

    #[test]
    fn forecast_counts_calls_and_peak_of_the_whole_run() {
        // 3 addresses are unused at the end. After the first pod, with the second ENI, 5 were.
        let forecast = of(BlockKind::V4Address, Targets::WarmEni(1), 2, 100, 3);
        assert_eq!((forecast.n_unused(), forecast.peak_unused), (3, 5));
        let calls: Vec<_> = forecast.calls.iter().map(|(a, n)| (a.as_str(), *n)).collect();
        let expect = [
            "DescribeNetworkInterfaces",
            "DescribeSubnets",
            "CreateNetworkInterface",
            "AttachNetworkInterface",
            "ModifyNetworkInterfaceAttribute",
            "AssignPrivateIpAddresses",
        ];
        assert_eq!(calls, expect.map(|action| (action, 1)));
    }
}
