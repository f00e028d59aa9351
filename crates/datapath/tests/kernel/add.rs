//! `pod::add`: what it makes, what it refuses, and that it leaves nothing behind when it fails.

use crate::lab::{Namespace, Pod, address, chain, on_node};

/// The example that amazon-vpc-cni-k8s is known by: a pod on the ENI at device index 1.
#[test]
fn a_pod_looks_as_documented() {
    on_node(|node| {
        let pod = Pod::planned("sample-pod", &["10.0.2.20@2"]);
        let state = pod.add(node);
        assert_eq!(
            node.ip("rule"),
            "0:\tfrom all lookup local\n\
             512:\tfrom all to 10.0.2.20 lookup main\n\
             1536:\tfrom 10.0.2.20 lookup 2\n\
             32766:\tfrom all lookup main\n\
             32767:\tfrom all lookup default\n"
        );
        assert_eq!(without_carrier(&node.ip("route")), "10.0.2.20 dev enicc21c2d7785 scope link\n");
        assert_eq!(
            without_carrier(&pod.namespace.ip("route")),
            "default via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link\n"
        );
        assert_eq!(
            pod.namespace.ip("neigh show nud permanent"),
            format!("169.254.1.1 dev eth0 lladdr {} PERMANENT\n", state.host.mac)
        );
        assert!(
            pod.namespace.ip("-4 addr show dev eth0").contains("inet 10.0.2.20/32 scope global")
        );
    });
}

fn without_carrier(routes: &str) -> String {
    routes.replace(" linkdown", "")
}

#[test]
fn a_pod_on_the_primary_eni_needs_no_rule_from_it() {
    on_node(|node| {
        let _pod = Pod::added(node, "a", &["10.0.0.20@main"]);
        assert_eq!(
            node.ip("rule"),
            "0:\tfrom all lookup local\n\
             512:\tfrom all to 10.0.0.20 lookup main\n\
             32766:\tfrom all lookup main\n\
             32767:\tfrom all lookup default\n"
        );
    });
}

/// What the caller is told is what the kernel has, so that the CNI result tells the truth.
#[test]
fn the_answer_is_what_the_kernel_has() {
    on_node(|node| {
        let pod = Pod::planned("sample-pod", &["10.0.2.20@2"]);
        let state = pod.add(node);
        let host = node.ip("-d link show enicc21c2d7785");
        for expected in [
            format!("link/ether {} ", state.host.mac),
            format!("mtu {} ", state.host.mtu),
            format!("alias {}\n", pod.link.owner),
            ",UP".to_owned(),
            " veth ".to_owned(),
        ] {
            assert!(host.contains(&expected), "{expected:?} in {host}");
        }
        let inside = pod.namespace.ip("-d link show eth0");
        for expected in
            [format!("link/ether {} ", state.pod.mac), "mtu 9001 ".to_owned(), ",UP".to_owned()]
        {
            assert!(inside.contains(&expected), "{expected:?} in {inside}");
        }
        assert_eq!((state.host.mtu, state.pod.mtu), (9001, 9001));
        let routes: Vec<String> = state.routes.iter().map(ToString::to_string).collect();
        assert_eq!(routes, ["169.254.1.1 table main", "default via 169.254.1.1 table main"]);
    });
}

#[test]
fn the_host_end_takes_no_configuration_from_the_pod() {
    on_node(|node| {
        let pod = Pod::added(node, "a", &["10.0.0.20@main"]);
        for (key, value) in [("accept_ra", "0"), ("accept_redirects", "1"), ("forwarding", "0")] {
            let key = format!("net/ipv6/conf/{}/{key}", pod.link.host_name);
            assert_eq!(node.sysctl(&key), value, "{key}");
        }
    });
}

#[test]
fn add_check_and_del_leave_the_node_as_it_was() {
    on_node(|node| {
        let pod = Pod::planned("a", &["10.0.2.20@2", "10.0.0.21@main"]);
        let before = (node.dump(), pod.namespace.dump());
        let state = pod.add(node);
        node.block_on(datapath::pod::check(&pod.expectation(&state))).unwrap();
        assert_ne!((node.dump(), pod.namespace.dump()), before);
        node.block_on(datapath::pod::del(&pod.removal())).unwrap();
        assert_eq!((node.dump(), pod.namespace.dump()), before);
    });
}

/// An ADD that must fail with these words, and change nothing on either side.
struct Refused {
    what: &'static str,
    prepare: fn(&Namespace, &mut Pod),
    words: &'static str,
}

fn refuses(cases: &[Refused]) {
    for Refused { what, prepare, words } in cases {
        on_node(|node| {
            let mut pod = Pod::planned("sample-pod", &["10.0.2.20@2"]);
            prepare(node, &mut pod);
            let before = (node.dump(), pod.namespace.dump());
            let error = node.block_on(datapath::pod::add(&pod.link)).expect_err(what);
            let text = chain(&error);
            assert!(text.contains(words), "{what}: {text}");
            assert_eq!((node.dump(), pod.namespace.dump()), before, "{what}");
        });
    }
}

#[test]
fn a_namespace_that_cannot_be_a_pods_is_refused() {
    refuses(&[
        Refused {
            what: "the node's",
            prepare: |node, pod| pod.link.netns = node.path(),
            words: "is this process's own network namespace",
        },
        Refused {
            what: "gone",
            prepare: |_, pod| pod.link.netns = "/var/run/netns/tp-none".into(),
            words: "open network namespace /var/run/netns/tp-none: No such file or directory",
        },
        Refused {
            what: "no namespace",
            prepare: |_, pod| pod.link.netns = "/dev/null".into(),
            words: "enter network namespace /dev/null: Invalid argument",
        },
    ]);
}

#[test]
fn a_name_that_is_in_use_is_refused() {
    refuses(&[
        Refused {
            what: "the pod's interface",
            prepare: |_, pod| drop(pod.namespace.ip("link add eth0 type veth peer name other")),
            words: "interface eth0 exists already in /var/run/netns/",
        },
        Refused {
            what: "a device's of the host",
            prepare: |node, pod| {
                drop(node.ip(&format!("link add link pad {} type macvlan", pod.link.host_name)))
            },
            words: "exists and is in use",
        },
        Refused {
            what: "this pod's other interface",
            prepare: |node, pod| {
                pod.add(node);
                pod.link.ifname = "eth1".parse().unwrap();
            },
            words: "exists and is in use",
        },
    ]);
}

#[test]
fn addresses_that_a_pod_cannot_have_are_refused() {
    refuses(&[
        Refused {
            what: "none",
            prepare: |_, pod| pod.link.addresses.clear(),
            words: "has no address",
        },
        Refused {
            what: "one that no pod can have",
            prepare: |_, pod| pod.link.addresses.push(address("169.254.1.1@main")),
            words: "169.254.1.1 cannot be a pod's address",
        },
        Refused {
            what: "one twice",
            prepare: |_, pod| pod.link.addresses.push(pod.link.addresses[0]),
            words: "add address 10.0.2.20/32 to eth0: ",
        },
        Refused {
            what: "IPv6, which the node has not",
            prepare: |_, pod| pod.link.addresses.push(address("fd00::20@main")),
            words: "add route fd00::20 table main dev eni",
        },
    ]);
}

#[test]
fn a_pod_that_has_a_default_route_is_refused() {
    refuses(&[Refused {
        what: "the pod has a default route",
        prepare: |_, pod| {
            pod.namespace.ip("link add net1 type veth peer name other");
            pod.namespace.ip("link set net1 up");
            pod.namespace.ip("route add default dev net1");
        },
        words: "add route default via 169.254.1.1 table main dev eth0: File exists",
    }]);
}

#[test]
fn what_an_earlier_pod_left_for_the_address_is_replaced() {
    on_node(|node| {
        node.ip("link set pad up");
        node.ip("route add 10.0.2.20 dev pad");
        node.ip("rule add to 10.0.2.20 lookup main priority 512");
        node.ip("rule add from 10.0.2.20 lookup 7 priority 1536");
        node.ip("rule add from 10.0.2.20 lookup 8 priority 1536");
        node.ip("rule add from 10.0.2.21 lookup 8 priority 1536");
        let _pod = Pod::added(node, "sample-pod", &["10.0.2.20@2"]);
        assert_eq!(
            node.ip("rule"),
            "0:\tfrom all lookup local\n\
             512:\tfrom all to 10.0.2.20 lookup main\n\
             1536:\tfrom 10.0.2.21 lookup 8\n\
             1536:\tfrom 10.0.2.20 lookup 2\n\
             32766:\tfrom all lookup main\n\
             32767:\tfrom all lookup default\n"
        );
        assert_eq!(without_carrier(&node.ip("route")), "10.0.2.20 dev enicc21c2d7785 scope link\n");
    });
}
