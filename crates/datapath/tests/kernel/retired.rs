//! Links that wait for removal: what they lack, what they are not taken for, and what sweeps them.

use std::time::Duration;

use datapath::Removal;
use datapath::disturbances::{Disturbance, disturbances};
use datapath::links::{LinkChange, changes};
use datapath::pod::{Damage, RunningPod, del, host_links};
use datapath::retired::{Swept, sweep};
use futures::StreamExt as _;

use crate::lab::{Namespace, Pod, add, on_node};

/// When a notification counts as lost.
const HANG: Duration = Duration::from_secs(60);

fn swept(node: &Namespace) -> Swept {
    node.block_on(sweep()).unwrap()
}

fn name(pod: &Pod) -> String {
    pod.link.host_name.to_string()
}

#[test]
fn retired_link_has_nothing_and_is_no_pods() {
    on_node(|_| {
        let node = Namespace::with_ipv6("node");
        let empty = Namespace::with_ipv6("node").dump();
        let addresses = ["10.0.2.20@2", "fd00::20@main"];
        let pod = Pod::planned_in(Namespace::with_ipv6("pod"), "a", &addresses);
        let state = pod.add(&node);
        for expect in [Removal::Removed, Removal::Absent] {
            let removed = node.block_on(del(&pod.retirement())).unwrap();
            assert_eq!(removed.link, expect);
            assert!(removed.addresses.iter().all(|(_, removed)| *removed == expect));
        }
        let link = node.ip(&format!("-o link show dev {}", name(&pod)));
        assert!(!link.contains("UP") && link.contains("group 1414087749"), "{link}");
        assert_eq!(node.block_on(host_links()).unwrap(), []);
        node.block_on(datapath::pod::check(&pod.expectation(&state))).unwrap_err();
        let running = RunningPod {
            owner: pod.link.owner.clone(),
            unmarked_name: Some(pod.link.host_name.clone()),
            addresses: pod.link.addresses.clone(),
            node_local: None,
        };
        let repaired = async { Damage::find(&[running]).await.unwrap().repair().await };
        assert!(node.block_on(repaired).is_empty());
        let all = Swept { removed: vec![name(&pod)], foreign: vec![] };
        assert_eq!(swept(&node), all);
        assert_eq!(swept(&node), Swept::default());
        assert_eq!(node.dump(), empty);
        assert!(!pod.namespace.ip("link").contains("eth0"));
    });
}

/// The runtime uses the sandbox again, or a pod of the same name starts in another one.
#[test]
fn add_replaces_a_retired_link() {
    on_node(|node| {
        let before = node.dump();
        let pod = Pod::added(node, "web-0", &["10.0.2.20@2"]);
        node.block_on(del(&pod.retirement())).unwrap();
        let again = pod.add(node);
        node.block_on(datapath::pod::check(&pod.expectation(&again))).unwrap();
        assert_eq!(swept(node), Swept::default(), "the retired one has gone");

        node.block_on(del(&pod.retirement())).unwrap();
        let next = Pod::added(node, "web-0", &["10.0.2.21@3"]);
        assert_eq!(name(&next), name(&pod));
        assert_eq!(swept(node), Swept::default());
        let late = node.block_on(del(&pod.retirement())).unwrap();
        assert_eq!(late.link, Removal::NotOurs);
        node.block_on(del(&next.removal())).unwrap();
        assert_eq!(node.dump(), before);
    });
}

/// The interface of a running pod is as much in the way as ever.
#[test]
fn add_leaves_a_link_that_is_not_retired() {
    on_node(|node| {
        let pod = Pod::added(node, "a", &["10.0.2.20@2"]);
        let other = Pod::added(node, "b", &["10.0.2.21@2"]);
        node.block_on(del(&other.retirement())).unwrap();
        let before = node.dump();
        let refused = node.block_on(add(&pod.link));
        assert!(matches!(refused, Err(datapath::pod::AddPodError::MadeAlready { .. })));
        let waits = |pod: &Pod| {
            let waits = datapath::pod::waits_for_removal(&pod.link.netns, &pod.link.ifname);
            node.block_on(waits).unwrap()
        };
        assert!(!waits(&pod) && waits(&other));
        assert_eq!(node.dump(), before);
    });
}

/// A removal without a daemon takes all links that wait, also those of former daemons.
#[test]
fn removal_at_once_takes_all_retired_links() {
    on_node(|node| {
        let before = node.dump();
        let pods = ["a", "b", "c"].map(|name| Pod::added(node, name, &["10.0.2.20@2"]));
        for pod in &pods[1..] {
            node.block_on(del(&pod.retirement())).unwrap();
        }
        node.block_on(del(&pods[0].removal())).unwrap();
        assert_eq!(node.dump(), before);
        let pod = Pod::added(node, "d", &["10.0.2.20@2"]);
        node.block_on(del(&pod.retirement())).unwrap();
        node.block_on(del(&pod.removal())).unwrap();
        assert_eq!(node.dump(), before, "also if the removal comes again");
    });
}

/// Nobody else uses the number. If somebody does, only our own links go.
#[test]
fn foreign_link_in_the_group_stays() {
    on_node(|node| {
        node.ip("link set lo group 1414087749");
        node.ip("link add eni0 group 1414087749 type veth peer name eni0-peer");
        node.ip("link set eni0 alias theirs");
        let before = node.dump();
        let pods = ["a", "b"].map(|name| Pod::added(node, name, &["10.0.2.20@2"]));
        for pod in &pods {
            node.block_on(del(&pod.retirement())).unwrap();
        }
        let Swept { removed, mut foreign } = swept(node);
        foreign.sort();
        assert_eq!((removed.len(), foreign), (2, vec!["eni0".to_owned(), "lo".to_owned()]));
        assert_eq!(node.dump(), before);
    });
}

/// Links of running pods stay, and one request takes all the others.
#[test]
fn sweep_takes_exactly_the_retired_links() {
    on_node(|node| {
        let pods: Vec<_> = (0..40)
            .map(|n| Pod::added(node, &format!("p{n}"), &[&format!("10.0.2.{n}@2")]))
            .collect();
        let (gone, running) = pods.split_at(30);
        for pod in gone {
            node.block_on(del(&pod.retirement())).unwrap();
        }
        assert_eq!(swept(node).removed.len(), gone.len());
        let links = node.block_on(host_links()).unwrap();
        assert_eq!(links.len(), running.len());
        assert!(running.iter().all(|pod| links.iter().any(|link| link.name == name(pod))));
    });
}

/// A retired link is news for whoever sweeps, and no disturbance of a pod.
#[test]
fn retirement_is_reported_as_such() {
    on_node(|node| {
        let pod = Pod::added(node, "a", &["10.0.2.20@2"]);
        node.block_on(async {
            let (mut links, mut disturbing) = (changes().unwrap(), disturbances().unwrap());
            del(&pod.retirement()).await.unwrap();
            let retired = LinkChange::Retired { name: name(&pod) };
            let reported = async { while links.next().await.unwrap() != retired {} };
            tokio::time::timeout(HANG, reported).await.unwrap();
            node.ip("addr add 192.0.2.1/32 dev lo");
            let last = Disturbance::HostAddress("192.0.2.1".parse().unwrap());
            let rest = async {
                loop {
                    match disturbing.next().await.unwrap() {
                        Disturbance::LinkDown => panic!("a retired link is down on purpose"),
                        disturbance if disturbance == last => break,
                        _ => {}
                    }
                }
            };
            tokio::time::timeout(HANG, rest).await.unwrap();
        });
    });
}
