//! EC2's refusals and failures, and what the engine does about them.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::call::{CallErrorKind, CallId, Ec2Call};
use ipam::event::{Event, LinkState, RefusalCode};
use ipam::policy::{Limits, Targets, WarmSettings};

use crate::ec2::{Ec2, PRIMARY, SUBNET, eni_id, error};
use crate::node::{Node, OnEni as _, Setup, limits, policy, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Lets everything succeed until a call matches. Returns its id.
fn run_to(node: &mut Node, is_it: fn(&Ec2Call) -> bool) -> CallId {
    for _ in 0..1000 {
        node.save_all();
        if let Some((id, _)) = node.calls.iter().find(|(_, call)| is_it(call)) {
            return *id;
        }
        if node.host.is_some() {
            node.end_sync(&LinkState::Ready);
        } else {
            node.end_call(0);
        }
    }
    panic!("no such call: {:?}", node.under_way());
}

/// The next call that matches fails, without effect.
pub(crate) fn fail(node: &mut Node, is_it: fn(&Ec2Call) -> bool, kind: CallErrorKind) -> Ec2Call {
    let id = run_to(node, is_it);
    let place = node.calls.iter().position(|(other, _)| *other == id).unwrap();
    let (id, call) = node.calls.remove(place).unwrap();
    node.send(Event::CallDone { id, result: Err(error(kind)) });
    node.save_all();
    call
}

fn is_assign(call: &Ec2Call) -> bool {
    matches!(call, Ec2Call::Assign { .. })
}

fn is_create(call: &Ec2Call) -> bool {
    matches!(call, Ec2Call::CreateEni { .. })
}

fn is_attach(call: &Ec2Call) -> bool {
    matches!(call, Ec2Call::AttachEni { .. })
}

fn is_describe(call: &Ec2Call) -> bool {
    matches!(call, Ec2Call::DescribeEnis)
}

/// A node with three pods on its full primary ENI. A fourth pod needs another ENI.
fn full_primary() -> Node {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    for pod in 0..3 {
        node.run_pod(pod);
    }
    assert_eq!(node.ec2.n_blocks(), [3]);
    node
}

#[test]
fn exhausted_subnet_is_named_probed_and_recovers() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.subnet(SUBNET).n_addresses = 1;
    ec2.subnet(SUBNET).facts.free_addresses = Some(1);
    let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(2, 0));
    node.settle();
    assert_eq!(node.ec2.n_blocks(), [1], "half of the two that EC2 refused");
    node.run_pod(0);
    let refused = node.add(1);
    node.settle();
    let refusal = node.refused(refused);
    assert_eq!(refusal.code, RefusalCode::SubnetExhausted);
    assert!(refusal.message.contains("subnet-0 (1 free"), "{}", refusal.message);
    let wait = refusal.retry_after.unwrap();
    assert!(wait <= secs(3), "EC2 is soon asked again for a waiting pod: {wait:?}");

    let before = node.ec2.n_mutating();
    let at_once = node.add(2);
    assert_eq!(node.refused(at_once).code, RefusalCode::SubnetExhausted);
    assert_eq!(node.ec2.n_mutating(), before, "the refusal costs no call");
    node.ec2.subnet(SUBNET).n_addresses = 100;
    node.pass(secs(3));
    assert_eq!(node.ec2.n_mutating(), before, "it is too early for warm addresses alone");
    node.run_pod(3);
}

#[test]
fn exhausted_subnet_is_asked_ever_more_rarely_for_warm_pool() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.subnet(SUBNET).n_addresses = 1;
    let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(3, 0));
    node.settle();
    assert_eq!(node.ec2.n_blocks(), [1]);
    let before = node.ec2.n_mutating();
    // Retries after 2, 4 and 8 minutes, then every 10 minutes.
    node.pass(secs(60 * 60));
    assert_eq!(node.ec2.n_mutating() - before, 7);
    node.ec2.subnet(SUBNET).n_addresses = 100;
    node.pass(secs(601));
    assert_eq!(node.ec2.n_blocks(), [3]);
}

#[test]
fn full_subnet_gets_one_call_at_a_time() {
    let mut ec2 = Ec2::new(limits("p3dn.24xlarge"));
    ec2.subnet(SUBNET).n_addresses = 1;
    let mut node = Node::start_with(ec2, limits("p3dn.24xlarge"), warm_ip(700, 0));
    node.settle();
    node.ec2.calls.clear();
    node.pass(secs(600));
    let asked = node.ec2.n_mutating();
    assert!((1..=3).contains(&asked), "{asked} calls in ten minutes");
    // Once the subnet has addresses again, they come at full speed.
    node.ec2.subnet(SUBNET).n_addresses = 10_000;
    node.pass(secs(600));
    assert_eq!(node.counts().total, 700);
}

#[test]
fn pods_get_single_addresses_until_prefixes_return() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.subnet(SUBNET).n_prefixes = 0;
    let policy =
        Setup { kind: BlockKind::V4Prefix, targets: Targets::WarmPrefix(1), ..warm_ip(0, 0) };
    let mut node = Node::start_with(ec2, limits("t3.small"), policy);
    node.settle();
    assert_eq!(node.ec2.n_blocks(), [1], "one single address makes the node ready");
    assert!(node.engine.ready(node.now).is_ok());
    for pod in 0..2 {
        node.run_pod(pod);
    }
    assert_eq!((node.counts().prefixes, node.counts().assigned), (0, 2));
    assert_eq!(node.ec2.n_blocks(), [2]);
    node.ec2.subnet(SUBNET).n_prefixes = 10;
    node.pass(secs(121));
    assert_eq!(node.counts().prefixes, 1, "the prefix is on the same ENI");
    assert_eq!(node.ec2.n_blocks(), [3]);
    node.del(0);
    node.pass(secs(120));
    assert_eq!(
        (node.counts().prefixes, node.counts().total),
        (1, 17),
        "the free single address went back"
    );
}

#[test]
fn other_subnet_serves_while_one_is_exhausted() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.subnet(SUBNET).n_addresses = 3;
    ec2.add_subnet("subnet-1", 1, &[("kubernetes.io/role/cni", "1")]);
    ec2.subnet("subnet-1").facts.free_addresses = Some(10);
    let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(0, 0));
    node.settle();
    for pod in 0..5 {
        node.run_pod(pod);
    }
    let subnets: Vec<_> = node.view().enis.iter().map(|eni| eni.subnet.to_string()).collect();
    assert_eq!(subnets, ["subnet-0", "subnet-1"]);
}

#[test]
fn prefix_in_another_subnet_precedes_single_addresses() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.subnet(SUBNET).n_prefixes = 0;
    ec2.add_subnet("subnet-1", 1, &[("kubernetes.io/role/cni", "1")]);
    ec2.subnet("subnet-1").n_prefixes = 1;
    ec2.subnet("subnet-1").facts.free_addresses = Some(10);
    let policy =
        Setup { kind: BlockKind::V4Prefix, targets: Targets::WarmPrefix(1), ..warm_ip(0, 0) };
    let mut node = Node::start_with(ec2, limits("t3.small"), policy);
    node.settle();
    let placed: Vec<_> = (0..18).map(|pod| node.run_pod(pod).device_index()).collect();
    // 16 from the prefix on the second ENI, then single addresses on the first.
    assert_eq!(placed, [vec![1; 16], vec![0; 2]].concat());
    assert_eq!((node.counts().prefixes, node.ec2.n_blocks()), (1, vec![2, 1]));
}

#[test]
fn node_without_addresses_retries_soon() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    ec2.subnet(SUBNET).n_addresses = 0;
    let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(2, 0));
    node.settle();
    assert_eq!(node.engine.ready(node.now).unwrap_err().code, RefusalCode::SubnetExhausted);
    node.ec2.subnet(SUBNET).n_addresses = 3;
    node.pass(secs(10));
    assert!(node.engine.ready(node.now).is_ok());
}

#[test]
fn limits_are_learnt_from_refusals() {
    // The engine believes in 3 ENIs with 3 addresses each; EC2 allows 2 with 2.
    let believed = limits("t3.small");
    let real = Limits { enis: 2, addresses_per_eni: 3, ..believed };
    let mut node = Node::start_with(Ec2::new(real), believed, warm_ip(0, 9));
    node.settle();
    node.pass(secs(600));
    assert_eq!(node.ec2.n_blocks(), [2, 2]);
    assert_eq!(node.ec2.enis.len(), 2, "the ENI that could not be attached is deleted");
    for pod in 0..4 {
        node.run_pod(pod);
    }
    let before = node.ec2.n_mutating();
    let add = node.add(9);
    node.settle();
    assert!(matches!(node.refused(add).code, RefusalCode::AddressLimit | RefusalCode::EniLimit));
    node.pass(secs(3600));
    assert_eq!(node.ec2.n_mutating(), before, "the engine does not create and delete for ever");
}

/// A spare ENI counts with the addresses that it really carries, not with those of the believed limits.
#[test]
fn spare_eni_counts_with_the_size_learnt_from_refusals() {
    let settings = WarmSettings::default();
    let ec2 = Ec2::new(limits("t3.small"));
    let mut node =
        Node::start_with(ec2, limits("m5.large"), policy(BlockKind::V4Address, settings));
    node.settle();
    node.pass(secs(3600));
    node.run_pod(0);
    node.pass(secs(3600));
    // One pod, and a spare ENI of three addresses. A spare ENI of nine would need a third ENI.
    assert_eq!(node.ec2.n_attached(), 2, "{:?}", node.ec2.n_blocks());
    assert_eq!(node.view().capacity.addresses, 9);
}

#[test]
fn excessive_limits_cost_some_calls_and_no_address() {
    let prefixes = policy(BlockKind::V4Prefix, WarmSettings::default());
    let addresses = policy(BlockKind::V4Address, WarmSettings::default());
    for (enis, addresses_per_eni) in [(4, 20), (24, 64)] {
        for (policy, n_pods) in
            [(warm_ip(2, 0), 27), (addresses.clone(), 27), (prefixes.clone(), 432)]
        {
            let believed = Limits { enis, addresses_per_eni, prefixes: true };
            let what = format!("{believed:?} {:?} {:?}", policy.kind, policy.targets);
            let mut node = Node::start_with(Ec2::new(limits("m5.large")), believed, policy);
            node.settle();
            for pod in 0..n_pods {
                node.run_pod(pod);
            }
            node.pass(secs(1200));
            assert_eq!(node.ec2.n_blocks(), [9; 3], "{what}");
            let n_calls = node.ec2.n_mutating();
            assert!(n_calls <= 50, "{what}: {n_calls} calls");
            node.pass(secs(3600));
            assert_eq!(node.ec2.n_mutating(), n_calls, "{what}: the calls do not end");
        }
    }
}

#[test]
fn taken_device_index_is_skipped() {
    let mut node = full_primary();
    node.add(3);
    fail(&mut node, is_attach, CallErrorKind::DeviceIndexTaken);
    node.settle();
    let indexes: Vec<_> = node.view().enis.iter().map(|eni| eni.device_index).collect();
    assert_eq!(indexes, [Some(0), Some(2)]);
}

#[test]
fn attach_of_an_eni_not_yet_found_is_retried() {
    let mut node = full_primary();
    let add = node.add(3);
    for _ in 0..2 {
        fail(&mut node, is_attach, CallErrorKind::NotFound);
        assert!(node.under_way().is_empty(), "{:?}", node.under_way());
        node.now = node.engine.wake_at().unwrap();
        node.send(Event::Tick);
    }
    node.settle();
    node.granted(add);
}

#[test]
fn unattachable_eni_is_deleted_and_creation_pauses() {
    let mut node = full_primary();
    node.add(3);
    for _ in 0..5 {
        fail(&mut node, is_attach, CallErrorKind::Rejected);
        while node.under_way().is_empty() {
            node.now = node.engine.wake_at().unwrap();
            node.send(Event::Tick);
            node.save_all();
        }
    }
    node.settle();
    assert_eq!(node.ec2.enis.len(), 1);
    let n_created = node.ec2.calls.iter().filter(|call| is_create(call)).count();
    let add = node.add(4);
    assert_eq!(node.refused(add).code, RefusalCode::Ec2Failing);
    node.pass(secs(60));
    assert_eq!(node.ec2.calls.iter().filter(|call| is_create(call)).count(), n_created);
}

#[test]
fn delete_of_an_eni_in_use_is_retried() {
    let mut node = full_primary();
    node.run_pod(3);
    node.del(3);
    let is_delete = |call: &Ec2Call| matches!(call, Ec2Call::DeleteEni { .. });
    for span in [61, 301, 6] {
        node.settle();
        node.now = node.now + secs(span);
        node.send(Event::Tick);
    }
    for _ in 0..3 {
        fail(&mut node, is_delete, CallErrorKind::InUse);
        assert!(node.under_way().is_empty());
        node.now = node.engine.wake_at().unwrap();
        node.send(Event::Tick);
    }
    node.settle();
    assert_eq!(node.ec2.enis.len(), 1);
    assert!(node.record().cooling().is_empty(), "its addresses have left the record");
}

/// Otherwise the engine would try to delete an attached ENI until its daily describe.
#[test]
fn eni_that_detach_does_not_find_is_detached_later() {
    let mut node = full_primary();
    node.run_pod(3);
    node.del(3);
    let is_detach = |call: &Ec2Call| matches!(call, Ec2Call::DetachEni { .. });
    let is_delete = |call: &Ec2Call| matches!(call, Ec2Call::DeleteEni { .. });
    for span in [61, 301] {
        node.settle();
        node.now = node.now + secs(span);
        node.send(Event::Tick);
    }
    fail(&mut node, is_detach, CallErrorKind::NotFound);
    node.pass(secs(120));
    assert_eq!(node.ec2.enis.len(), 1);
    assert!(node.ec2.calls.iter().filter(|call| is_delete(call)).count() <= 5);
}

#[test]
fn eni_with_denied_detach_serves_again() {
    let mut node = full_primary();
    node.run_pod(3);
    node.del(3);
    let is_detach = |call: &Ec2Call| matches!(call, Ec2Call::DetachEni { .. });
    node.settle();
    while !node.calls.iter().any(|(_, call)| is_detach(call)) {
        node.now = node.engine.wake_at().unwrap();
        node.send(Event::Tick);
        node.save_all();
    }
    fail(&mut node, is_detach, CallErrorKind::AccessDenied);
    node.settle();
    let n_calls = node.ec2.n_mutating();
    assert_eq!(node.run_pod(4).device_index(), 1);
    assert_eq!(node.ec2.n_mutating(), n_calls);
}

#[test]
fn throttled_call_is_retried_with_growing_pauses() {
    let mut node = full_primary();
    let add = node.add(3);
    let mut pauses = Vec::new();
    for _ in 0..3 {
        fail(&mut node, is_create, CallErrorKind::Throttled);
        let until = node.engine.wake_at().unwrap();
        pauses.push(until.since(node.now));
        node.now = until;
        node.send(Event::Tick);
    }
    assert!(pauses.is_sorted() && pauses[2] >= 3 * pauses[0], "{pauses:?}");
    node.settle();
    node.granted(add);

    let mut node = full_primary();
    let add = node.add(3);
    while node.answer(add).is_none() {
        fail(&mut node, is_create, CallErrorKind::Throttled);
        node.now = node.engine.wake_at().unwrap();
        node.send(Event::Tick);
    }
    assert_eq!(node.refused(add).code, RefusalCode::Throttled);
}

/// A refused pod would come again later and be served later still.
#[test]
fn pod_waits_while_ec2_throttles() {
    let mut node = full_primary();
    let first = node.add(3);
    for _ in 0..3 {
        fail(&mut node, is_create, CallErrorKind::Throttled);
        assert_eq!(node.answer(first), None);
        node.now = node.engine.wake_at().unwrap();
        node.send(Event::Tick);
    }
    node.settle();
    node.granted(first);
}

#[test]
fn throttled_action_runs_one_at_a_time_and_warm_pool_last() {
    let mut node = Node::settled(limits("m5.xlarge"), warm_ip(0, 0));
    for pod in 0..40 {
        node.add(pod);
    }
    node.save_all();
    assert_eq!(node.calls.iter().filter(|(_, call)| is_create(call)).count(), 2);
    fail(&mut node, is_create, CallErrorKind::Throttled);
    fail(&mut node, is_create, CallErrorKind::Throttled);
    node.settle();
    let throttled_at = node.now;
    while !node.calls.iter().any(|(_, call)| is_create(call)) {
        node.now = node.engine.wake_at().unwrap();
        node.send(Event::Tick);
        node.save_all();
    }
    let waited = node.now.since(throttled_at);
    assert!(waited >= Duration::from_millis(500) && waited <= Duration::from_millis(1500));
    assert_eq!(node.calls.len(), 1, "{:?}", node.under_way());

    let mut node = Node::settled(limits("m5.xlarge"), warm_ip(14, 0));
    node.add(0);
    fail(&mut node, is_create, CallErrorKind::Throttled);
    let background = node.engine.wake_at().unwrap().since(node.now);
    assert!(background >= secs(2), "{background:?}");
}

#[test]
fn missing_permission_is_reported_at_once_and_retried_rarely() {
    let mut node = full_primary();
    let add = node.add(3);
    fail(&mut node, is_create, CallErrorKind::AccessDenied);
    let refusal = node.refused(add);
    assert_eq!(refusal.code, RefusalCode::AccessDenied);
    assert!(refusal.message.contains("CreateNetworkInterface"), "{}", refusal.message);
    assert!(refusal.retry_after.unwrap() >= secs(60));
    node.ec2.calls.clear();
    let later = node.add(4);
    assert_eq!(node.refused(later).code, RefusalCode::AccessDenied);
    assert_eq!(node.ec2.n_mutating(), 0);
}

/// Without credentials nothing reaches EC2. So the engine gives nothing up, and retries within seconds.
#[test]
fn late_credentials_cost_nothing_but_time() {
    let mut node = full_primary();
    let add = node.add(3);
    let mut waits = Vec::new();
    for is_it in [is_create, is_attach, is_attach, is_attach, is_attach, is_attach, is_attach] {
        fail(&mut node, is_it, CallErrorKind::NoCredentials);
        if waits.is_empty() {
            assert_eq!(node.answer(add), None, "the pod may still be served");
        }
        let failed_at = node.now;
        while !node.calls.iter().any(|(_, call)| is_create(call) || is_attach(call)) {
            node.now = node.engine.wake_at().unwrap();
            node.send(Event::Tick);
            node.save_all();
        }
        waits.push(node.now.since(failed_at));
    }
    assert!(waits[0] <= secs(2) && waits.iter().all(|wait| *wait <= secs(38)), "{waits:?}");
    node.settle();
    node.run_pod(4);
    assert_eq!(node.ec2.enis.len(), 2, "one ENI was created, and it serves");
}

/// The user adds the permission that the refusal names.
#[test]
fn denied_ipv6_assign_names_its_own_permission() {
    let ipv6 = policy(BlockKind::V6Prefix, WarmSettings::default());
    let mut node = Node::start(limits("m5.large"), ipv6);
    fail(&mut node, is_assign, CallErrorKind::AccessDenied);
    for pod in 0..2 {
        let add = node.add(pod);
        let refusal = node.refused(add);
        assert_eq!(refusal.code, RefusalCode::AccessDenied);
        assert!(refusal.message.contains(": AssignIpv6Addresses 1 IPv6"), "{}", refusal.message);
        assert!(refusal.retry_after.unwrap() >= secs(60));
    }
    assert!(!node.calls.iter().any(|(_, call)| is_assign(call)), "the call is on hold");
}

#[test]
fn unknown_outcome_is_settled_by_a_describe() {
    for after_effect in [false, true] {
        let policy = Setup { max_enis: Some(1), ..warm_ip(1, 0) };
        let mut node = Node::settled(limits("t3.small"), policy);
        // By now EC2 no longer describes blocks that an earlier run has given back.
        node.pass(secs(10));
        node.run_pod(0);
        let add = node.add(1);
        run_to(&mut node, is_assign);
        if after_effect {
            let call = node.calls[0].1.clone();
            node.ec2.execute(&call).unwrap();
        }
        let call = fail(&mut node, is_assign, CallErrorKind::OutcomeUnknown);
        assert_eq!(node.under_way(), ["DescribeNetworkInterfaces"], "{call}");
        assert_eq!(node.record().intents().len(), 1, "the intent is still open");
        node.settle();
        node.pass(secs(2));
        node.granted(add);
        assert_eq!(node.ec2.n_blocks(), [3], "the address came twice (effect: {after_effect})");
        // One describe may lag, so the intent stays open until a second one.
        assert_eq!(node.record().intents().len(), 1);
        node.pass(secs(20));
        assert!(node.record().intents().is_empty());
    }
}

#[test]
fn burst_is_placed_on_enis_being_created() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    let burst = (0..9).map(|pod| {
        let add = node.add(pod);
        // Its calls are under way before the next pod comes.
        node.save_all();
        add
    });
    let adds: Vec<_> = burst.collect();
    node.settle();
    adds.into_iter().for_each(|add| drop(node.granted(add).clone()));
    assert_eq!(node.ec2.n_blocks(), [3, 3, 3]);
}

#[test]
fn call_that_always_fails_is_named_and_retried_at_a_pace() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    let add = (0..2).map(|pod| node.add(pod)).last().unwrap();
    let mut n_calls = 0;
    let end = node.now + secs(60);
    while node.now < end {
        node.save_all();
        while let Some(place) = node.calls.iter().position(|(_, call)| is_assign(call)) {
            let (id, _) = node.calls.remove(place).unwrap();
            let result = Err(error(CallErrorKind::OutcomeUnknown));
            node.send(Event::CallDone { id, result });
            n_calls += 1;
        }
        if node.calls.is_empty() {
            node.now = node.engine.wake_at().unwrap();
            node.send(Event::Tick);
        } else {
            node.end_call(0);
        }
    }
    assert!((3..=7).contains(&n_calls), "{n_calls} calls within a minute");
    assert_eq!(node.refused(add).code, RefusalCode::Ec2Failing);
}

#[test]
fn refusal_names_the_call_of_unknown_outcome() {
    let mut node = full_primary();
    let add = node.add(3);
    fail(&mut node, is_create, CallErrorKind::OutcomeUnknown);
    let end = node.now + secs(20);
    while let Some(at) = node.engine.wake_at().filter(|at| *at <= end) {
        node.now = at;
        node.send(Event::Tick);
    }
    let refusal = node.refused(add);
    assert_eq!(refusal.code, RefusalCode::Ec2Failing);
    assert!(refusal.message.contains("CreateNetworkInterface"), "{}", refusal.message);
    assert!(refusal.retry_after.unwrap() > secs(0));
}

#[test]
fn eni_with_vanished_device_is_described_again() {
    let mut node = full_primary();
    let eni = node.run_pod(3).eni();
    node.pass(secs(60));
    node.ec2.enis.get_mut(&eni).unwrap().attachment = None;
    node.send(Event::EniLink { eni, link: LinkState::Absent });
    assert_eq!(node.under_way(), ["DescribeNetworkInterfaces"]);
    node.settle();
    assert_eq!(node.ec2.n_attached(), 2, "a pod's address is on it");
}

#[test]
fn create_of_unknown_outcome_is_repeated_with_its_token() {
    let mut node = full_primary();
    let add = node.add(3);
    let id = run_to(&mut node, is_create);
    let lost = node.calls[0].1.clone();
    node.ec2.execute(&lost).unwrap();
    fail(&mut node, is_create, CallErrorKind::OutcomeUnknown);
    node.now = node.engine.wake_at().unwrap();
    node.send(Event::Tick);
    assert_eq!(node.calls[0], (id, lost), "the same call again");
    node.settle();
    node.granted(add);
    assert_eq!(node.ec2.enis.len(), 2);
}

#[test]
fn repeated_create_that_fails_leaks_nothing() {
    let mut node = full_primary();
    node.add(3);
    run_to(&mut node, is_create);
    let lost = node.calls[0].1.clone();
    node.ec2.execute(&lost).unwrap();
    fail(&mut node, is_create, CallErrorKind::OutcomeUnknown);
    while node.under_way().is_empty() {
        node.now = node.engine.wake_at().unwrap();
        node.send(Event::Tick);
    }
    fail(&mut node, is_create, CallErrorKind::AccessDenied);
    node.pass(secs(120));
    assert_eq!(node.ec2.n_attached(), node.ec2.enis.len(), "an ENI has leaked");
}

#[test]
fn describe_begun_before_a_change_undoes_nothing() {
    let mut node = full_primary();
    node.send(Event::EniLink { eni: eni_id(PRIMARY), link: LinkState::Absent });
    node.pass_unsettled(secs(11));
    let (audit, call) = node.calls.pop_front().unwrap();
    assert_eq!(call, Ec2Call::DescribeEnis);
    let before = node.early[&audit].clone();
    let add = node.add(3);
    run_to(&mut node, is_create);
    node.end_call(0);
    node.send(Event::CallDone { id: audit, result: Ok(before) });
    assert_eq!(node.view().enis.len(), 2, "the new ENI is not forgotten");
    node.settle();
    node.granted(add);
}

#[test]
fn failed_describe_is_retried() {
    let mut node = Node::start(limits("t3.small"), warm_ip(1, 0));
    node.end_call(0);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        fail(&mut node, is_describe, CallErrorKind::Rejected);
        let until = node.engine.wake_at().unwrap();
        pauses.push(until.since(node.now));
        node.now = until;
        node.send(Event::Tick);
    }
    assert!(pauses.is_sorted() && pauses[3] >= secs(16), "{pauses:?}");
    node.settle();
    node.run_pod(1);

    let mut node = Node::start(limits("t3.small"), warm_ip(1, 0));
    let add = node.add(1);
    fail(&mut node, is_describe, CallErrorKind::AccessDenied);
    assert_eq!(node.refused(add).code, RefusalCode::AccessDenied);
    assert!(node.view().blocked[0].contains("DescribeNetworkInterfaces"));
}

#[test]
fn eni_is_not_used_before_the_host_is_ready() {
    let mut node = Node::start(limits("t3.small"), warm_ip(1, 0));
    let add = node.add(1);
    for state in [LinkState::Absent, LinkState::Failed("no such device".to_owned())] {
        node.save_all();
        while !node.calls.is_empty() {
            node.end_call(0);
            node.save_all();
        }
        node.end_sync(&state);
        assert_eq!(node.answer(add), None, "{state:?}");
        node.now = node.engine.wake_at().unwrap();
        node.send(Event::Tick);
        assert!(node.host.is_some(), "the host is synced again");
    }
    assert!(node.view().blocked.iter().any(|text| text.contains("no such device")));
    node.settle();
    node.granted(add);
}
