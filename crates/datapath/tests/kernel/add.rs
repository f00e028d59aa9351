//! `pod::make` and what follows: what it makes, what it refuses, and that a failed ADD leaves nothing.

use datapath::pod::{AddPodError, PodLink};

use crate::lab::{Namespace, Pod, add, address, error_chain, on_node};

/// The example in the documentation of amazon-vpc-cni-k8s: a pod on the ENI at device index 1.
#[test]
fn pod_objects_are_as_documented() {
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
fn pod_on_the_primary_eni_has_no_from_rule() {
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

/// The CNI result is made from this answer, so it must be what the kernel has.
#[test]
fn add_returns_what_the_kernel_has() {
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
fn host_end_accepts_no_configuration_from_the_pod() {
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

/// An ADD that must fail with `text` in its error, and change nothing on either side.
struct Refused {
    what: &'static str,
    prepare: fn(&Namespace, &mut Pod),
    text: &'static str,
}

fn refuses(cases: &[Refused]) {
    for Refused { what, prepare, text } in cases {
        on_node(|node| {
            let mut pod = Pod::planned("sample-pod", &["10.0.2.20@2"]);
            prepare(node, &mut pod);
            let before = (node.dump(), pod.namespace.dump());
            let error = node.block_on(add(&pod.link)).expect_err(what);
            let found = error_chain(&error);
            assert!(found.contains(text), "{what}: {found}");
            assert_eq!((node.dump(), pod.namespace.dump()), before, "{what}");
        });
    }
}

#[test]
fn add_with_bad_namespace_is_refused() {
    refuses(&[
        Refused {
            what: "the node's namespace",
            prepare: |node, pod| pod.link.netns = node.path(),
            text: "is this process's own network namespace",
        },
        Refused {
            what: "a namespace that is gone",
            prepare: |_, pod| pod.link.netns = "/var/run/netns/tp-none".into(),
            text: "open network namespace /var/run/netns/tp-none: No such file or directory",
        },
        Refused {
            what: "a file that is not a namespace",
            prepare: |_, pod| pod.link.netns = "/dev/null".into(),
            text: "enter network namespace /dev/null: Invalid argument",
        },
    ]);
}

#[test]
fn add_with_used_name_is_refused() {
    refuses(&[
        Refused {
            what: "a name that the pod has",
            prepare: |_, pod| drop(pod.namespace.ip("link add eth0 type veth peer name other")),
            text: "interface eth0 exists already in /var/run/netns/",
        },
        Refused {
            what: "the name of a device of the node",
            prepare: |node, pod| {
                drop(node.ip(&format!("link add link pad {} type macvlan", pod.link.host_name)))
            },
            text: "exists and is in use",
        },
        Refused {
            what: "the name for this pod's other interface",
            prepare: |node, pod| {
                pod.add(node);
                pod.link.ifname = "eth1".parse().unwrap();
            },
            text: "exists and is in use",
        },
    ]);
}

/// Two ADDs of one attachment: the second is not told that it may undo anything.
#[test]
fn second_make_of_a_link_fails_and_changes_nothing() {
    on_node(|node| {
        let pod = Pod::planned("a", &["10.0.2.20@2"]);
        let first = node.block_on(datapath::pod::make(pod.link.clone())).unwrap();
        let renamed = Pod::planned("b", &["10.0.2.20@2"]).link.host_name;
        let before = (node.dump(), pod.namespace.dump());
        for host_name in [pod.link.host_name.clone(), renamed] {
            let link = PodLink { host_name, ..pod.link.clone() };
            let error = node.block_on(datapath::pod::make(link)).unwrap_err();
            assert!(matches!(error, AddPodError::MadeAlready { .. }), "{error:?}");
            assert_eq!((node.dump(), pod.namespace.dump()), before);
        }
        drop(first);
    });
}

/// Its own link was taken away meanwhile, and another ADD of the attachment has made one.
#[test]
fn undo_leaves_a_link_that_another_add_has_made() {
    on_node(|node| {
        let pod = Pod::planned("a", &["10.0.2.20@2"]);
        node.block_on(async {
            let first = datapath::pod::make(pod.link.clone()).await.unwrap();
            datapath::pod::del(&pod.removal()).await.unwrap();
            let state = add(&pod.link).await.unwrap();
            let before = node.dump();
            first.undo().await.unwrap();
            assert_eq!(node.dump(), before);
            datapath::pod::check(&pod.expectation(&state)).await.unwrap();
        });
    });
}

#[test]
fn add_with_unusable_address_is_refused() {
    refuses(&[
        Refused {
            what: "no address",
            prepare: |_, pod| pod.link.addresses.clear(),
            text: "has no address",
        },
        Refused {
            what: "an address that no pod can have",
            prepare: |_, pod| pod.link.addresses.push(address("169.254.1.1@main")),
            text: "169.254.1.1 cannot be a pod's address",
        },
        Refused {
            what: "one address twice",
            prepare: |_, pod| pod.link.addresses.push(pod.link.addresses[0]),
            text: "add address 10.0.2.20/32 to eth0: ",
        },
        Refused {
            what: "an IPv6 address on a node without IPv6",
            prepare: |_, pod| pod.link.addresses.push(address("fd00::20@main")),
            text: "add route fd00::20 table main dev eni",
        },
    ]);
}

#[test]
fn add_to_pod_with_default_route_is_refused() {
    refuses(&[Refused {
        what: "the pod has a default route",
        prepare: |_, pod| {
            pod.namespace.ip("link add net1 type veth peer name other");
            pod.namespace.ip("link set net1 up");
            pod.namespace.ip("route add default dev net1");
        },
        text: "add route default via 169.254.1.1 table main dev eth0: File exists",
    }]);
}

#[test]
fn add_replaces_an_earlier_pods_leftovers() {
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
