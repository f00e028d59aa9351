//! A restart loses nothing on record, and resumes the work that was under way.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam::call::{CallErrorKind, Ec2Call};
use ipam::event::{Answer, Event, LinkState};
use ipam::record::Record;

use crate::ec2::{Ec2, PRIMARY, eni_id, error};
use crate::node::{Node, OURS, OnEni as _, Setup, limits, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn pods_are_served_from_the_record_while_ec2_is_silent() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    let before = [1, 2].map(|pod| node.run_pod(pod));
    node.restart();
    let add = node.add(1);
    assert_eq!(node.granted(add), &before[0], "answered at once");
    let del = node.del(2);
    node.save_all();
    assert_eq!(node.answer(del), Some(&Answer::Released(Some(before[1].clone()))));
    let fresh = node.add(3);
    assert_eq!(node.answer(fresh), None, "the Add waits for EC2's answer");
    node.settle();
    let taken: BTreeSet<_> = before.iter().map(|found| found.address()).collect();
    assert!(!taken.contains(&node.granted(fresh).address()));
}

#[test]
fn cooldown_survives_a_restart() {
    let mut node = Node::settled(limits("t3.small"), Setup { max_enis: Some(1), ..warm_ip(3, 3) });
    let addresses = [1, 2, 3].map(|pod| node.run_pod(pod).address());
    node.del(2);
    node.pass(secs(10));
    node.restart();
    node.settle();
    let refused = node.add(4);
    node.settle();
    node.refused(refused);
    node.pass(secs(21));
    assert_eq!(node.run_pod(5).address(), addresses[1]);
}

#[test]
fn snapshot_equals_the_log() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    for pod in 0..5 {
        node.run_pod(pod);
    }
    node.del(2);
    node.settle();
    let mut snapshot = Record::default();
    for change in node.engine.record().changes() {
        snapshot.apply(&change).unwrap();
    }
    assert_eq!(&snapshot, node.engine.record());
    assert_eq!(snapshot, node.record());
}

/// Takes one step: a save, a call or a sync ends, or else the time of the next wake comes.
fn step(node: &mut Node) {
    if !node.saves.is_empty() {
        node.end_save(Ok(()));
    } else if !node.calls.is_empty() {
        node.end_call(0);
    } else if node.host.is_some() {
        node.end_sync(&LinkState::Ready);
    } else if let Some(at) = node.engine.wake_at() {
        node.now = at;
        node.send(Event::Tick);
    }
}

#[test]
fn crash_between_any_two_steps_leaks_nothing() {
    let start = || {
        let mut node = Node::start(limits("t3.small"), warm_ip(1, 0));
        for pod in 0..7 {
            node.add(pod);
        }
        node
    };
    let shrink = |node: &mut Node| {
        for pod in 1..7 {
            node.del(pod);
        }
    };
    for crash_at in 0..140 {
        for lost_calls_take_effect in [false, true] {
            let mut node = start();
            for n in 0..crash_at {
                if n == 60 {
                    shrink(&mut node);
                }
                step(&mut node);
            }
            if lost_calls_take_effect {
                for (_, call) in node.calls.clone() {
                    drop(node.ec2.execute(&call));
                }
            }
            node.restart();
            node.settle();
            shrink(&mut node);
            node.pass(secs(600));
            let name = format!("crash at {crash_at}, effect {lost_calls_take_effect}");
            assert!(node.record().intents().is_empty(), "{name}");
            let n_pods = node.record().assignments().len();
            let n_blocks = node.ec2.enis.values().map(|eni| eni.blocks.len()).sum::<usize>();
            assert_eq!(n_blocks, n_pods + 1, "{name}");
            assert_eq!(node.ec2.n_attached(), node.ec2.enis.len(), "{name}: {:#?}", node.ec2.enis);
            assert!(node.ec2.n_attached() <= 2, "{name}: {:?}", node.ec2.n_blocks());
        }
    }
}

#[test]
fn own_unattached_eni_is_used_if_wanted_else_deleted() {
    for (policy, expect) in [(warm_ip(9, 0), vec![3, 3, 3]), (warm_ip(1, 0), vec![1])] {
        let mut ec2 = Ec2::new(limits("t3.small"));
        let left = ec2.add_unattached_eni(&[OURS]);
        let other = ec2.add_unattached_eni(&[(OURS.0, "i-0fedcba9876543210")]);
        let unmarked = ec2.add_unattached_eni(&[]);
        let wanted = expect.len() > 1;
        let mut node = Node::start_with(ec2, limits("t3.small"), policy);
        node.settle();
        node.pass(Duration::from_secs(20));
        assert_eq!(node.ec2.n_blocks(), expect);
        assert_eq!(node.ec2.enis.contains_key(&left), wanted);
        for foreign in [other, unmarked] {
            assert_eq!(node.ec2.enis[&foreign].attachment, None, "not ours to touch");
        }
    }
}

#[test]
fn foreign_enis_are_left_alone_and_hold_their_place() {
    let check = |tags: &[(&str, &str)], manage_untagged: bool, ours: bool| {
        let mut ec2 = Ec2::new(limits("t3.small"));
        let strange = ec2.attach_foreign(1, tags);
        let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(9, 0));
        node.boot.node.manage_untagged = manage_untagged;
        node.restart();
        node.settle();
        let n_blocks = if ours { vec![3, 3, 3] } else { vec![3, 0, 3] };
        assert_eq!(node.ec2.n_blocks(), n_blocks, "{tags:?}");
        assert_eq!(node.view().foreign.contains_key(&strange), !ours, "{tags:?}");
        assert!(!node.view().foreign.contains_key(&eni_id(PRIMARY)));
    };
    let no_manage = "node.k8s.amazonaws.com/no_manage";
    check(&[], true, true);
    check(&[], false, false);
    check(&[OURS], false, true);
    check(&[OURS, (no_manage, "true")], true, false);
    check(&[(no_manage, "true")], true, false);
    check(&[(no_manage, "false")], true, true);
    check(&[(OURS.0, "i-0fedcba9876543210")], true, false);
}

#[test]
fn missing_delete_on_termination_is_set() {
    let mut ec2 = Ec2::new(limits("t3.small"));
    let ours = ec2.attach_foreign(1, &[OURS]);
    let untagged = ec2.attach_foreign(2, &[]);
    let mut node = Node::start_with(ec2, limits("t3.small"), warm_ip(9, 0));
    node.settle();
    let is_set = |eni| {
        let attachment = node.ec2.enis[eni].attachment.as_ref();
        attachment.is_some_and(|attachment| attachment.delete_on_termination)
    };
    assert!(is_set(&ours));
    assert!(!is_set(&untagged), "an untagged ENI keeps its owner's setting");
}

#[test]
fn externally_detached_eni_with_pods_is_never_deleted() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    let pods: Vec<_> = (0..4).map(|pod| node.run_pod(pod)).collect();
    let detached = pods[3].eni().clone();
    node.ec2.enis.get_mut(&detached).unwrap().attachment = None;
    let refuse_attach = |node: &mut Node| {
        for _ in 0..200 {
            node.save_all();
            if let Some((id, call)) = node.calls.pop_front() {
                let result = match &call {
                    Ec2Call::AttachEni { .. } => Err(error(CallErrorKind::Rejected)),
                    call => node.ec2.execute(call),
                };
                node.send(Event::CallDone { id, result });
            } else if node.host.is_some() {
                node.end_sync(&LinkState::Ready);
            } else if let Some(at) = node.engine.wake_at() {
                node.now = at;
                node.send(Event::Tick);
            }
        }
    };
    refuse_attach(&mut node);
    let n_blocks = node.ec2.enis[&detached].blocks.len();
    assert_eq!(n_blocks, 1, "its address is still reserved at EC2");
    node.pass(secs(600));
    assert!(node.ec2.enis[&detached].attachment.is_some(), "the ENI is attached again");
    let later = node.run_pod(9);
    assert!(pods.iter().all(|pod| pod.address() != later.address()));
}

#[test]
fn vanished_eni_takes_no_address_off_the_record() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    let pods: Vec<_> = (0..4).map(|pod| node.run_pod(pod)).collect();
    let gone = pods[3].eni().clone();
    node.ec2.enis.remove(&gone);
    node.pass(secs(25 * 3600));
    assert_eq!(node.record().assignments().len(), 4);
    assert!(node.view().blocked.iter().any(|text| text.contains(&pods[3].address().to_string())));
    let next = node.run_pod(9);
    assert!(pods.iter().all(|pod| pod.address() != next.address()) || next.eni() != gone);
}

#[test]
fn address_moved_to_another_eni_is_granted_once() {
    let policy = Setup { cooldown: secs(0), shrink_delay: secs(0), ..warm_ip(0, 0) };
    let mut node = Node::settled(limits("t3.small"), policy);
    let pods: Vec<_> = (0..4).map(|pod| node.run_pod(pod)).collect();
    node.pass(secs(60));
    let freed = pods[0].address();
    node.del(0);
    node.save_all();
    // The address goes back, but the answer is lost. EC2 then assigns it to the other ENI.
    let (id, call) = node.calls.pop_front().unwrap();
    assert!(matches!(call, Ec2Call::Unassign { .. }), "{call}");
    node.ec2.execute(&call).unwrap();
    node.send(Event::CallDone { id, result: Err(error(CallErrorKind::OutcomeUnknown)) });
    let describe = node.calls.pop_front().unwrap();
    let adds = [10, 11].map(|pod| node.add(pod));
    node.settle();
    node.calls.push_back(describe);
    node.settle();
    let given = adds.map(|add| node.granted(add).address());
    assert!(given.contains(&freed) && given[0] != given[1], "{given:?}");
}
