//! The scenarios: loads that show the quality of a pool, each under several policies.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::policy::{
    Families, FamilyPolicy, Placement, Policy, Provisioning, Targets, Timing, WarmSettings,
};

use crate::run::{PodStart, Setup};
use crate::spec::{NodeSpec, VpcSpec};
use crate::trace::Trace;

mod builds;

const MINUTE: Duration = Duration::from_secs(60);
const SEED: u64 = 20_261_121;

/// Real size, or a size for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// The size that [`Scenario::about`] states.
    Full,
    /// The same shape with a fraction of the nodes, pods or time.
    Small,
}

impl Size {
    fn pick<T>(self, full: T, small: T) -> T {
        match self {
            Self::Full => full,
            Self::Small => small,
        }
    }
}

/// A load on a VPC.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// The kind of blocks and the targets of each case.
    policies: &'static [Rule],
    build: fn(Size) -> Shape,
}

/// A setup without its policy.
struct Shape {
    vpc: VpcSpec,
    types: &'static [NodeType],
    nodes: u32,
    trace: Trace,
    lasts: Duration,
}

/// An instance type, and its number of pods with secondary addresses and with prefixes.
type NodeType = (&'static str, (u32, u32));

/// 3 ENIs, each with 9 addresses or prefixes.
const LARGE: NodeType = ("m5.large", (29, 110));
/// 4 ENIs, each with 14 addresses or prefixes.
const XLARGE: NodeType = ("m5.xlarge", (58, 110));
/// 8 ENIs, each with 29 addresses or prefixes.
const XLARGE_4: NodeType = ("m5.4xlarge", (234, 110));

/// A scenario under one policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The policy in a few words: `warm-eni-1`.
    pub policy: String,
    /// What to run.
    pub setup: Setup,
}

/// A policy's name, kind of blocks and targets.
type Rule = (&'static str, BlockKind, Targets);

const WARM_ENI: Rule = ("warm-eni-1", BlockKind::V4Address, Targets::WarmEni(1));
const WARM_IP: Rule = ("warm-ip-5", BlockKind::V4Address, Targets::Ip { warm: 5, minimum: 0 });
const WARM_PREFIX: Rule = ("warm-prefix-1", BlockKind::V4Prefix, Targets::WarmPrefix(1));
const WARM_IP_2: Rule = ("warm-ip-2", BlockKind::V4Address, Targets::Ip { warm: 2, minimum: 0 });
const TRICKLE_RULES: &[Rule] = &[WARM_ENI, WARM_IP_2, WARM_PREFIX];
const ALL_RULES: &[Rule] = &[WARM_ENI, WARM_IP, WARM_PREFIX];

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "burst",
        about: "500 nodes from 0 to 23,000 pods at once",
        policies: &[WARM_ENI, WARM_PREFIX],
        build: builds::burst,
    },
    Scenario {
        name: "join",
        about: "150 nodes join together, with 3,000 pods that wait for them",
        policies: &[WARM_ENI, WARM_PREFIX],
        build: builds::join,
    },
    Scenario {
        name: "day",
        about: "one pod per second for a day on one node",
        policies: ALL_RULES,
        build: builds::day,
    },
    Scenario {
        name: "fragmented",
        about: "300 pods on 10 nodes in a subnet with no free /28",
        policies: &[WARM_PREFIX],
        build: builds::fragmented,
    },
    Scenario {
        name: "dry",
        about: "a subnet that others use up just before 150 pods come, and leave ten minutes later",
        policies: ALL_RULES,
        build: builds::dry,
    },
    Scenario {
        name: "churn",
        about: "400 pods that stay on 20 nodes, and one more per second for two minutes each",
        policies: ALL_RULES,
        build: builds::churn,
    },
    Scenario {
        name: "mixed",
        about: "churn on 12 nodes of three types in turn; the small ones are soon full",
        policies: ALL_RULES,
        build: builds::mixed,
    },
    Scenario {
        name: "batch",
        about: "a job of 400 pods every ten minutes on 20 nodes",
        policies: ALL_RULES,
        build: builds::batch,
    },
    Scenario {
        name: "rolling",
        about: "500 pods on 20 nodes are replaced four times, a quarter at a time",
        policies: ALL_RULES,
        build: builds::rolling,
    },
    Scenario {
        name: "scale-in",
        about: "of 600 pods on 20 nodes 500 go",
        policies: ALL_RULES,
        build: builds::scale_in,
    },
    Scenario {
        name: "replacement",
        about: "400 pods on 20 nodes; half of the nodes are replaced one by one",
        policies: ALL_RULES,
        build: builds::replacement,
    },
    Scenario {
        name: "trickle-1",
        about: "30 pods on one node, one a second; they go ten minutes after the last has come",
        policies: TRICKLE_RULES,
        build: builds::trickle_1,
    },
    Scenario {
        name: "trickle-5",
        about: "30 pods on one node, one per 5 s; they go ten minutes after the last has come",
        policies: TRICKLE_RULES,
        build: builds::trickle_5,
    },
    Scenario {
        name: "trickle-30",
        about: "30 pods on one node, one per 30 s; they go ten minutes after the last has come",
        policies: TRICKLE_RULES,
        build: builds::trickle_30,
    },
    Scenario {
        name: "ramp",
        about: "pods of ten minutes on 20 nodes, from none to one a second in an hour, and back",
        policies: ALL_RULES,
        build: builds::ramp,
    },
    Scenario {
        name: "diurnal",
        about: "two days on 20 nodes: pods of half an hour, at noon ten times as many as at night",
        policies: ALL_RULES,
        build: builds::diurnal,
    },
    Scenario {
        name: "heavy-tail",
        about: "batches on 20 nodes whose sizes and lives have heavy tails, one per 20 s for 4 h",
        policies: ALL_RULES,
        build: builds::heavy_tail,
    },
    Scenario {
        name: "ci",
        about: "pipelines on 5 nodes: 10 jobs of some 15 s each, one pipeline per 20 s for 2 h",
        policies: ALL_RULES,
        build: builds::ci,
    },
    Scenario {
        name: "spot",
        about: "400 pods on 20 nodes; every ten minutes 3 nodes are taken, and replaced a minute later",
        policies: ALL_RULES,
        build: builds::spot,
    },
    Scenario {
        name: "autoscale",
        about: "4 times 5 nodes join for 150 pods more, then go one by one with their pods",
        policies: ALL_RULES,
        build: builds::autoscale,
    },
];

impl Scenario {
    /// The scenario of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// The scenario under each of its policies.
    #[must_use]
    pub fn cases(&self, size: Size) -> Vec<Case> {
        self.policies.iter().map(|rule| case(rule, (self.build)(size))).collect()
    }
}

fn case(&(name, kind, targets): &Rule, shape: Shape) -> Case {
    let spec = |(instance_type, max_pods): &NodeType| NodeSpec {
        instance_type: (*instance_type).to_owned(),
        policy: Policy {
            families: Families::single(FamilyPolicy {
                targets,
                ..FamilyPolicy::new(kind, WarmSettings::default())
            }),
            placement: Placement::LikePrimary,
            provisioning: Provisioning::Always,
            max_enis: None,
            max_pods: match kind {
                BlockKind::V4Address => max_pods.0,
                BlockKind::V4Prefix | BlockKind::V6Prefix => max_pods.1,
            },
            delegated_prefixes: None,
            connection_tracking: ipam::connection_tracking::ConnectionTracking::default(),
            mtu: 9001,
            pod_ipv6: ipam::record::PodIpv6::AsItIs,
            nat: ipam::policy::NatPolicy::default(),
            timing: Timing {
                cooldown: Duration::from_secs(30),
                add_wait: Duration::from_secs(60),
                grow_delay: Duration::from_millis(50),
                shrink_delay: Duration::from_secs(30),
                min_eni_age: Duration::from_secs(60),
                leak_age: None,
            },
        },
    };
    let setup = Setup {
        vpc: shape.vpc,
        node_specs: shape.types.iter().map(spec).collect(),
        nodes: shape.nodes,
        warm_up: 15 * MINUTE,
        trace: shape.trace,
        lasts: shape.lasts,
        seed: SEED,
        start: PodStart::default(),
    };
    Case { policy: name.to_owned(), setup }
}

impl Shape {
    fn new(vpc: VpcSpec, nodes: u32, trace: Trace, lasts: Duration) -> Self {
        Self { vpc, types: &[XLARGE], nodes, trace, lasts }
    }
}
