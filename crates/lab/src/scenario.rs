//! The scenarios: loads that show the quality of a pool, each under several policies.

use std::time::Duration;

use ec2_model::config::AddressChoice;
use ipam::block::BlockKind;
use ipam::policy::{
    Families, FamilyPolicy, Placement, Policy, Provisioning, Targets, Timing, WarmSettings,
};
use ipnet::Ipv4Net;

use crate::run::{PodStart, Setup};
use crate::spec::{NodeSpec, Subnet, VpcSpec};
use crate::trace::{self, Trace, TraceAction, TraceStep};

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
const ALL_RULES: &[Rule] = &[WARM_ENI, WARM_IP, WARM_PREFIX];

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "burst",
        about: "500 nodes from 0 to 23,000 pods at once",
        policies: &[WARM_ENI, WARM_PREFIX],
        build: burst,
    },
    Scenario {
        name: "join",
        about: "150 nodes join together, with 3,000 pods that wait for them",
        policies: &[WARM_ENI, WARM_PREFIX],
        build: join,
    },
    Scenario {
        name: "day",
        about: "one pod per second for a day on one node",
        policies: ALL_RULES,
        build: day,
    },
    Scenario {
        name: "fragmented",
        about: "300 pods on 10 nodes in a subnet with no free /28",
        policies: &[WARM_PREFIX],
        build: fragmented,
    },
    Scenario {
        name: "dry",
        about: "a subnet that others use up just before 150 pods come, and leave ten minutes later",
        policies: ALL_RULES,
        build: dry,
    },
    Scenario {
        name: "churn",
        about: "400 pods that stay on 20 nodes, and one more per second for two minutes each",
        policies: ALL_RULES,
        build: churn,
    },
    Scenario {
        name: "mixed",
        about: "churn on 12 nodes of three types in turn; the small ones are soon full",
        policies: ALL_RULES,
        build: mixed,
    },
    Scenario {
        name: "batch",
        about: "a job of 400 pods every ten minutes on 20 nodes",
        policies: ALL_RULES,
        build: batch,
    },
    Scenario {
        name: "rolling",
        about: "500 pods on 20 nodes are replaced four times, a quarter at a time",
        policies: ALL_RULES,
        build: rolling,
    },
    Scenario {
        name: "scale-in",
        about: "of 600 pods on 20 nodes 500 go",
        policies: ALL_RULES,
        build: scale_in,
    },
    Scenario {
        name: "replacement",
        about: "400 pods on 20 nodes; half of the nodes are replaced one by one",
        policies: ALL_RULES,
        build: replacement,
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

fn net(text: &str) -> Ipv4Net {
    text.parse().expect("it is written out in this file")
}

fn burst(size: Size) -> Shape {
    let (nodes, pods, minutes) = size.pick((500, 23_000, 30), (50, 2_300, 5));
    Shape::new(VpcSpec::wide(), nodes, trace::burst(pods), minutes * MINUTE)
}

fn join(size: Size) -> Shape {
    let (nodes, pods, minutes) = size.pick((150, 3_000, 30), (30, 600, 10));
    Shape::new(VpcSpec::wide(), 0, trace::joining(nodes, pods), minutes * MINUTE)
}

fn day(size: Size) -> Shape {
    let span = size.pick(24 * 60, 15) * MINUTE;
    let second = Duration::from_secs(1);
    let trace = trace::one_per(second, span, 30 * second);
    Shape { types: &[XLARGE_4], ..Shape::new(VpcSpec::wide(), 1, trace, span + 10 * MINUTE) }
}

fn fragmented(size: Size) -> Shape {
    let (nodes, pods) = size.pick((10, 300), (5, 150));
    let subnet = Subnet::fragmented(net("10.0.0.0/20"), 16);
    Shape::new(VpcSpec::realistic(vec![subnet]), nodes, trace::burst(pods), 20 * MINUTE)
}

fn dry(_: Size) -> Shape {
    let vpc = VpcSpec {
        // A nearly full subnet with random addresses has no free /28 except by luck.
        address_choice: AddressChoice::LowestFirst,
        ..VpcSpec::realistic(vec![Subnet::for_nodes(net("10.0.0.0/23"))])
    };
    let step = |at, action| TraceStep { at, action };
    let trace = vec![
        step(Duration::ZERO, TraceAction::Occupy { subnet: 0, addresses: 512 }),
        step(Duration::from_secs(1), TraceAction::Create { pods: 150, life: None }),
        step(10 * MINUTE, TraceAction::Vacate { subnet: 0 }),
    ];
    Shape::new(vpc, 4, trace, 20 * MINUTE)
}

fn churn(size: Size) -> Shape {
    let (nodes, standing, gap, minutes) = size.pick((20, 400, 1, 120), (5, 100, 4, 20));
    let gap = Duration::from_secs(gap);
    let trace = trace::churn(standing, gap, 2 * MINUTE, minutes * MINUTE, SEED);
    Shape::new(VpcSpec::wide(), nodes, trace, minutes * MINUTE)
}

fn mixed(size: Size) -> Shape {
    let types = &[LARGE, XLARGE, XLARGE_4];
    Shape { types, nodes: size.pick(12, 3), ..churn(size) }
}

fn batch(size: Size) -> Shape {
    let (nodes, pods, minutes) = size.pick((20, 400, 120), (5, 100, 30));
    let span = minutes * MINUTE;
    let trace = trace::batch_jobs(pods, 2 * MINUTE, 10 * MINUTE, span, SEED);
    Shape::new(VpcSpec::wide(), nodes, trace, span)
}

fn rolling(size: Size) -> Shape {
    let (nodes, pods, times) = size.pick((20, 500, 4), (5, 125, 2));
    let trace = trace::rolling_deployment(pods, 15 * MINUTE, times);
    Shape::new(VpcSpec::wide(), nodes, trace, 15 * MINUTE * (times + 1))
}

fn scale_in(size: Size) -> Shape {
    let (nodes, pods, left) = size.pick((20, 600, 100), (5, 150, 25));
    let trace = trace::scale_in(pods, left, 15 * MINUTE);
    Shape::new(VpcSpec::wide(), nodes, trace, 45 * MINUTE)
}

fn replacement(size: Size) -> Shape {
    let (nodes, pods, replaced) = size.pick((20, 400, 10), (5, 100, 3));
    let trace = trace::node_replacement(pods, replaced, 5 * MINUTE);
    Shape::new(VpcSpec::wide(), nodes, trace, 5 * MINUTE * (replaced + 2))
}
