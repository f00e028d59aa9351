//! Custom networking: an ENIConfig says where new ENIs go, and the primary ENI carries no pods.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::call::{CallErrorKind, Ec2Call};
use ipam::eni_config::{EniConfig, EniConfigAnswer};
use ipam::event::RefusalCode;
use ipam::policy::Placement;
use ipam::subnet_list::SubnetRole;

use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id, security_groups, subnet_id};
use crate::node::{Node, OnEni as _, Setup, limits, warm_ip};

const NAME: &str = "us-east-1a";

/// The same settings with custom networking.
pub(crate) fn by_eni_config(setup: Setup) -> Setup {
    Setup { placement: Placement::ByEniConfig, ..setup }
}

/// An ENIConfig with these subnets and security groups.
pub(crate) fn found(subnets: &[&str], groups: &[&str]) -> EniConfigAnswer {
    EniConfigAnswer::Found(config(subnets, &[], groups))
}

fn config(subnets: &[&str], tags: &[(&str, &str)], groups: &[&str]) -> EniConfig {
    EniConfig {
        name: NAME.to_owned(),
        subnets: subnets.iter().map(|id| subnet_id(id)).collect(),
        subnet_tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        groups: security_groups(groups),
    }
}

fn missing() -> EniConfigAnswer {
    EniConfigAnswer::Missing { name: NAME.to_owned() }
}

/// EC2 with three more subnets. The first has most free addresses, and the first two have a tag.
fn four_subnets() -> Ec2 {
    let mut ec2 = Ec2::new(limits("t3.small"));
    for (n, tags) in [(1, &[("for", "pods")][..]), (2, &[("for", "pods")]), (3, &[])] {
        let id = format!("subnet-{n}");
        ec2.add_subnet(&id, u8::try_from(n).unwrap(), tags);
        ec2.subnet(&id).facts.free_addresses = Some(100 - 10 * n);
    }
    ec2
}

/// A node with custom networking that has settled after the cluster's answer.
fn node_with(answer: Option<EniConfigAnswer>) -> Node {
    let mut node =
        Node::start_with(four_subnets(), limits("t3.small"), by_eni_config(warm_ip(1, 0)));
    if let Some(answer) = answer {
        node.change_eni_config(answer);
    }
    node.settle();
    node
}

/// The subnets of the ENIs that have been created, with their security groups.
fn created(node: &Node) -> Vec<(String, BTreeSet<String>)> {
    let created = node.ec2.calls.iter().filter_map(|call| match call {
        Ec2Call::CreateEni { subnet, security_groups, .. } => {
            let groups = security_groups.iter().map(ToString::to_string).collect();
            Some((subnet.to_string(), groups))
        }
        _ => None,
    });
    created.collect()
}

fn subnets(node: &Node) -> Vec<String> {
    created(node).into_iter().map(|(subnet, _)| subnet).collect()
}

fn hour(node: &mut Node) {
    node.pass(Duration::from_secs(3600));
}

#[test]
fn pods_are_on_enis_of_the_eni_config_alone() {
    let mut node = node_with(Some(found(&["subnet-3"], &["sg-pods"])));
    assert_eq!(node.engine.ready(node.now), Ok(()));
    let indexes: Vec<_> = (0..5).map(|pod| node.run_pod(pod).device_index()).collect();
    assert_eq!(indexes, [1, 1, 1, 2, 2]);
    let as_named = ("subnet-3".to_owned(), ["sg-pods".to_owned()].into());
    assert_eq!(created(&node), vec![as_named; 2]);
    hour(&mut node);
    assert!(node.ec2.enis[&eni_id(PRIMARY)].blocks.is_empty());
    // Three addresses on each of two ENIs: the primary one does not count.
    node.run_pod(5);
    let refused = node.add(6);
    node.settle();
    let refusal = node.refused(refused);
    assert_eq!(refusal.code, RefusalCode::EniLimit);
    assert!(refusal.message.contains("all 2 ENIs"), "{}", refusal.message);
    assert!(refusal.message.contains("subnet-3 ("), "{}", refusal.message);
    assert_eq!((node.view().capacity.enis, node.view().capacity.addresses), (2, 6));
}

#[test]
fn node_without_an_eni_config_is_not_ready_and_says_why() {
    let unusable =
        EniConfigAnswer::Unusable { name: NAME.to_owned(), why: "it names no subnet".to_owned() };
    let cases = [
        (None, "the API server has not said"),
        (Some(missing()), "there is no ENIConfig us-east-1a"),
        (Some(unusable), "ENIConfig us-east-1a, which this node uses, cannot be used: it names no"),
        (Some(found(&["subnet-9"], &[])), "ENIConfig us-east-1a: subnet-9, with the primary"),
    ];
    for (answer, expect) in cases {
        let mut node = node_with(answer);
        hour(&mut node);
        let refusal = node.engine.ready(node.now).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::EniConfig, "{}", refusal.message);
        assert!(refusal.message.contains(expect), "{}", refusal.message);
        let phrases = node.view().blocked.into_iter().filter(|it| it.starts_with("ENI_CONFIG: "));
        assert!(
            phrases.eq([format!("ENI_CONFIG: {}", refusal.message.split_once("): ").unwrap().1)])
        );
        assert_eq!(created(&node), []);

        node.change_eni_config(found(&["subnet-2"], &[]));
        node.settle();
        assert_eq!(node.engine.ready(node.now), Ok(()));
        assert_eq!(node.view().blocked, [""; 0]);
    }
}

/// Each new ENI goes where most addresses are free. A subnet that refuses is left out.
#[test]
fn new_eni_goes_to_the_chosen_subnet_with_most_free_addresses() {
    let check =
        |answer: EniConfig, refusing: fn(&Ec2Call) -> Option<CallErrorKind>, expect: &str| {
            let mut node =
                Node::start_with(four_subnets(), limits("t3.small"), by_eni_config(warm_ip(1, 0)));
            node.ec2.refuses = refusing;
            node.change_eni_config(EniConfigAnswer::Found(answer.clone()));
            node.settle();
            assert_eq!(subnets(&node).last().unwrap(), expect, "{answer}");
            assert_eq!(node.engine.ready(node.now), Ok(()), "{answer}");
        };
    fn first_is_full(call: &Ec2Call) -> Option<CallErrorKind> {
        let is_it =
            matches!(call, Ec2Call::CreateEni { subnet, .. } if subnet.as_str() == "subnet-1");
        is_it.then_some(CallErrorKind::SubnetExhausted)
    }
    let tagged = [("for", "pods")];
    check(config(&["subnet-2", "subnet-3"], &[], &[]), |_| None, "subnet-2");
    check(config(&["subnet-1", "subnet-3"], &[], &[]), first_is_full, "subnet-3");
    check(config(&[], &tagged, &[]), |_| None, "subnet-1");
    check(config(&[], &tagged, &[]), first_is_full, "subnet-2");
    check(config(&["subnet-3"], &tagged, &[]), |_| None, "subnet-1");
}

#[test]
fn changed_eni_config_applies_to_new_enis_and_is_said() {
    let mut node = node_with(Some(found(&["subnet-3"], &["sg-pods"])));
    let kept = node.run_pod(0);
    node.change_eni_config(found(&["subnet-2"], &["sg-other"]));
    hour(&mut node);
    assert_eq!(subnets(&node), ["subnet-3"], "the ENI that is there stays");
    let is_older = |it: &String| it.contains("1 ENIs are in subnets that are not in ENIConfig");
    assert!(node.view().blocked.iter().any(is_older), "{:?}", node.view().blocked);
    for pod in 1..4 {
        node.run_pod(pod);
    }
    let second = ("subnet-2".to_owned(), ["sg-other".to_owned()].into());
    assert_eq!(created(&node).last(), Some(&second));
    assert!(node.record().owners().contains_key(&kept.address()));
    // A later answer that names none stops new ENIs, and nothing else.
    node.change_eni_config(missing());
    node.settle();
    assert_eq!(node.engine.ready(node.now), Ok(()));
    node.run_pod(4);
}

#[test]
fn pods_of_the_primary_eni_keep_their_addresses() {
    let mut node = Node::start_with(four_subnets(), limits("t3.small"), warm_ip(1, 0));
    node.settle();
    let kept = node.run_pod(0);
    assert_eq!(kept.device_index(), 0);
    node.change_eni_config(found(&["subnet-3"], &[]));
    node.restart_with(by_eni_config(warm_ip(1, 0)));
    node.settle();
    hour(&mut node);
    assert_eq!(node.ec2.enis[&eni_id(PRIMARY)].blocks.len(), 1, "the idle one went back");
    assert_eq!(node.run_pod(1).device_index(), 1);
    assert!(node.record().owners().contains_key(&kept.address()));
    node.del(0);
    hour(&mut node);
    assert!(node.ec2.enis[&eni_id(PRIMARY)].blocks.is_empty());
    // And back.
    node.restart_with(warm_ip(1, 0));
    node.settle();
    assert_eq!(node.run_pod(2).device_index(), 1);
    node.run_pod(3);
    assert_eq!(node.run_pod(4).device_index(), 0);
}

/// The tag on a subnet keeps pods off it, unless an ENIConfig chooses the subnet.
#[test]
fn chosen_subnet_is_not_excluded_by_its_tag() {
    let excluded = [("kubernetes.io/role/cni", "0")];
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.add_subnet("subnet-1", 1, &excluded);
    let mut node = Node::start_with(ec2, limits("t3.small"), by_eni_config(warm_ip(1, 0)));
    node.change_eni_config(found(&["subnet-1"], &[]));
    node.settle();
    assert_eq!(node.run_pod(0).device_index(), 1);
    assert_eq!(node.view().blocked, [""; 0]);
    // Once it is chosen no more, its pods stay and no new one comes.
    node.change_eni_config(found(&[SUBNET], &[]));
    node.settle();
    assert_eq!(node.run_pod(1).device_index(), 2);
}

/// `ipamd subnets` and the metrics of subnets show where new ENIs go.
#[test]
fn subnets_for_people_are_those_of_the_eni_config() {
    let node = node_with(Some(found(&["subnet-2", "subnet-3"], &[])));
    let roles: Vec<_> = node.engine.subnets(node.now).subnets;
    let roles: Vec<_> = roles.iter().map(|subnet| (subnet.id.as_str(), subnet.role)).collect();
    let expect = [
        (SUBNET, SubnetRole::Unused),
        ("subnet-1", SubnetRole::Unused),
        ("subnet-2", SubnetRole::NewEnis),
        ("subnet-3", SubnetRole::NewEnis),
    ];
    assert_eq!(roles, expect);
    // That of the primary ENI carries an ENI of ours.
    let rooms: Vec<_> = node.view().subnets.into_keys().collect();
    assert_eq!(rooms, [SUBNET, "subnet-2", "subnet-3"].map(subnet_id));
}
