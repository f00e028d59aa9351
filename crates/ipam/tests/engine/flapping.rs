//! The engine does not release and request the same blocks for ever, whatever the targets are.
//!
//! `idle` shows that a pool with a constant number of pods comes to rest. Here pods come and go with a
//! random period, which may be the worst possible one.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::policy::Limits;
use proptest::prelude::*;
use proptest::sample::select;

use crate::node::{Node, Setup};
use crate::settings::{FreeBlocks, cases_of_cost, ec2, instance_limits, policies};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Blocks that are wanted again within this time were given back too soon.
const SOON: Duration = Duration::from_secs(600);
/// The most changes at EC2 (assign, unassign, create, attach, mark, detach, delete) in a day, for pods that
/// return within [`SOON`]. The first half hour does not count. 50 changes are for the time while the delay
/// of a release doubles from half a minute to an hour. Then a load may still return just after that delay,
/// and cost a whole ENI each hour.
const CHANGES_A_DAY: usize = 50 + 24 * 6;
/// The most changes in addition for each round of a slower load. It is half of what two ENIs and the blocks
/// of three ENIs cost to come and to go back.
const CHANGES_A_ROUND: usize = (2 * 5 + 3 * 2) / 2;

/// How the pods change, once every period.
#[derive(Debug, Clone, Copy)]
enum Churn {
    /// This many pods come, and in the next round this many go.
    Alternate(usize),
    /// This many pods go, and as many others come at the same time.
    Replace(usize),
}

#[derive(Debug, Clone)]
struct FlappingCase {
    limits: Limits,
    policy: Setup,
    n_pods: usize,
    churn: Churn,
    period: Duration,
}

fn cases() -> impl Strategy<Value = FlappingCase> {
    let churn = prop_oneof![
        2 => (1..4_usize).prop_map(Churn::Alternate),
        1 => (4..20_usize).prop_map(Churn::Alternate),
        1 => (1..4_usize).prop_map(Churn::Replace),
    ];
    let period = prop_oneof![
        select(vec![29, 30, 31, 59, 60, 61, 90, 119, 121, 301, 1_801, 3_601]),
        10..4_000_u64,
    ];
    let policies =
        policies(vec![BlockKind::V4Address, BlockKind::V4Prefix]).prop_map(|policy| Setup {
            // Realistic delays; only tests set them to zero.
            shrink_delay: Duration::from_secs(30),
            min_eni_age: Duration::from_secs(60),
            leak_age: None,
            ..policy
        });
    (instance_limits(), policies, 0..30_usize, churn, period).prop_map(
        |(limits, policy, n_pods, churn, seconds)| FlappingCase {
            limits,
            policy,
            n_pods,
            churn,
            period: Duration::from_secs(seconds),
        },
    )
}

/// A node and its pods. The oldest pod goes first.
struct Pods {
    node: Node,
    first: usize,
    next: usize,
}

impl Pods {
    fn come(&mut self, n: usize) {
        for _ in 0..n {
            self.node.add(self.next);
            self.next += 1;
        }
        self.node.settle();
    }

    fn go(&mut self, n: usize) {
        for _ in 0..n {
            self.node.del(self.first);
            self.first += 1;
        }
        self.node.settle();
    }

    fn churn(&mut self, churn: Churn, round: usize) {
        match churn {
            Churn::Alternate(n) if round.is_multiple_of(2) => self.come(n),
            Churn::Alternate(n) => self.go(n),
            Churn::Replace(n) => {
                let n = n.min(self.next - self.first);
                self.go(n);
                self.come(n);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases_of_cost(8))]

    #[test]
    fn pods_coming_and_going_cost_few_changes(case in cases()) {
        let ec2 = ec2(case.limits, FreeBlocks::PLENTY, None);
        let node = Node::start_with(ec2, case.limits, case.policy.clone());
        let mut pods = Pods { node, first: 0, next: 0 };
        pods.node.settle();
        pods.come(case.n_pods);
        pods.node.pass(DAY / 48);
        let before = pods.node.ec2.n_mutating();
        let (start, mut round) = (pods.node.now, 0);
        while pods.node.now < start + DAY {
            pods.churn(case.churn, round);
            pods.node.pass(case.period);
            round += 1;
        }
        let n = pods.node.ec2.n_mutating() - before;
        let slow_rounds = if case.period > SOON { round } else { 0 };
        let limit = CHANGES_A_DAY + slow_rounds * CHANGES_A_ROUND;
        prop_assert!(n <= limit, "{} changes in {} rounds", n, round);
    }
}
