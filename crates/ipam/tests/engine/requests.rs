//! Add, Cancel, Del and Gc: which pod gets which address, which waits, which is refused and why.

use std::time::Duration;

use ipam::block::BlockKind;
use ipam::event::{Answer, RefusalCode};
use ipam::policy::WarmSettings;
use ipam::record::Change;

use crate::node::{Node, OnEni as _, Setup, key, limits, policy, warm_ip};

/// One ENI with three addresses, and no way to get more.
fn three_addresses() -> Setup {
    Setup { max_enis: Some(1), ..warm_ip(3, 3) }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn add_is_answered_once_on_record_and_repeats_agree() {
    let mut node = Node::settled(limits("t3.small"), three_addresses());
    let (first, again) = (node.add(1), node.add(1));
    assert_eq!((node.answer(first), node.saves.len()), (None, 1));
    node.save_all();
    let assignment = node.granted(first).clone();
    assert_eq!(node.granted(again), &assignment);
    assert_eq!(node.record().assignments()[&key(1)], assignment);
    let later = node.add(1);
    assert_eq!(
        (node.granted(later), node.saves.len()),
        (&assignment, 0),
        "the repeated Add writes nothing"
    );
    assert_eq!(node.counts().assigned, 1);
}

#[test]
fn address_that_rested_longest_serves_first() {
    let mut node = Node::settled(limits("t3.small"), three_addresses());
    let addresses = [0, 1, 2].map(|pod| node.run_pod(pod).address());
    for pod in [1, 0, 2] {
        node.del(pod);
        node.pass(secs(2));
    }
    node.pass(secs(24));
    // Pod 1 was deleted 30 s ago, pod 0 28 s ago.
    assert_eq!(node.run_pod(3).address(), addresses[1]);
    let waits = node.add(4);
    node.settle();
    assert_eq!(node.answer(waits), None, "the Add waits for a cooldown that ends soon");
    node.pass(secs(2));
    assert_eq!(node.granted(waits).address(), addresses[0]);
}

#[test]
fn pods_are_packed_into_the_fullest_blocks() {
    let settings = WarmSettings { warm_prefix: 1, ..WarmSettings::default() };
    let mut node = Node::settled(limits("t3.small"), policy(BlockKind::V4Prefix, settings));
    let placed: Vec<_> = (0..58).map(|pod| node.run_pod(pod)).collect();
    assert_eq!(node.ec2.n_blocks(), [3, 2]);
    // 2 pods stay in the primary's first prefix, 5 in its second, and 10 on the other ENI.
    for pod in (2..16).chain(21..48) {
        node.del(pod);
    }
    node.pass(secs(29));
    let block = |address| {
        let view = node.view();
        let mut blocks = view.enis.iter().flat_map(|eni| eni.blocks.keys().copied());
        blocks.find(|block| block.contains(address)).unwrap()
    };
    let (first, second, last) =
        (block(placed[0].address()), block(placed[16].address()), block(placed[50].address()));
    node.now = node.now + secs(2);
    let next: Vec<_> = (100..126).map(|pod| node.run_pod(pod).address()).collect();
    let into = |block: ipam::block::Block| next.iter().filter(|ip| block.contains(**ip)).count();
    // The primary ENI comes first, since it never goes back; on it the fullest prefix comes first.
    assert_eq!((into(second), into(first), into(last)), (11, 14, 0));
}

#[test]
fn waiting_adds_are_served_in_order() {
    let mut node = Node::start(limits("t3.small"), three_addresses());
    let requests = [5, 3, 9].map(|pod| node.add(pod));
    assert!(requests.iter().all(|request| node.answer(*request).is_none()));
    node.settle();
    let addresses = requests.map(|request| node.granted(request).address());
    assert!(addresses.is_sorted(), "{addresses:?}");
}

#[test]
fn cancelled_add_keeps_nothing() {
    let mut node = Node::start(limits("t3.small"), three_addresses());
    let waiting = node.add(1);
    node.cancel(waiting);
    node.settle();
    assert_eq!((node.answer(waiting), node.counts().assigned), (None, 0));

    let being_saved = node.add(2);
    node.cancel(being_saved);
    node.settle();
    assert_eq!((node.answer(being_saved), node.counts().assigned), (None, 0));
    assert!(node.record().assignments().is_empty());
    assert_eq!(node.counts().cooling, 1, "its plugin may have used the address for a moment");
}

#[test]
fn unwritable_record_refuses_and_changes_nothing() {
    let mut node = Node::settled(limits("t3.small"), three_addresses());
    let add = node.add(1);
    node.end_save(Err("no space left on device".to_owned()));
    assert_eq!(node.refused(add).code, RefusalCode::StateUnwritable);
    assert!(node.refused(add).message.contains("no space left"), "{:?}", node.refused(add));
    assert_eq!(node.counts().free, 3);

    let granted = node.run_pod(1);
    let del = node.del(1);
    node.end_save(Err("no space left on device".to_owned()));
    assert_eq!(node.refused(del).code, RefusalCode::StateUnwritable);
    assert_eq!(node.engine.held_by(key(1)), Some(&granted), "the pod still has its address");
}

/// No answer comes for the save: `fdatasync` does not return.
#[test]
fn hanging_disk_is_named_and_the_node_not_ready() {
    let mut node = Node::settled(limits("t3.small"), three_addresses());
    node.add(1);
    let ready = |node: &Node| node.engine.ready(node.now);
    assert_eq!(ready(&node), Ok(()), "a save that has just begun");
    node.pass_unsettled(secs(4));
    let refusal = ready(&node).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::StateUnwritable);
    assert!(refusal.message.contains("not been written for 4 s"), "{}", refusal.message);
    let blocked = node.engine.view(node.now).blocked;
    assert!(blocked.iter().any(|line| line.contains("disk hangs")), "{blocked:?}");
    node.end_save(Ok(()));
    assert_eq!(ready(&node), Ok(()));
}

#[test]
fn unsaved_del_is_repeated() {
    let mut node = Node::settled(limits("t3.small"), three_addresses());
    node.run_pod(1);
    node.del(1);
    for _ in 0..3 {
        node.end_save(Err("no space left on device".to_owned()));
        assert_eq!(node.engine.record().assignments().len(), 1);
        node.pass_until_a_save();
    }
    node.pass(secs(5));
    assert!(node.record().assignments().is_empty());
    assert_eq!(node.counts().cooling, 1);
}

#[test]
fn add_after_an_unsaved_del_keeps_the_address() {
    let mut node = Node::settled(limits("t3.small"), three_addresses());
    let granted = node.run_pod(1);
    node.del(1);
    node.end_save(Err("no space left on device".to_owned()));
    let add = node.add(1);
    node.pass(secs(60));
    assert_eq!(node.granted(add), &granted);
    assert_eq!(node.record().assignments()[&key(1)], granted);
}

#[test]
fn record_in_doubt_answers_nothing_until_rewritten() {
    let mut node = Node::settled(limits("t3.small"), three_addresses());
    let granted = node.run_pod(1);
    let (del, add) = (node.del(1), node.add(1));
    // The save of the release fails, but the file contains it.
    node.log.extend(node.saves[0].1.clone());
    node.end_save(Err("the disk is gone for a moment".to_owned()));
    assert_eq!(node.refused(del).code, RefusalCode::StateUnwritable);
    assert_eq!((node.answer(add), node.record().assignments().len()), (None, 0));
    node.pass(secs(5));
    assert_eq!(node.granted(add), &granted);
    assert_eq!(node.record().assignments()[&key(1)], granted, "the file is correct again");
}

#[test]
fn del_releases_what_its_own_key_holds() {
    let mut node =
        Node::settled(limits("t3.small"), Setup { cooldown: secs(0), ..three_addresses() });
    let unknown = node.del(7);
    assert_eq!(node.answer(unknown), Some(&Answer::Released(None)), "answered at once");
    let held = node.run_pod(1);
    let (del, twin) = (node.del(1), node.del(1));
    assert_eq!(node.answer(del), None, "the release is not on record yet");
    assert_eq!(node.engine.held_by(key(1)), None, "the address is no longer usable");
    node.settle();
    assert_eq!(node.answer(del), Some(&Answer::Released(Some(held.clone()))));
    assert_eq!(node.answer(twin), node.answer(del));

    let (n_free, mut pod) = (node.view().counts.free, 2);
    while node.run_pod(pod).address() != held.address() {
        pod += 1;
        assert!(pod as u64 <= n_free + 2, "the address does not come again");
    }
    let late = node.del(1);
    node.settle();
    assert_eq!(node.answer(late), Some(&Answer::Released(None)));
    assert_eq!(node.run_pod(pod).address(), held.address(), "the next owner keeps it");
}

#[test]
fn del_that_overtakes_its_add_wins() {
    let mut node = Node::start(limits("t3.small"), three_addresses());
    let (waiting, del) = (node.add(1), node.del(1));
    assert!(matches!(node.answer(waiting), Some(Answer::Refused(_))));
    assert_eq!(node.answer(del), Some(&Answer::Released(None)));
    node.settle();

    let (being_saved, del) = (node.add(2), node.del(2));
    node.settle();
    assert!(matches!(node.answer(being_saved), Some(Answer::Refused(_))));
    assert!(matches!(node.answer(del), Some(Answer::Released(Some(_)))));
    assert!(node.record().assignments().is_empty());
}

#[test]
fn add_after_its_del_waits_for_it() {
    let mut node = Node::settled(limits("t3.small"), three_addresses());
    let before = node.run_pod(1);
    let (del, add) = (node.del(1), node.add(1));
    node.settle();
    assert!(matches!(node.answer(del), Some(Answer::Released(Some(_)))));
    assert_ne!(node.granted(add).address(), before.address(), "the released address rests");
}

#[test]
fn gc_releases_its_networks_dead_pods_in_one_save() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 9));
    for pod in 0..5 {
        node.run_pod(pod);
    }
    let in_flight = node.add(5);
    let gc = node.gc(&[1, 3]);
    node.end_save(Ok(()));
    assert_eq!(node.saves.len(), 1);
    node.settle();
    let Some(Answer::Collected(collected)) = node.answer(gc) else { panic!("not collected") };
    let collected: Vec<_> = collected.iter().map(|(key, _)| key.container.as_str()).collect();
    assert_eq!(collected, ["c0", "c2", "c4"]);
    assert_eq!(node.granted(in_flight).pod.name, "pod-5");
    let again = node.gc(&[1, 3, 5]);
    assert_eq!(node.answer(again), Some(&Answer::Collected(Vec::new())), "answered at once");
}

#[test]
fn add_and_del_cost_one_write_each() {
    let mut node = Node::settled(limits("t3.small"), three_addresses());
    let before = node.log.len();
    node.run_pod(1);
    node.del(1);
    node.pass(secs(60));
    node.run_pod(2);
    let kinds = node.log[before..].iter().map(|change| match change {
        Change::Assigned { .. } => "assigned",
        Change::Released { .. } => "released",
        other => panic!("{other:?}"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["assigned", "released", "assigned"]);
}

#[test]
fn refusal_says_what_is_short() {
    let full = || {
        let mut node = Node::settled(limits("t3.small"), three_addresses());
        for pod in 0..3 {
            node.run_pod(pod);
        }
        node
    };
    let mut node = full();
    let add = node.add(9);
    let refusal = node.refused(add);
    assert_eq!((refusal.code, refusal.retry_after), (RefusalCode::EniLimit, None));
    assert!(refusal.message.contains("3 of 3 in use"), "{}", refusal.message);
    assert!(refusal.message.contains("subnet-0 (60000 free"), "{}", refusal.message);

    let mut node = full();
    node.del(0);
    node.pass(secs(5));
    let add = node.add(9);
    let refusal = node.refused(add);
    assert_eq!((refusal.code, refusal.retry_after), (RefusalCode::AllCooling, Some(secs(25))));

    let mut node = Node::settled(limits("t3.small"), Setup { max_pods: 2, ..warm_ip(1, 0) });
    node.run_pod(0);
    node.run_pod(1);
    let add = node.add(9);
    assert_eq!(node.refused(add).code, RefusalCode::MaxPods);
}

/// A node with all of its three addresses in use or at rest: two rest for 5 and for 10 more seconds.
fn node_with_two_rests(policy: Setup) -> Node {
    let mut node = Node::settled(limits("t3.small"), policy);
    for pod in 0..3 {
        node.run_pod(pod);
    }
    node.del(0);
    node.pass(secs(5));
    node.del(1);
    node.pass(secs(20));
    node
}

/// The pods before it get the addresses that rest.
#[test]
fn pod_beyond_resting_addresses_is_told_the_limit() {
    let mut node = node_with_two_rests(three_addresses());
    let first = node.add(10);
    let second = node.add(11);
    let third = node.add(12);
    assert!(node.answer(first).is_none() && node.answer(second).is_none());
    assert_eq!(node.refused(third).code, RefusalCode::EniLimit);
    let waits = node.view().blocked.join("\n");
    assert!(waits.contains("ALL_COOLING: 2 pods wait"), "{waits}");
    assert!(waits.contains("the first for 5s"), "{waits}");
    node.pass(secs(11));
    node.granted(first);
    node.granted(second);
    assert_eq!(node.view().counts.waiting, 0);
}

/// Of two addresses that rest, the second pod's is the one that rests longer.
#[test]
fn refusal_names_the_rest_of_the_pods_own_address() {
    let mut node = node_with_two_rests(Setup { add_wait: secs(6), ..three_addresses() });
    let (first, second) = (node.add(10), node.add(11));
    assert!(node.answer(first).is_none());
    let refusal = node.refused(second);
    assert_eq!((refusal.code, refusal.retry_after), (RefusalCode::AllCooling, Some(secs(10))));
}

/// An address that has rested on another ENI serves at once, though the fuller ENI has some that rest.
#[test]
fn rested_address_elsewhere_serves_at_once() {
    let mut node = Node::settled(limits("t3.small"), Setup { max_enis: Some(2), ..warm_ip(6, 0) });
    for pod in 0..6 {
        node.run_pod(pod);
    }
    let elsewhere = node.record();
    let pod_on = |index: u16| {
        let held = elsewhere.assignments();
        (0..6).find(|pod| held[&key(*pod)].device_index() == index).unwrap()
    };
    let (on_primary, on_second) = (pod_on(0), pod_on(1));
    node.del(on_second);
    node.pass(secs(31));
    node.del(on_primary);
    node.pass(secs(1));
    assert_eq!(node.run_pod(10).device_index(), 1);
}

#[test]
fn add_is_answered_before_its_deadline() {
    let check = |patience: Duration, code: RefusalCode, prepare: fn(&mut Node)| {
        let mut node = Node::start(limits("t3.small"), three_addresses());
        prepare(&mut node);
        let deadline = node.now + patience;
        let add = node.add_until(1, deadline);
        while node.answer(add).is_none() {
            node.now = node.engine.wake_at().expect("the engine wakes for the deadline");
            assert!(node.now < deadline, "the Add is not answered in time");
            node.send(ipam::event::Event::Tick);
        }
        assert_eq!(node.refused(add).code, code);
    };
    for patience in [0, 400, 600, 5_000, 60_000].map(Duration::from_millis) {
        // EC2 answers no call.
        check(patience, RefusalCode::Starting, |_| {});
        // EC2 does not answer the assignment.
        check(patience, RefusalCode::Attaching, |node| {
            node.end_call(0);
            node.end_call(0);
            node.save_all();
        });
    }
    // The disk answers no save.
    check(secs(5), RefusalCode::StateUnwritable, Node::settle);
}

#[test]
fn node_is_ready_once_an_address_is_usable() {
    let mut node = Node::start(limits("t3.small"), three_addresses());
    let code = |node: &Node| node.engine.ready(node.now).map_err(|refusal| refusal.code);
    assert_eq!(code(&node), Err(RefusalCode::Starting));
    node.settle();
    assert_eq!(code(&node), Ok(()));
    for pod in 0..3 {
        node.run_pod(pod);
    }
    assert_eq!(code(&node), Ok(()), "a node full of pods is a ready node");
}
