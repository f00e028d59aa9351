//! Pods that are bound to the node and have not asked yet: their addresses are here when they ask, and whatever the API
//! server says, the targets hold.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::Action;
use ipam::event::{Event, LinkState};
use ipam::id::Pod;
use ipam::policy::{Limits, Targets, WarmSettings};
use proptest::prelude::*;

use crate::node::{Node, Setup, limits, policy, warm_ip};
use crate::settings::cases_of_cost;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The pod that [`Node::add`] adds by the same number.
fn named(pod: usize) -> Pod {
    Pod { name: format!("pod-{pod}"), ..Pod::default() }
}

fn expect(node: &mut Node, pods: impl IntoIterator<Item = usize>) {
    node.send(Event::PodsExpected(pods.into_iter().map(named).collect()));
}

fn free(node: &Node) -> u64 {
    node.counts().free
}

#[test]
fn addresses_are_here_before_the_pods_ask() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(1, 0));
    assert_eq!(free(&node), 1);
    expect(&mut node, 0..5);
    assert_eq!(node.counts().expected, 5);
    node.pass(secs(1));
    assert_eq!(free(&node), 6, "one for each pod, and the target");
    let n_calls = node.ec2.calls.len();
    let requests: Vec<_> = (0..5).map(|pod| node.add(pod)).collect();
    node.save_all();
    for request in requests {
        node.granted(request);
    }
    assert_eq!((node.counts().expected, free(&node)), (0, 1));
    node.pass(secs(300));
    let mutating = node.ec2.calls[n_calls..].iter().filter(|call| call.action() == Action::Assign);
    assert_eq!(mutating.count(), 0, "the pods have used what came for them");
}

/// Their image cannot be pulled, or their volume cannot be attached.
#[test]
fn pods_that_never_start_count_once() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(1, 0));
    expect(&mut node, 0..5);
    node.pass(secs(59));
    assert_eq!((node.counts().expected, free(&node)), (5, 6));
    node.pass(secs(2));
    assert_eq!((node.counts().expected, free(&node)), (0, 6), "they are free stock now");
    node.pass(secs(60));
    assert_eq!(free(&node), 1, "which goes back as any surplus");
    // The API server goes on to name them, and one more.
    let n_calls = node.ec2.calls.len();
    expect(&mut node, 0..5);
    node.pass(secs(3600));
    assert_eq!(free(&node), 1);
    let grown = node.ec2.calls[n_calls..].iter().any(|call| call.action() == Action::Assign);
    assert!(!grown, "they count again");
    expect(&mut node, 0..6);
    assert_eq!(node.counts().expected, 1);
}

#[test]
fn pod_with_an_address_or_a_request_does_not_count() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(1, 0));
    node.run_pod(0);
    node.pass(secs(1));
    node.add(1);
    node.add(2);
    expect(&mut node, 0..4);
    assert_eq!(node.counts().expected, 1);
    // A runtime that names no uid means the same pod. Another uid is another pod, as that of a StatefulSet.
    let with_uid = |n: usize, uid: &str| Pod { uid: uid.to_owned(), ..named(n) };
    node.send(Event::PodsExpected(BTreeSet::from([with_uid(0, "a")])));
    assert_eq!(node.counts().expected, 0);
    node.send(Event::PodsExpected(BTreeSet::from([Pod {
        namespace: "another".to_owned(),
        ..named(0)
    }])));
    assert_eq!(node.counts().expected, 1);
}

#[test]
fn no_more_pods_count_than_the_node_may_have() {
    let setup = Setup { max_pods: 4, ..warm_ip(1, 0) };
    let mut node = Node::settled(limits("m5.large"), setup);
    node.run_pod(0);
    expect(&mut node, 0..900);
    node.pass(secs(1));
    assert_eq!(node.counts().total, 5, "for the four, and the target");
    assert!(node.view().blocked.is_empty(), "{:?}", node.view().blocked);
    let requests: Vec<_> = (1..4).map(|pod| node.add(pod)).collect();
    node.save_all();
    for request in requests {
        node.granted(request);
    }
}

/// Pods that are about to start take nothing from one that waits: it is not told that there are too few addresses.
#[test]
fn pod_that_waits_comes_before_those_that_are_about_to_start() {
    let setup = Setup { max_enis: Some(1), ..warm_ip(1, 0) };
    let mut node = Node::settled(limits("m5.large"), setup);
    for pod in 0..8 {
        node.run_pod(pod);
    }
    expect(&mut node, 20..60);
    let request = node.add(8);
    node.pass(secs(1));
    node.granted(request);
    let late = node.add(9);
    node.settle();
    assert!(!node.refused(late).message.is_empty());
}

/// In a pool of prefixes, the free addresses of prefixes that pods use serve first.
#[test]
fn whole_prefixes_are_asked_for_only_if_they_are_needed() {
    let settings = WarmSettings { warm_prefix: 1, ..WarmSettings::default() };
    let setup = Setup { targets: Targets::WarmPrefix(1), ..policy(BlockKind::V4Prefix, settings) };
    let mut node = Node::settled(limits("m5.large"), setup);
    node.run_pod(0);
    node.pass(secs(3600));
    assert_eq!((node.counts().prefixes, free(&node)), (2, 31));
    expect(&mut node, 1..16);
    node.pass(secs(1));
    assert_eq!(node.counts().prefixes, 2, "15 are free beside the idle prefix");
    expect(&mut node, 1..17);
    node.pass(secs(1));
    assert_eq!(node.counts().prefixes, 3);
}

#[derive(Debug, Clone)]
enum NewsStep {
    /// The API server names these pods, whether or not it is true.
    News(BTreeSet<usize>),
    Add(usize),
    Del(usize),
    Pass(u64),
}

const PODS: usize = 40;

fn news_steps() -> impl Strategy<Value = Vec<NewsStep>> {
    let step = prop_oneof![
        3 => prop::collection::btree_set(0..PODS, 0..20).prop_map(NewsStep::News),
        4 => (0..PODS).prop_map(NewsStep::Add),
        3 => (0..PODS).prop_map(NewsStep::Del),
        3 => prop_oneof![1..1_000_u64, 1_000..90_000_u64].prop_map(NewsStep::Pass),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(cases_of_cost(2))]

    /// An API server that lies, lags or has died: the pool never has fewer free addresses than the targets want, and
    /// no more in the end, though the last news stay as they are.
    #[test]
    fn targets_hold_whatever_the_api_server_says(
        warm in 1..9_u32,
        minimum in 0..30_u32,
        steps in news_steps(),
    ) {
        let setup = Setup { cooldown: secs(5), ..warm_ip(warm, minimum) };
        let mut node = Node::settled(limits("p3dn.24xlarge"), setup);
        let mut live = BTreeSet::new();
        for step in steps {
            match step {
                NewsStep::News(pods) => expect(&mut node, pods),
                NewsStep::Add(pod) => {
                    let request = node.add(pod);
                    node.settle();
                    node.granted(request);
                    live.insert(pod);
                }
                NewsStep::Del(pod) => {
                    node.del(pod);
                    live.remove(&pod);
                }
                NewsStep::Pass(ms) => node.pass(Duration::from_millis(ms)),
            }
            node.settle();
            let counts = node.counts();
            prop_assert!(counts.free >= u64::from(warm), "{counts:?}");
            prop_assert!(counts.total >= u64::from(minimum), "{counts:?}");
            prop_assert!(counts.expected <= PODS as u64, "{counts:?}");
        }
        node.pass(secs(3 * 3600));
        let counts = node.counts();
        let wanted = u64::from(warm).max(u64::from(minimum).saturating_sub(live.len() as u64));
        prop_assert_eq!((counts.free, counts.expected), (wanted, 0));
    }

    /// If the news come before the ADDs by as much as the calls of the growth take, no ADD waits.
    #[test]
    fn no_pod_waits_if_news_come_in_time(
        n in 1..27_usize,
        warm in 0..3_u32,
        prefixes in any::<bool>(),
        latency in 1..400_u64,
    ) {
        let kind = if prefixes { BlockKind::V4Prefix } else { BlockKind::V4Address };
        let setup = Setup {
            targets: Targets::Ip { warm, minimum: 1 },
            grow_delay: Duration::from_millis(50),
            ..policy(kind, WarmSettings::default())
        };
        let limits = Limits { enis: 3, ..limits("m5.large") };
        let mut node = Node::settled(limits, setup);
        expect(&mut node, 0..n);
        // Two describes, an assign, and create, attach and mark for each further ENI, one after the other; 500 ms at
        // most before the first.
        let end = node.now + Duration::from_millis(600 + 9 * latency);
        while node.now < end {
            node.pass_unsettled(Duration::from_millis(latency));
            node.end_sync(&LinkState::Ready);
            for _ in 0..node.calls.len() {
                node.end_call(0);
            }
            node.save_all();
        }
        for pod in 0..n {
            let request = node.add(pod);
            node.save_all();
            node.granted(request);
        }
    }
}
