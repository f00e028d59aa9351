//! What has been given back is not fetched again for ever, whatever the targets are.
//!
//! That a pool with a constant number of pods comes to rest is in `rest`. Here pods come and go with
//! a period that may be the worst there is.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::policy::Limits;
use proptest::prelude::*;
use proptest::sample::select;

use crate::node::{Node, Setup};
use crate::settings::{Left, cases_of_cost, ec2, instance_limits, policies};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// What is wanted again within this time of being given back was given back too soon.
const SOON: Duration = Duration::from_secs(600);
/// Changes at EC2 (assign, unassign, create, attach, mark, detach, delete) that a day costs at most
/// of a coming and going that is back soon, after its first half hour: while the delay of giving
/// back doubles from half a minute to an hour, and, for a load that even then is back after it,
/// once an hour a whole ENI.
const CHANGES_A_DAY: usize = 50 + 24 * 6;
/// A slower coming and going may cost so many more each time: half of what two ENIs cost on their
/// way here and back, and the blocks of three.
const CHANGES_A_ROUND: usize = (2 * 5 + 3 * 2) / 2;

/// How the pods change, once every period.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// So many more, then so many fewer.
    Alternate(usize),
    /// So many go and as many others come at once.
    Replace(usize),
}

#[derive(Debug, Clone)]
struct Scene {
    limits: Limits,
    policy: Setup,
    n_pods: usize,
    turn: Turn,
    period: Duration,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let turn = prop_oneof![
        2 => (1..4_usize).prop_map(Turn::Alternate),
        1 => (4..20_usize).prop_map(Turn::Alternate),
        1 => (1..4_usize).prop_map(Turn::Replace),
    ];
    let period = prop_oneof![
        select(vec![29, 30, 31, 59, 60, 61, 90, 119, 121, 301, 1_801, 3_601]),
        10..4_000_u64,
    ];
    let policies =
        policies(vec![BlockKind::V4Address, BlockKind::V4Prefix]).prop_map(|policy| Setup {
            // The delays that are in use; only tests blocks for none.
            shrink_delay: Duration::from_secs(30),
            min_eni_age: Duration::from_secs(60),
            leak_age: None,
            ..policy
        });
    (instance_limits(), policies, 0..30_usize, turn, period).prop_map(
        |(limits, policy, n_pods, turn, seconds)| Scene {
            limits,
            policy,
            n_pods,
            turn,
            period: Duration::from_secs(seconds),
        },
    )
}

/// The pods of a node; the oldest goes first.
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

    fn turn(&mut self, turn: Turn, round: usize) {
        match turn {
            Turn::Alternate(n) if round.is_multiple_of(2) => self.come(n),
            Turn::Alternate(n) => self.go(n),
            Turn::Replace(n) => {
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
    fn pods_coming_and_going_cost_few_changes(scene in scenes()) {
        let ec2 = ec2(scene.limits, Left::PLENTY, None);
        let node = Node::start_with(ec2, scene.limits, scene.policy.clone());
        let mut pods = Pods { node, first: 0, next: 0 };
        pods.node.settle();
        pods.come(scene.n_pods);
        pods.node.pass(DAY / 48);
        let before = pods.node.ec2.n_mutating();
        let (start, mut round) = (pods.node.now, 0);
        while pods.node.now < start + DAY {
            pods.turn(scene.turn, round);
            pods.node.pass(scene.period);
            round += 1;
        }
        let n = pods.node.ec2.n_mutating() - before;
        let slow_rounds = if scene.period > SOON { round } else { 0 };
        let most = CHANGES_A_DAY + slow_rounds * CHANGES_A_ROUND;
        prop_assert!(n <= most, "{} changes in {} rounds", n, round);
    }
}
