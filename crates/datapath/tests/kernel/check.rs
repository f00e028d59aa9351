//! `pod::check`: it finds each kind of damage, tolerates additions, and changes nothing.

use datapath::pod::{PodExpectation, check};

use crate::lab::{Namespace, Pod, error_chain, on_node};

/// Where an `ip` command does which damage, and a part of CHECK's error. `HOST` stands for the host
/// end's name.
const DAMAGES: &[(Side, &str, &str)] = &[
    (Side::Pod, "link del eth0", "interface eth0 is not in /var/run/netns/"),
    (Side::Pod, "link set eth0 down", "eth0 is down"),
    (Side::Node, "link set HOST down", "HOST is down"),
    (Side::Pod, "link set eth0 address 02:00:00:00:00:01", "eth0 has hardware address 02:00:00"),
    (Side::Pod, "link set eth0 mtu 1400", "eth0 has MTU 1400, not 9001"),
    (Side::Node, "link set HOST mtu 1400", "HOST has MTU 1400, not 9001"),
    (Side::Node, "link set HOST alias c2/eth0", "link HOST is not tp-pod-"),
    (Side::Node, "link set HOST name eni0", "link HOST is not on the node"),
    (Side::Pod, "addr del 10.0.2.20/32 dev eth0", "eth0 has no address 10.0.2.20/32"),
    (Side::Pod, "route del default", "no route default via 169.254.1.1 table main dev eth0"),
    (Side::Pod, "route replace default dev eth0", "no route default via 169.254.1.1 table main"),
    (Side::Pod, "route del 169.254.1.1", "no route 169.254.1.1 table main dev eth0"),
    (Side::Pod, "neigh del 169.254.1.1 dev eth0", "no neighbour 169.254.1.1 lladdr "),
    (
        Side::Pod,
        "neigh replace 169.254.1.1 dev eth0 lladdr 02:00:00:00:00:01",
        "no neighbour 169.254.1.1 lladdr ",
    ),
    (
        Side::Node,
        "link set HOST address 02:00:00:00:00:01",
        "no neighbour 169.254.1.1 lladdr 02:00:00:00:00:01 PERMANENT",
    ),
    (Side::Node, "route del 10.0.2.20", "the node has no route 10.0.2.20 table main dev HOST"),
    (Side::Node, "route replace 10.0.2.20 dev pad", "the node has no route 10.0.2.20 table main"),
    (
        Side::Node,
        "addr add 10.0.2.20/24 dev pad",
        "the host itself has the pod's address 10.0.2.20",
    ),
    (Side::Node, "rule del priority 512", "no rule 512: from all to 10.0.2.20 lookup main"),
    (Side::Node, "rule del priority 1536", "no rule 1536: from 10.0.2.20 lookup 2"),
    (
        Side::Node,
        "rule add from 10.0.2.20 lookup 3 priority 1536",
        "the node has a rule 1536: from 10.0.2.20 lookup 3",
    ),
];

/// The same for IPv6, where the commands or errors differ.
const IPV6_DAMAGES: &[(Side, &str, &str)] = &[
    (Side::Pod, "addr del fd00::20/128 dev eth0", "eth0 has no address fd00::20/128"),
    (Side::Pod, "-6 route del default", "no route default via fe80::1 table main dev eth0"),
    (Side::Pod, "-6 route del fe80::1", "no route fe80::1 table main dev eth0"),
    (Side::Pod, "neigh del fe80::1 dev eth0", "no neighbour fe80::1 lladdr "),
    (Side::Node, "-6 route del fd00::20", "the node has no route fd00::20 table main dev HOST"),
    (Side::Node, "-6 rule del priority 512", "no rule 512: from all to fd00::20 lookup main"),
    (
        Side::Node,
        "-6 rule add from fd00::20 lookup 3 priority 1536",
        "the node has a rule 1536: from fd00::20 lookup 3",
    ),
];

#[derive(Clone, Copy)]
enum Side {
    Node,
    Pod,
}

#[test]
fn check_finds_every_damage_and_changes_nothing() {
    for (side, arguments, text) in DAMAGES {
        on_node(|node| {
            node.ip("link set pad up");
            let pod = Pod::planned("sample-pod", &["10.0.2.20@2"]);
            let expectation = damaged(node, &pod, *side, arguments);
            let before = (node.dump(), pod.namespace.dump());
            assert_found(node, &pod, &expectation, text);
            assert_eq!((node.dump(), pod.namespace.dump()), before, "{arguments}");
        });
    }
}

#[test]
fn check_finds_every_damage_to_ipv6() {
    for (side, arguments, text) in IPV6_DAMAGES {
        on_node(|_| {
            let node = Namespace::with_ipv6("node");
            let pod = Pod::planned("sample-pod", &["fd00::20@main"]);
            let expectation = damaged(&node, &pod, *side, arguments);
            assert_found(&node, &pod, &expectation, text);
        });
    }
}

/// Makes the pod's link, asserts that it passes, and damages it.
fn damaged(node: &Namespace, pod: &Pod, side: Side, arguments: &str) -> PodExpectation {
    let expectation = pod.expectation(&pod.add(node));
    node.block_on(check(&expectation)).unwrap();
    let arguments = arguments.replace("HOST", pod.link.host_name.as_str());
    match side {
        Side::Node => node.ip(&arguments),
        Side::Pod => pod.namespace.ip(&arguments),
    };
    expectation
}

fn assert_found(node: &Namespace, pod: &Pod, expectation: &PodExpectation, text: &str) {
    let text = text.replace("HOST", pod.link.host_name.as_str());
    let error = node.block_on(check(expectation)).expect_err(&text);
    let found = error_chain(&error);
    assert!(found.contains(&text), "{text}: {found}");
}

#[test]
fn check_finds_a_link_of_another_pair() {
    on_node(|node| {
        let pod = Pod::planned("a", &["10.0.2.20@2"]);
        let state = pod.add(node);
        let host = &pod.link.host_name;
        node.ip(&format!("link set {host} name old"));
        node.ip(&format!("link add {host} type veth peer name other"));
        let error = node.block_on(check(&pod.expectation(&state))).unwrap_err();
        assert!(error.to_string().starts_with(&format!("link {host} is not ")), "{error}");
    });
}

#[test]
fn check_finds_a_gone_namespace() {
    on_node(|node| {
        let pod = Pod::planned("a", &["10.0.2.20@2"]);
        let mut expectation = pod.expectation(&pod.add(node));
        expectation.netns = "/var/run/netns/tp-none".into();
        let error = node.block_on(check(&expectation)).unwrap_err();
        assert!(
            error_chain(&error).contains("open network namespace /var/run/netns/tp-none"),
            "{error}"
        );
    });
}

/// Additions by later plugins of the chain, by service meshes and by people.
#[test]
fn check_tolerates_additions() {
    on_node(|node| {
        let pod = Pod::planned("a", &["10.0.2.20@2"]);
        let state = pod.add(node);
        for arguments in [
            "addr add 192.0.2.1/24 dev eth0",
            "route add 198.51.100.0/24 via 169.254.1.1 dev eth0 onlink",
            "route add default via 169.254.1.1 dev eth0 metric 100",
            "neigh replace 192.0.2.2 dev eth0 lladdr 02:00:00:00:00:02",
            "link add net1 type veth peer name other",
            "rule add from 192.0.2.1 lookup 7",
        ] {
            pod.namespace.ip(arguments);
        }
        pod.namespace.exec("tc qdisc add dev eth0 root tbf rate 10mbit burst 32k latency 50ms");
        pod.namespace.set_sysctl("net/ipv4/conf/eth0/arp_notify", "1");
        node.ip("rule add from 10.0.2.20 fwmark 0x80/0x80 lookup main priority 1024");
        node.block_on(check(&pod.expectation(&state))).unwrap();
    });
}

/// A pod that amazon-vpc-cni-k8s set up before the node moved over: its link has no mark, and its
/// record has neither hardware address nor MTU.
#[test]
fn check_of_unmarked_pod_passes() {
    on_node(|node| {
        let pod = Pod::planned("a", &["10.0.2.20@2"]);
        let host = &pod.link.host_name;
        let peer = format!("peer name eth0 netns {}", pod.namespace.name());
        node.ip(&format!("link add {host} address 02:00:00:00:00:09 type veth {peer}"));
        node.ip(&format!("link set {host} up"));
        for arguments in [
            "link set eth0 up",
            "route replace 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0",
            "addr add 10.0.2.20/32 dev eth0",
            "neigh add 169.254.1.1 dev eth0 lladdr 02:00:00:00:00:09 nud permanent",
        ] {
            pod.namespace.ip(arguments);
        }
        node.ip(&format!("route add 10.0.2.20 dev {host} scope link"));
        node.ip("rule add to 10.0.2.20 lookup main priority 512");
        node.ip("rule add from 10.0.2.20 lookup 2 priority 1536");
        let expectation = PodExpectation {
            netns: pod.link.netns.clone(),
            ifname: pod.link.ifname.clone(),
            host_name: host.clone(),
            owner: pod.link.owner.clone(),
            mac: None,
            mtu: None,
            addresses: pod.link.addresses.clone(),
            node_local: None,
            routes: datapath::pod::PodRoutes::Main,
            ipv6: datapath::pod::PodIpv6::AsItIs,
        };
        node.block_on(check(&expectation)).unwrap();
    });
}
