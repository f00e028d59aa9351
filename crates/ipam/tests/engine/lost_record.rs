//! Running pods whose assignments the record has lost. Their links and EC2's answer restore it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::event::Answer;
use ipam::id::AttachmentKey;
use ipam::policy::WarmSettings;
use ipam::record::Assignment;

use crate::node::{Node, OnEni as _, Setup, key, limits, policy, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Adds the pods and makes their links.
fn run_pods(node: &mut Node, pods: impl IntoIterator<Item = usize>) -> Vec<Assignment> {
    let run = |pod| {
        let assignment = node.run_pod(pod);
        node.links.insert(assignment.address(), key(pod));
        assignment
    };
    pods.into_iter().map(run).collect()
}

fn report_after(node: &mut Node, after: Duration) {
    node.pass(after);
    node.report_kernel();
    node.settle();
}

/// The address on record for the pod, looked up by the key that its runtime uses.
fn held(node: &Node, pod: usize) -> Option<IpAddr> {
    node.engine.held_by(key(pod)).map(|held| held.address())
}

fn quarantined(node: &Node) -> BTreeSet<IpAddr> {
    node.view().quarantined.into_keys().collect()
}

/// A node with one running pod, just restarted without a record. Also the pod's address.
fn node_without_its_record() -> (Node, IpAddr) {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    let address = run_pods(&mut node, [0])[0].address();
    node.restart_without_record();
    (node, address)
}

fn check_pods_return(policy: Setup) {
    let mut node = Node::settled(limits("m5.large"), policy);
    let before = run_pods(&mut node, 0..20);
    node.restart_without_record();
    node.settle();
    assert_eq!((quarantined(&node), node.counts().assigned), (BTreeSet::new(), 20));
    for (pod, before) in before.iter().enumerate() {
        let (on_record, found) = (key(pod).by_link(), node.engine.held_by(key(pod)).unwrap());
        assert_eq!(node.record().assignments()[&on_record], *found, "the assignment is durable");
        let place = |held: &Assignment| (held.address(), held.eni().clone(), held.device_index());
        assert_eq!(place(found), place(before));
    }
    // A pod that has returned is like any other at a restart, an ADD and a DEL.
    node.restart();
    node.settle();
    assert_eq!(node.run_pod(0).address(), before[0].address());
    let new = run_pods(&mut node, 20..25);
    assert!(new.iter().all(|new| before.iter().all(|old| old.address() != new.address())));
    let del = node.del(3);
    node.settle();
    let Some(Answer::Released(Some(released))) = node.answer(del) else { panic!("not released") };
    assert_eq!(released.address(), before[3].address());
    assert_eq!((held(&node, 3), node.counts().cooling), (None, 1));
    node.links.remove(&before[3].address());
    report_after(&mut node, secs(31));
    assert_eq!((node.counts().cooling, quarantined(&node)), (0, BTreeSet::new()));
}

#[test]
fn running_pods_return_to_the_record_with_addresses() {
    check_pods_return(warm_ip(2, 0));
}

#[test]
fn running_pods_return_to_the_record_with_prefix_addresses() {
    check_pods_return(policy(BlockKind::V4Prefix, WarmSettings::default()));
}

#[test]
fn running_pod_returns_only_after_ec2_confirms_its_address() {
    let (mut node, address) = node_without_its_record();
    let request = node.add(1);
    assert_eq!((node.saves.len(), node.answer(request)), (0, None));
    node.settle();
    assert_eq!(held(&node, 0), Some(address));
    assert_ne!(node.granted(request).address(), address);
    // EC2 describes the address on no ENI of this node, so the pod does not return.
    let (mut node, address) = node_without_its_record();
    for eni in node.ec2.enis.values_mut() {
        eni.blocks.retain(|block| !block.contains(address));
    }
    node.settle();
    assert_eq!(held(&node, 0), None);
}

#[test]
fn ambiguous_link_stays_in_quarantine() {
    let check = |what: &str, spoil: &dyn Fn(&mut Node, IpAddr)| {
        let mut node = Node::settled(limits("m5.large"), warm_ip(3, 0));
        // The last address: pods get the lowest ones first.
        let blocks = node.view().enis.into_iter().flat_map(|eni| eni.blocks.into_keys());
        let address = blocks.last().unwrap().bounds().1;
        spoil(&mut node, address);
        for _ in 0..10 {
            report_after(&mut node, secs(60));
        }
        assert_eq!(quarantined(&node), BTreeSet::from([address]), "{what}");
        assert_eq!(node.record().owner(address), None, "{what}");
    };
    check("a link without a mark", &|node, address| {
        node.links_are_marked = false;
        node.links.insert(address, key(1));
    });
    for (container, ifname) in [("", "eth0"), ("c1", ""), ("c1", "eth0/1"), ("a/b", "c")] {
        let (container, ifname) = (container.to_owned(), ifname.to_owned());
        let link = AttachmentKey { network: "any".into(), container, ifname };
        check("a mark of another kind", &|node, address| {
            node.links.insert(address, link.clone());
        });
    }
    check("an attachment that is on record with another address", &|node, address| {
        run_pods(node, [1]);
        node.links.insert(address, key(1));
    });
}

#[test]
fn one_of_two_links_with_the_same_mark_returns() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(2, 0));
    let two = run_pods(&mut node, 0..2);
    node.links.insert(two[1].address(), key(0));
    node.restart_without_record();
    node.settle();
    let on_record: Vec<_> = node.record().owners().keys().copied().collect();
    assert_eq!(on_record.len(), 1);
    let other = two.iter().map(|held| held.address()).find(|ip| !on_record.contains(ip));
    assert_eq!(quarantined(&node), other.into_iter().collect());
}

/// The plugin takes a link down after the release, so a link may exist for a short time after it.
#[test]
fn link_shortly_after_its_release_does_not_return() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    let address = run_pods(&mut node, [0])[0].address();
    node.del(0);
    node.settle();
    report_after(&mut node, secs(100));
    assert_eq!((held(&node, 0), quarantined(&node)), (None, BTreeSet::from([address])));
    report_after(&mut node, secs(50));
    assert_eq!(held(&node, 0), Some(address), "the DEL was for another link");
}

#[test]
fn unsaved_assignment_stays_in_quarantine_until_saved() {
    let (mut node, address) = node_without_its_record();
    while node.saves.is_empty() {
        node.end_call(0);
    }
    node.end_save(Err("disk full".to_owned()));
    assert_eq!((held(&node, 0), quarantined(&node)), (None, BTreeSet::from([address])));
    assert!(node.saves.is_empty(), "the save is not repeated at once");
    node.pass(secs(2));
    assert_eq!((held(&node, 0), quarantined(&node)), (Some(address), BTreeSet::new()));
    assert_eq!(node.record().owners().len(), 1);
}

#[test]
fn del_while_a_pod_returns_releases_its_address() {
    let (mut node, address) = node_without_its_record();
    while node.saves.is_empty() {
        node.end_call(0);
    }
    node.now = node.now + secs(1);
    node.report_kernel();
    let del = node.del(0);
    node.settle();
    let Some(Answer::Released(Some(released))) = node.answer(del) else { panic!("not released") };
    assert_eq!(released.address(), address);
    assert_eq!((held(&node, 0), node.counts().cooling), (None, 1));
}

#[test]
fn gc_keeps_a_returned_pod_while_it_has_its_link() {
    let (mut node, address) = node_without_its_record();
    node.settle();
    node.gc(&[]);
    node.settle();
    assert_eq!(held(&node, 0), Some(address));
    node.links.clear();
    report_after(&mut node, secs(1));
    node.gc(&[0]);
    node.settle();
    assert_eq!(held(&node, 0), Some(address), "its runtime lists the pod");
    node.gc(&[]);
    node.settle();
    assert_eq!(held(&node, 0), None);
}

#[test]
fn returned_pod_is_released_after_its_link_goes() {
    let (mut node, address) = node_without_its_record();
    node.settle();
    report_after(&mut node, secs(200));
    assert_eq!(held(&node, 0), Some(address));
    node.links.clear();
    report_after(&mut node, secs(1));
    assert_eq!(held(&node, 0), Some(address));
    report_after(&mut node, secs(60));
    assert_eq!(held(&node, 0), None);
}

/// Pods come and go on a small node. Then the node restarts from each prefix of its log in turn.
#[test]
fn log_truncated_anywhere_costs_no_pod_its_address() {
    let policy = Setup { cooldown: secs(5), ..warm_ip(1, 0) };
    let mut node = Node::settled(limits("t3.small"), policy);
    for round in 0..6 {
        run_pods(&mut node, [2 * round, 2 * round + 1]);
        if round > 1 {
            node.del(2 * round - 3);
            node.links.retain(|_, owner| *owner != key(2 * round - 3));
            node.ended.insert(key(2 * round - 3));
        }
        node.pass(secs(7));
    }
    let living: BTreeSet<_> = node.links.clone().into_iter().collect();
    assert!(living.len() > 6, "{living:?}");
    for length in 0..node.log.len() {
        let mut node = node.clone();
        node.log.truncate(length);
        node.restart();
        node.settle();
        for _ in 0..6 {
            report_after(&mut node, secs(60));
        }
        for (address, pod) in &living {
            let found = node.engine.held_by(pod.clone()).map(|held| held.address());
            assert_eq!(found, Some(*address), "{pod} after {length} lines");
        }
        let n_on_record = node.record().owners().len();
        assert_eq!(n_on_record, living.len(), "after {length} lines");
        assert_eq!(quarantined(&node), BTreeSet::new(), "after {length} lines");
    }
}
