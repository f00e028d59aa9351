//! What the engine answers about one pod, and about the subnets.

use std::time::Duration;

use ipam::event::RefusalCode;
use ipam::standing::{Stage, Standings, Whom};
use ipam::subnet_list::SubnetRole;
use ipam::view::EniStage;

use crate::ec2::{Ec2, SUBNET, subnet_id};
use crate::node::{Node, key, limits, warm_ip};

fn asked(node: &Node, pod: usize) -> Standings {
    node.engine.standings(&Whom::Container(key(pod).container), node.now)
}

fn stage(node: &Node, pod: usize) -> Stage {
    let [standing] = &asked(node, pod).attachments[..] else { panic!("one attachment of {pod}") };
    assert_eq!(standing.key, key(pod));
    standing.stage.clone()
}

/// A node with three pods on its full primary ENI.
fn full_primary() -> Node {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    for pod in 0..3 {
        node.run_pod(pod);
    }
    node
}

#[test]
fn waiting_pod_has_its_place_its_time_and_the_call() {
    let mut node = full_primary();
    let since = node.now;
    let requests = [node.add(3), node.add(4)];
    node.save_all();
    node.now = since + Duration::from_secs(1);
    let standings = asked(&node, 4);
    assert!(standings.in_flight[0].contains("CreateNetworkInterface"), "{standings:?}");
    assert_eq!(standings.not_ready, None);
    let Stage::Waiting { since: came, n_ahead, until, refusal } = stage(&node, 4) else {
        panic!("{standings:?}")
    };
    assert_eq!((came, n_ahead, until), (since, 1, since + Duration::from_secs(10)));
    assert_eq!(refusal.code, RefusalCode::Attaching);
    assert!(refusal.message.contains("3 of 3 in use"), "{}", refusal.message);

    // Attached, but not set up on the host.
    while node.host.is_none() {
        node.save_all();
        node.end_call(0);
    }
    let [eni] = &asked(&node, 4).unready_enis[..] else { panic!("one ENI comes") };
    assert_eq!((eni.stage, &eni.fault), (EniStage::Linking, &None));
    node.settle();
    let held = requests.map(|request| node.granted(request).clone());
    let expect = Stage::Holding { assignment: held[1].clone(), doubts: vec![] };
    assert_eq!(stage(&node, 4), expect);
    assert_eq!(asked(&node, 4).unready_enis, []);
}

#[test]
fn refusal_that_is_shown_is_the_one_that_is_given() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.subnet(SUBNET).n_addresses = 0;
    let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(0, 0));
    node.settle();
    let request = node.add(0);
    let Stage::Waiting { refusal: shown, .. } = stage(&node, 0) else { panic!() };
    assert_eq!(shown.code, RefusalCode::Attaching, "EC2 has not refused yet");
    node.settle();
    assert_eq!(node.refused(request).code, RefusalCode::SubnetExhausted);
    assert_eq!(asked(&node, 0).attachments, [], "it waits no more");
    let subnets = node.engine.subnets(node.now).subnets;
    let (code, until) = *subnets[0].refusals.values().next().unwrap();
    assert_eq!(code, RefusalCode::SubnetExhausted);
    assert!(until > node.now);
}

#[test]
fn pod_on_its_way_to_the_record_and_off_it_is_named() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    node.add(0);
    let Stage::Recording { addresses, .. } = stage(&node, 0) else { panic!("not saved yet") };
    node.settle();
    let Stage::Holding { assignment, doubts } = stage(&node, 0) else { panic!("saved") };
    assert_eq!((assignment.ips().collect(), doubts), (addresses, vec![]));
    node.del(0);
    assert_eq!(stage(&node, 0), Stage::Releasing { assignment });
    node.settle();
    assert_eq!(asked(&node, 0).attachments, []);
}

#[test]
fn pod_is_found_by_its_name_and_the_answer_is_bounded() {
    let mut node = Node::settled(limits("m5.large"), warm_ip(0, 0));
    for pod in 10..30 {
        node.run_pod(pod);
    }
    let whom = Whom::Pod { namespace: String::new(), name: "pod-12".to_owned() };
    let found = node.engine.standings(&whom, node.now).attachments;
    assert_eq!(found.iter().map(|it| it.key.clone()).collect::<Vec<_>>(), [key(12)]);
    // Nineteen of the twenty containers start with c1 or c2.
    let all = node.engine.standings(&Whom::Container("c".to_owned()), node.now);
    assert_eq!(all.attachments.len(), Standings::MOST);
}

#[test]
fn pod_whose_address_is_not_at_ec2_is_in_doubt() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    let address = node.run_pod(0).ips().next().unwrap();
    for eni in node.ec2.enis.values_mut() {
        eni.blocks.retain(|block| !block.contains(address));
    }
    node.restart();
    node.settle();
    let Stage::Holding { doubts, .. } = stage(&node, 0) else { panic!() };
    assert_eq!(doubts, [format!("EC2 describes {address} on no ENI of this instance")]);
}

#[test]
fn subnets_have_their_role_and_what_is_held_there() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.add_subnet("subnet-1", 1, &[("kubernetes.io/role/cni", "1")]);
    ec2.add_subnet("subnet-2", 2, &[("kubernetes.io/role/cni", "0")]);
    ec2.add_subnet("subnet-3", 3, &[]);
    let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(2, 0));
    assert_eq!(node.engine.subnets(node.now).described_at, None);
    node.settle();
    node.run_pod(0);
    let view = node.engine.subnets(node.now);
    assert!(view.described_at.is_some());
    let roles: Vec<_> =
        view.subnets.iter().map(|subnet| (subnet.id.clone(), subnet.role)).collect();
    let expect = [
        (SUBNET, SubnetRole::NewEnis),
        ("subnet-1", SubnetRole::NewEnis),
        ("subnet-2", SubnetRole::Excluded),
        ("subnet-3", SubnetRole::Unused),
    ];
    assert_eq!(roles, expect.map(|(id, role)| (subnet_id(id), role)));
    let primary = &view.subnets[0];
    assert_eq!((primary.n_enis, primary.counts.assigned, primary.counts.total), (1, 1, 3));
    assert_eq!(view.subnets[1].counts.total, 0);
}
