//! `pod::del`: what it removes, and what it leaves since another pod owns it by now.

use datapath::Removal;
use datapath::pod::del;

use crate::lab::{Namespace, Pod, on_node};

/// A StatefulSet's pod is created anew under its name before the runtime has torn down the old one.
#[test]
fn late_del_leaves_the_newer_sandbox() {
    on_node(|node| {
        let older = Pod::added(node, "web-0", &["10.0.2.20@2"]);
        let newer = Pod::planned("web-0", &["10.0.2.21@2"]);
        let state = newer.add(node);
        let removed = node.block_on(del(&older.removal())).unwrap();
        assert_eq!(removed.link, Removal::NotOurs);
        assert!(!node.ip("rule").contains("10.0.2.20"));
        node.block_on(datapath::pod::check(&newer.expectation(&state))).unwrap();
        assert!(newer.namespace.ip("addr show dev eth0").contains("10.0.2.21/32"));
        assert!(!older.namespace.ip("link").contains("eth0"), "the name has one link only");
    });
}

#[test]
fn late_del_leaves_an_address_of_another_pod() {
    on_node(|node| {
        let older = Pod::planned("a", &["10.0.2.20@2"]);
        let newer = Pod::added(node, "b", &["10.0.2.20@3"]);
        let before = node.dump();
        let removed = node.block_on(del(&older.removal())).unwrap();
        assert_eq!(removed.addresses, [("10.0.2.20".parse().unwrap(), Removal::NotOurs)]);
        assert_eq!(node.dump(), before);
        drop(newer);
    });
}

#[test]
fn del_without_namespace_succeeds_twice() {
    on_node(|node| {
        let before = node.dump();
        let pod = Pod::added(node, "a", &["10.0.2.20@2"]);
        let removal = pod.removal();
        // With the namespace the kernel removes the link, and with the link its route, both in the
        // background. The rules stay.
        drop(pod);
        let removed = node.block_on(del(&removal)).unwrap();
        assert_eq!(removed.addresses, [("10.0.2.20".parse().unwrap(), Removal::Removed)]);
        assert_eq!(node.dump(), before);
        let removed = node.block_on(del(&removal)).unwrap();
        assert_eq!(removed.link, Removal::Absent);
        assert_eq!(removed.addresses, [("10.0.2.20".parse().unwrap(), Removal::Absent)]);
    });
}

/// As for IPv4: it may be repeated, leaves another pod's address, and finds the addresses itself.
#[test]
fn del_of_ipv6_pod_leaves_nothing() {
    on_node(|_| {
        let node = Namespace::with_ipv6("node");
        let rules = node.ip("-6 rule");
        let older = Pod::added(&node, "web-0", &["fd00::20@main"]);
        let newer = Pod::planned("web-0", &["fd00::21@main"]);
        let state = newer.add(&node);
        let removed = node.block_on(del(&older.removal())).unwrap();
        assert_eq!(removed.link, Removal::NotOurs);
        assert!(!node.ip("-6 rule").contains("fd00::20"));
        node.block_on(datapath::pod::check(&newer.expectation(&state))).unwrap();
        let stranger = Pod::planned("other", &["fd00::21@main"]);
        let removed = node.block_on(del(&stranger.removal())).unwrap();
        assert_eq!(removed.addresses, [("fd00::21".parse().unwrap(), Removal::NotOurs)]);
        let mut removal = newer.removal();
        removal.addresses.clear();
        let removed = node.block_on(del(&removal)).unwrap();
        assert_eq!(removed.addresses, [("fd00::21".parse().unwrap(), Removal::Removed)]);
        assert_eq!(node.ip("-6 rule"), rules);
        assert!(!node.ip("-6 route").contains("fd00::"), "{}", node.ip("-6 route"));
        let removed = node.block_on(del(&newer.removal())).unwrap();
        assert_eq!(removed.addresses, [("fd00::21".parse().unwrap(), Removal::Absent)]);
    });
}

#[test]
fn del_without_addresses_uses_the_links_routes() {
    on_node(|node| {
        let before = node.dump();
        let pod = Pod::added(node, "a", &["10.0.2.20@2", "10.0.0.21@main"]);
        let mut removal = pod.removal();
        removal.addresses.clear();
        let other = node.block_on(del(&datapath::pod::PodRemoval {
            owner: "c2/eth0".parse().unwrap(),
            ..removal.clone()
        }));
        assert_eq!(other.unwrap().addresses, [], "another owner's addresses are not ours");
        let removed = node.block_on(del(&removal)).unwrap();
        assert_eq!(removed.addresses.len(), 2);
        assert_eq!(node.dump(), before);
    });
}

/// The pod's name in a DEL may differ from the one in its ADD, and the prefix may have changed.
#[test]
fn del_by_another_name_finds_the_link_by_its_mark() {
    on_node(|node| {
        let before = node.dump();
        for addresses in [vec!["10.0.2.20".parse().unwrap()], vec![]] {
            let pod = Pod::added(node, "a", &["10.0.2.20@2"]);
            let host_name = datapath::host_veth_name("eni", "default", "other", "", None).unwrap();
            let removal = datapath::pod::PodRemoval { host_name, addresses, ..pod.removal() };
            let removed = node.block_on(del(&removal)).unwrap();
            assert_eq!(removed.link, Removal::Removed);
            assert_eq!(removed.addresses, [("10.0.2.20".parse().unwrap(), Removal::Removed)]);
            assert_eq!(node.dump(), before);
        }
    });
}

#[test]
fn del_by_another_pods_name_leaves_that_pod() {
    on_node(|node| {
        let pod = Pod::added(node, "a", &["10.0.2.20@2"]);
        let other = Pod::added(node, "b", &["10.0.2.21@2"]);
        let former = Pod::planned("c", &["10.0.2.22@2"]);
        let peer = format!("peer name eth0 netns {}", former.namespace.name());
        node.ip(&format!("link add {} type veth {peer}", former.link.host_name));
        // One has another's mark, one has none and is an incumbent's.
        for host_name in [&other.link.host_name, &former.link.host_name] {
            let removal =
                datapath::pod::PodRemoval { host_name: host_name.clone(), ..pod.removal() };
            node.block_on(del(&removal)).unwrap();
            assert!(!node.ip("link").contains(pod.link.host_name.as_str()));
            assert!(node.ip("link").contains(host_name.as_str()), "{host_name} is another pod's");
            pod.add(node);
        }
    });
}

/// An ADD that dies between making the link and marking it leaves only the hardware address.
#[test]
fn del_finds_a_link_that_was_not_marked_yet() {
    on_node(|node| {
        let pod = Pod::planned("a", &["10.0.2.20@2"]);
        let mac = pod.add(node).host.mac;
        node.block_on(del(&pod.removal())).unwrap();
        let before = node.dump();
        let peer = format!("peer name eth0 netns {}", pod.namespace.name());
        node.ip(&format!("link add {} address {mac} type veth {peer}", pod.link.host_name));
        let host_name = datapath::host_veth_name("eni", "default", "other", "", None).unwrap();
        let removal = datapath::pod::PodRemoval { host_name, ..pod.removal() };
        assert_eq!(node.block_on(del(&removal)).unwrap().link, Removal::Removed);
        assert_eq!(node.dump(), before);
    });
}

/// amazon-vpc-cni-k8s does not mark links, and adds the same rules, sometimes twice.
#[test]
fn del_removes_an_incumbents_pod() {
    on_node(|node| {
        let before = node.dump();
        let pod = Pod::planned("sample-pod", &["10.0.2.20@2"]);
        let peer = format!("peer name eth0 netns {}", pod.namespace.name());
        node.ip(&format!("link add enicc21c2d7785 type veth {peer}"));
        node.ip("link set enicc21c2d7785 up");
        node.ip("route add 10.0.2.20 dev enicc21c2d7785 scope link");
        node.ip("rule add to 10.0.2.20 lookup main priority 512");
        node.ip("rule add from 10.0.2.20 lookup 2 priority 1536");
        node.ip("rule add from 10.0.2.20 lookup 3 priority 1536");
        let removed = node.block_on(del(&pod.removal())).unwrap();
        assert_eq!(removed.link, Removal::Removed);
        assert_eq!(node.dump(), before);
    });
}

#[test]
fn del_leaves_rules_of_others() {
    on_node(|node| {
        node.ip("rule add from 10.0.2.20 lookup 2 priority 32765");
        node.ip("rule add to 10.0.2.0/24 lookup main priority 512");
        let before = node.dump();
        let pod = Pod::added(node, "a", &["10.0.2.20@2"]);
        node.block_on(del(&pod.removal())).unwrap();
        assert_eq!(node.dump(), before);
    });
}
