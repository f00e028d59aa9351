//! Leaked ENIs: unattached ENIs of the cluster that no node holds.

use std::collections::BTreeMap;
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::{CallErrorKind, CallId, CallOutput, Ec2Call, EniKind};
use ipam::event::Event;
use ipam::id::EniId;
use ipam::policy::WarmSettings;
use ipam::time::Timestamp;

use crate::ec2::{Ec2, error};
use crate::node::{INSTANCE, Node, Setup, limits, node_facts, policy, warm_ip};

const MINUTE: Duration = Duration::from_secs(60);
/// By then both the first and the second search have ended.
const BOTH_SEARCHES: Duration = Duration::from_secs(2 * 3600);
const DAY: Duration = Duration::from_secs(26 * 3600);
const ANOTHER: &str = "i-0fedcba9876543210";

type Tags = BTreeMap<&'static str, String>;

/// The tags that another node of the cluster puts on its ENIs.
fn marks(created_at: Timestamp) -> Tags {
    BTreeMap::from([
        ("node.k8s.amazonaws.com/instance_id", ANOTHER.to_owned()),
        ("node.k8s.amazonaws.com/createdAt", created_at.to_rfc3339()),
        ("cluster.k8s.amazonaws.com/name", "mine".to_owned()),
        ("eks:eni:owner", "amazon-vpc-cni".to_owned()),
    ])
}

fn leave_unattached(ec2: &mut Ec2, tags: &Tags) -> EniId {
    let tags: Vec<_> = tags.iter().map(|(key, value)| (*key, value.as_str())).collect();
    ec2.add_unattached_eni(&tags)
}

/// A settled node that is a thousand hours old.
fn node() -> Node {
    let mut node = Node::settled(limits("m5.large"), searching());
    node.now = node.now + MINUTE * 60_000;
    node.restart();
    node.settle();
    node
}

fn searching() -> Setup {
    Setup { leak_age: Some(MINUTE * 60), ..warm_ip(1, 0) }
}

fn long_ago() -> Timestamp {
    Timestamp::from_millis(0)
}

fn exists(node: &Node, eni: &EniId) -> bool {
    node.ec2.enis.contains_key(eni)
}

fn n_searches(node: &Node) -> usize {
    let is_search = |call: &&Ec2Call| matches!(call, Ec2Call::DescribeUnattached { .. });
    node.ec2.calls.iter().filter(is_search).count()
}

/// Passes time until a search waits for its answer.
fn until_search(node: &mut Node) {
    while !node.calls.iter().any(|(_, call)| matches!(call, Ec2Call::DescribeUnattached { .. })) {
        node.now = node.engine.wake_at().expect("a search to come");
        node.send(Event::Tick);
        node.save_all();
    }
}

/// As [`until_search`]. Takes the search out of the calls under way and returns its number.
fn search(node: &mut Node) -> CallId {
    until_search(node);
    let is_search = |(_, call): &(_, Ec2Call)| matches!(call, Ec2Call::DescribeUnattached { .. });
    let place = node.calls.iter().position(is_search).unwrap();
    node.calls.remove(place).unwrap().0
}

#[test]
fn eni_found_by_two_searches_is_removed() {
    let mut node = node();
    let leaked = leave_unattached(&mut node.ec2, &marks(long_ago()));
    until_search(&mut node);
    node.settle();
    assert!(exists(&node, &leaked), "one search alone has found the ENI");
    node.pass(MINUTE * 9);
    assert!(exists(&node, &leaked));
    node.pass(MINUTE);
    assert!(!exists(&node, &leaked));
    assert!(node.record().intents().is_empty());
    assert_eq!(n_searches(&node), 2);
    node.pass(DAY);
    assert_eq!(n_searches(&node), 3, "the next search comes a day later");
}

#[test]
fn later_leak_is_removed_within_a_day() {
    let mut node = node();
    node.pass(BOTH_SEARCHES);
    assert_eq!(n_searches(&node), 1, "one search is enough where nothing has leaked");
    let leaked = leave_unattached(&mut node.ec2, &marks(node.now));
    node.pass(DAY);
    assert!(!exists(&node, &leaked));
}

#[test]
fn unattached_eni_without_all_our_marks_stays() {
    let check = |what: &str, change: &dyn Fn(&mut Tags)| {
        let mut node = node();
        let mut tags = marks(long_ago());
        change(&mut tags);
        let eni = leave_unattached(&mut node.ec2, &tags);
        node.pass(DAY);
        assert!(exists(&node, &eni), "{what}");
        let deletes = |call: &&Ec2Call| matches!(call, Ec2Call::DeleteEni { .. });
        assert_eq!(node.ec2.calls.iter().find(deletes), None, "{what}");
    };
    let set = |key, value: &str| {
        let value = value.to_owned();
        move |tags: &mut Tags| drop(tags.insert(key, value.clone()))
    };
    check("another cluster's", &set("cluster.k8s.amazonaws.com/name", "other"));
    check("in another case", &set("cluster.k8s.amazonaws.com/name", "Mine"));
    check("of no cluster", &|tags| drop(tags.remove("cluster.k8s.amazonaws.com/name")));
    check("of no instance", &|tags| drop(tags.remove("node.k8s.amazonaws.com/instance_id")));
    check("of another maker", &set("eks:eni:owner", "someone"));
    check("of no maker", &|tags| drop(tags.remove("eks:eni:owner")));
    check("withdrawn by its user", &set("node.k8s.amazonaws.com/no_manage", "true"));
    check("of unknown age", &|tags| drop(tags.remove("node.k8s.amazonaws.com/createdAt")));
    check("of no age", &set("node.k8s.amazonaws.com/createdAt", "long ago"));
    check("from the future", &set("node.k8s.amazonaws.com/createdAt", "2999-01-01T00:00:00Z"));
}

#[test]
fn unattached_eni_of_another_kind_stays() {
    let mut node = node();
    let eni = leave_unattached(&mut node.ec2, &marks(long_ago()));
    node.ec2.enis.get_mut(&eni).unwrap().kind = EniKind::Other;
    node.pass(DAY);
    assert!(exists(&node, &eni));
}

/// The node that created the ENI may still attach it, even if EC2 throttles that node for long.
#[test]
fn young_leak_candidate_stays_until_old_enough() {
    let mut node = node();
    until_search(&mut node);
    let young = leave_unattached(&mut node.ec2, &marks(node.now));
    node.settle();
    node.pass(MINUTE * 59);
    assert!(exists(&node, &young));
    node.pass(MINUTE * 2);
    assert!(!exists(&node, &young), "the removal does not wait for the next day");
}

#[test]
fn eni_attached_between_searches_stays() {
    let mut node = node();
    let eni = leave_unattached(&mut node.ec2, &marks(long_ago()));
    until_search(&mut node);
    node.settle();
    let found = node.ec2.enis.remove(&eni).unwrap();
    node.pass(MINUTE * 11);
    // The ENI was attached and is now unattached again: its time as a candidate starts over.
    node.ec2.enis.insert(eni.clone(), found);
    node.pass(MINUTE * 60);
    assert!(exists(&node, &eni));
}

#[test]
fn node_without_cluster_leak_age_or_ipv4_never_searches() {
    let check = |policy: Setup, cluster: Option<&str>| {
        let mut node = Node::start_with(Ec2::new(limits("m5.large")), limits("m5.large"), policy);
        node.boot.node = ipam::policy::Node { cluster: cluster.map(str::to_owned), ..node_facts() };
        node.restart();
        let leaked = leave_unattached(&mut node.ec2, &marks(long_ago()));
        node.pass(DAY);
        assert_eq!((n_searches(&node), exists(&node, &leaked)), (0, true));
    };
    check(searching(), None);
    check(Setup { leak_age: None, ..searching() }, Some("mine"));
    let ipv6 = policy(BlockKind::V6Prefix, WarmSettings::default());
    check(Setup { leak_age: Some(MINUTE * 60), ..ipv6 }, Some("mine"));
}

/// The node's own describes find and delete such ENIs, even without a cluster.
#[test]
fn own_unattached_eni_is_deleted_without_a_search() {
    let mut node = node();
    let mut tags = marks(node.now);
    tags.insert("node.k8s.amazonaws.com/instance_id", INSTANCE.to_owned());
    let left = leave_unattached(&mut node.ec2, &tags);
    node.restart();
    node.settle();
    assert!(exists(&node, &left), "EC2's answer may lag behind an attach");
    node.pass(Duration::from_secs(20));
    assert!(!exists(&node, &left), "its age does not matter");
    assert_eq!(n_searches(&node), 0);
}

#[test]
fn many_leaks_are_removed_twenty_at_a_time() {
    let mut node = node();
    let leaked: Vec<_> =
        (0..50).map(|_| leave_unattached(&mut node.ec2, &marks(long_ago()))).collect();
    let left = |node: &Node| leaked.iter().filter(|eni| exists(node, eni)).count();
    until_search(&mut node);
    node.settle();
    for expect in [30, 10, 0] {
        node.pass(MINUTE * 10);
        assert_eq!(left(&node), expect);
    }
}

#[test]
fn failed_removal_waits_for_the_next_day() {
    for kind in [CallErrorKind::NotFound, CallErrorKind::InUse, CallErrorKind::Rejected] {
        let mut node = node();
        let leaked = leave_unattached(&mut node.ec2, &marks(long_ago()));
        until_search(&mut node);
        node.settle();
        until_search(&mut node);
        while !node.calls.iter().any(|(_, call)| matches!(call, Ec2Call::DeleteEni { .. })) {
            node.end_call(0);
            node.save_all();
        }
        let (id, _) = node.calls.pop_front().unwrap();
        let n_calls = node.ec2.calls.len();
        node.send(Event::CallDone { id, result: Err(error(kind)) });
        node.pass(MINUTE * 60);
        assert_eq!(node.ec2.calls.len(), n_calls, "{kind:?}");
        assert!(node.record().intents().is_empty() && node.view().blocked.is_empty(), "{kind:?}");
        node.pass(DAY);
        assert!(!exists(&node, &leaked), "{kind:?}");
    }
}

#[test]
fn failed_search_blocks_nothing() {
    let mut node = node();
    let id = search(&mut node);
    node.send(Event::CallDone { id, result: Err(error(CallErrorKind::OutcomeUnknown)) });
    assert_eq!(node.view().blocked, [""; 0]);
    assert_eq!(node.engine.ready(node.now), Ok(()));
    node.pass(DAY);
    assert_eq!(n_searches(&node), 1, "the next search comes the next day");
}

#[test]
fn crash_during_a_removal_leaves_no_intent() {
    let mut node = node();
    let leaked = leave_unattached(&mut node.ec2, &marks(long_ago()));
    until_search(&mut node);
    node.settle();
    until_search(&mut node);
    while node.record().intents().is_empty() {
        node.end_call(0);
        node.save_all();
    }
    node.restart();
    node.pass(Duration::from_secs(11));
    assert!(node.record().intents().is_empty());
    node.pass(BOTH_SEARCHES);
    assert!(!exists(&node, &leaked));
}

/// Each of 500 nodes makes its first search at a moment of its own within the first hour.
#[test]
fn nodes_started_together_search_at_different_times() {
    let mut times: Vec<_> = (0..500)
        .map(|n| {
            let limits = limits("m5.large");
            let mut node = Node::start_with(Ec2::new(limits), limits, searching());
            let instance = format!("i-{n:017}").as_str().try_into().unwrap();
            node.boot.node = ipam::policy::Node { instance, ..node_facts() };
            node.restart();
            node.settle();
            let start = node.now;
            until_search(&mut node);
            node.now.since(start).as_secs()
        })
        .collect();
    times.sort_unstable();
    assert!(times[0] >= 15 * 60 && times[499] <= 45 * 60, "{times:?}");
    let busiest = times.chunk_by(|a, b| a / 60 == b / 60).map(<[_]>::len).max();
    assert!(busiest < Some(40), "{busiest:?} of 500 in one minute of thirty");
}

/// EC2 answers a search with output of the wrong kind.
#[test]
fn answer_of_the_wrong_kind_counts_as_no_search() {
    let mut node = node();
    let leaked = leave_unattached(&mut node.ec2, &marks(long_ago()));
    let id = search(&mut node);
    node.send(Event::CallDone { id, result: Ok(CallOutput::Done) });
    node.pass(BOTH_SEARCHES);
    assert!(exists(&node, &leaked));
}
