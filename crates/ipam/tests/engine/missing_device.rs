//! ENIs that are attached at EC2 but whose device does not appear on the host.

use std::time::Duration;

use ipam::event::{Event, LinkState, RefusalCode};
use ipam::id::EniId;

use crate::node::{Node, OnEni as _, limits, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// As [`Node::pass`], on a host that lacks the devices for which `absent` holds.
fn pass_without_devices(node: &mut Node, span: Duration, absent: impl Fn(&EniId) -> bool) {
    let link = |eni: &EniId| if absent(eni) { LinkState::Absent } else { LinkState::Ready };
    pass_with_links(node, span, link);
}

/// As [`Node::pass`], on a host where the ENIs are in these states.
fn pass_with_links(node: &mut Node, span: Duration, link: impl Fn(&EniId) -> LinkState) {
    let end = node.now + span;
    loop {
        while !(node.saves.is_empty() && node.calls.is_empty() && node.host.is_none()) {
            node.save_all();
            if !node.calls.is_empty() {
                node.end_call(0);
            }
            for eni in node.host.take().into_iter().flat_map(|picture| picture.enis) {
                let link = link(&eni.eni);
                node.send(Event::EniLink { eni: eni.eni, link });
            }
        }
        match node.engine.wake_at().filter(|at| *at <= end) {
            Some(at) => node.now = at,
            None => break,
        }
        node.send(Event::Tick);
    }
    node.now = end;
}

/// A node with a full primary ENI and a second ENI. The second's device has not appeared.
fn node_with_missing_device() -> (Node, EniId) {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    for pod in 0..3 {
        node.run_pod(pod);
    }
    let primary = node.view().enis[0].id.clone();
    node.add(3);
    pass_without_devices(&mut node, secs(5), |eni| *eni != primary);
    let second = node.view().enis[1].id.clone();
    (node, second)
}

#[test]
fn device_that_appears_late_serves() {
    let (mut node, second) = node_with_missing_device();
    pass_without_devices(&mut node, secs(130), |eni| *eni == second);
    assert_eq!(node.ec2.n_attached(), 2, "the device may still appear");
    pass_without_devices(&mut node, secs(60), |_| false);
    assert_eq!(node.run_pod(4).eni(), second);
}

/// For instance the node's translation cannot be written, so no ENI is ready.
#[test]
fn refusal_for_failing_links_names_the_cause() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    node.restart();
    let refused = |node: &mut Node, pod| {
        let add = node.add(pod);
        pass_with_links(node, secs(60), |_| LinkState::Failed("table: no permission".to_owned()));
        node.refused(add).clone()
    };
    for pod in 0..4 {
        let refusal = refused(&mut node, pod);
        assert_eq!(refusal.code, RefusalCode::LinkFailing, "{}", refusal.message);
        assert!(refusal.message.contains("table: no permission"), "{}", refusal.message);
        let ready = node.engine.ready(node.now).unwrap_err();
        assert!(ready.message.contains("table: no permission"), "{}", ready.message);
    }
}

#[test]
fn empty_eni_without_device_is_replaced() {
    let (mut node, second) = node_with_missing_device();
    pass_without_devices(&mut node, secs(200), |eni| *eni == second);
    assert!(!node.ec2.enis.contains_key(&second), "{:?}", node.view().enis);
    let held = node.run_pod(4);
    assert_ne!(held.eni(), second, "another ENI serves");
}

/// A broken host gets no device at all. The engine does not create and delete ENIs for ever.
#[test]
fn eni_replacements_on_a_broken_host_are_few() {
    let (mut node, second) = node_with_missing_device();
    let primary = node.view().enis[0].id.clone();
    pass_without_devices(&mut node, secs(200), |eni| *eni != primary);
    assert!(!node.ec2.enis.contains_key(&second));
    let third = node.add(4);
    pass_without_devices(&mut node, secs(30), |eni| *eni != primary);
    let before = node.ec2.n_mutating();
    pass_without_devices(&mut node, secs(3000), |eni| *eni != primary);
    assert!(node.ec2.n_mutating() <= before + 4, "{:?}", node.ec2.calls);
    let view = node.view();
    let line = view.blocked.iter().find(|line| line.contains("has appeared on the host"));
    assert!(line.is_some_and(|line| line.contains("02:00:00")), "{:?}", view.blocked);
    assert!(matches!(node.refused(third).code, RefusalCode::Attaching | RefusalCode::LinkFailing));
}

#[test]
fn eni_with_pods_stays_when_its_device_vanishes() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    for pod in 0..4 {
        node.run_pod(pod);
    }
    let second = node.view().enis[1].id.clone();
    node.send(Event::EniLink { eni: second.clone(), link: LinkState::Absent });
    pass_without_devices(&mut node, secs(7200), |eni| *eni == second);
    assert!(node.ec2.enis[&second].attachment.is_some(), "a pod's address is on it");
}
