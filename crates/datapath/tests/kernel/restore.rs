//! `pod::Damage`: each part of a pod's host side that another program may take, and what must stay.

use std::thread;
use std::time::Duration;

use datapath::disturbances::{Disturbance, disturbances};
use datapath::pod::{Damage, PodRemoval, PodStep, Restored, RunningPod, del};
use datapath::retired::sweep;
use futures::StreamExt as _;

use crate::lab::{Namespace, Pod, on_node};

pub(crate) fn running(pod: &Pod) -> RunningPod {
    let link = &pod.link;
    RunningPod {
        owner: link.owner.clone(),
        unmarked_name: link.host_name.as_str().trim_start_matches("eni").parse().ok(),
        addresses: link.addresses.clone(),
        node_local: link.node_local,
    }
}

pub(crate) fn restored(node: &Namespace, pods: &[RunningPod]) -> Vec<Restored> {
    node.block_on(async { Damage::find(pods).await.unwrap().repair().await })
}

/// Restores pod 10.0.2.20 after each kind of damage, and compares all of the namespace with before.
#[test]
fn each_lost_part_of_a_pod_is_restored() {
    let check = |damages: &[&str]| {
        on_node(|node| {
            node.ip("link set lo up");
            let pod = Pod::added(node, "web", &["10.0.2.20@2"]);
            let (name, before) = (pod.link.host_name.clone(), node.dump());
            assert!(restored(node, &[running(&pod)]).is_empty(), "nothing differs");
            for damage in damages {
                node.ip(&damage.replace("LINK", name.as_str()));
            }
            assert_ne!(node.dump(), before, "{damages:?}");
            let done = restored(node, &[running(&pod)]);
            assert!(done[0].failure.is_none(), "{done:?}");
            assert_eq!(node.dump(), before, "{damages:?}");
            assert!(restored(node, &[running(&pod)]).is_empty(), "{damages:?}");
        });
    };
    check(&["rule del to 10.0.2.20 priority 512"]);
    check(&["rule del from 10.0.2.20 priority 1536"]);
    check(&["route del 10.0.2.20 dev LINK"]);
    check(&["link set LINK down"]);
    check(&[
        "link set LINK down",
        "rule flush",
        "rule add priority 32766 lookup main",
        "rule add priority 32767 lookup default",
    ]);
    check(&[
        "rule del from 10.0.2.20 priority 1536",
        "rule add from 10.0.2.20 priority 1536 lookup 3",
    ]);
    check(&["route replace 10.0.2.20 dev lo"]);
}

#[test]
fn ipv6_pod_is_restored() {
    on_node(|_| {
        let node = Namespace::with_ipv6("node");
        node.ip("link add pad type veth peer name pad-peer");
        let pod = Pod::planned_in(Namespace::with_ipv6("pod"), "web", &["2001:db8::20@main"]);
        pod.add(&node);
        node.ip("-6 rule del to 2001:db8::20 priority 512");
        node.ip(&format!("-6 route del 2001:db8::20 dev {}", pod.link.host_name));
        let done = restored(&node, &[running(&pod)]);
        let [PodStep::ReplaceRoute(_), PodStep::AddRule(_)] = &done[0].steps[..] else {
            panic!("{done:?}")
        };
        assert!(node.ip("-6 rule").contains("to 2001:db8::20 lookup main"));
        assert!(node.pings("2001:db8::20"));
    });
}

#[test]
fn restore_leaves_other_pods_and_links_alone() {
    on_node(|node| {
        let pod = Pod::added(node, "web", &["10.0.2.20@2"]);
        let other = Pod::added(node, "db", &["10.0.2.21@2"]);
        let before = node.dump();
        // The record has both addresses for the first pod, and a pod without a link.
        let both = RunningPod { addresses: other.link.addresses.clone(), ..running(&pod) };
        let absent =
            RunningPod { owner: "c9/eth0".parse().unwrap(), unmarked_name: None, ..running(&pod) };
        assert!(restored(node, &[both, absent]).is_empty());
        assert_eq!(node.dump(), before);
        node.ip(&format!("link set {} alias another", pod.link.host_name));
        node.ip("rule del to 10.0.2.20 priority 512");
        assert!(restored(node, &[running(&pod)]).is_empty(), "the link has another's mark");
    });
}

/// Damages a pod, reads the kernel, ends the pod by `end`, and repairs what was read. The node must look as if the
/// repair had never been.
fn check_repair_after(end: impl Fn(&Namespace, &Pod) -> Option<Pod>) {
    on_node(|node| {
        for damage in [
            "rule del to 10.0.2.20 priority 512",
            "route del 10.0.2.20 dev LINK",
            "link set LINK down",
        ] {
            let pod = Pod::added(node, "web", &["10.0.2.20@2"]);
            node.ip(&damage.replace("LINK", pod.link.host_name.as_str()));
            node.block_on(async {
                let found = Damage::find(&[running(&pod)]).await.unwrap();
                let _next = end(node, &pod);
                let before = node.dump();
                let done = found.repair().await;
                assert!(done.iter().all(|done| done.failure.is_none()), "{damage}: {done:?}");
                assert_eq!(node.dump(), before, "{damage}");
            });
            node.block_on(sweep()).unwrap();
        }
    });
}

/// Ends the pod from another thread, as another process does.
fn end_by(node: &Namespace, removal: &PodRemoval) {
    let end = || node.block_on(del(removal)).unwrap();
    thread::scope(|scope| scope.spawn(end).join()).unwrap();
}

#[test]
fn repair_after_a_del_that_retires_leaves_nothing() {
    check_repair_after(|node, pod| {
        end_by(node, &pod.retirement());
        None
    });
}

#[test]
fn repair_after_a_del_that_removes_leaves_nothing() {
    check_repair_after(|node, pod| {
        end_by(node, &pod.removal());
        None
    });
}

/// The newer pod's ADD comes before the DEL, and replaces the link of the same name.
#[test]
fn repair_leaves_a_newer_pod_of_the_same_name_alone() {
    check_repair_after(|node, pod| {
        let next = Pod::planned("web", &["10.0.2.21@3"]);
        assert_eq!(next.link.host_name, pod.link.host_name);
        thread::scope(|scope| scope.spawn(|| next.add(node)).join()).unwrap();
        end_by(node, &pod.retirement());
        Some(next)
    });
}

#[test]
fn disturbances_name_what_has_gone() {
    on_node(|node| {
        node.block_on(async {
            let mut disturbances = disturbances().unwrap();
            let mut expect = async |disturbance: Disturbance| {
                let mut others = Vec::new();
                let found = tokio::time::timeout(Duration::from_secs(60), async {
                    while let Some(next) = disturbances.next().await {
                        if next == disturbance {
                            return true;
                        }
                        others.push(next);
                    }
                    false
                });
                assert_eq!(found.await, Ok(true), "{disturbance:?} is not among {others:?}");
            };
            node.ip("link set pad up");
            node.ip("rule add to 10.0.2.20 priority 512 lookup main");
            node.ip("rule del to 10.0.2.20 priority 512");
            expect(Disturbance::RuleLost("10.0.2.20".parse().unwrap())).await;
            node.ip("route add 10.0.2.21 dev pad table 2");
            node.ip("route del 10.0.2.21 dev pad table 2");
            let destination = "10.0.2.21/32".parse().unwrap();
            expect(Disturbance::RouteLost { destination, table: 2.into() }).await;
            node.ip("addr add 10.0.2.22/32 dev pad");
            expect(Disturbance::HostAddress("10.0.2.22".parse().unwrap())).await;
            node.ip("addr del 10.0.2.22/32 dev pad");
            expect(Disturbance::AddressLost("10.0.2.22".parse().unwrap())).await;
            for (key, values) in [("conf/pad/rp_filter", ["1", "2"]), ("ip_forward", ["0", "1"])] {
                let key = format!("net/ipv4/{key}");
                let before = node.sysctl(&key);
                let other = values.into_iter().find(|value| *value != before).unwrap();
                node.set_sysctl(&key, other);
                expect(Disturbance::Sysctl).await;
            }
            node.ip("link set pad alias c1/eth0");
            node.ip("link set pad down");
            expect(Disturbance::LinkDown).await;
        });
    });
}
