//! Our DEL and CHECK of pods that amazon-vpc-cni-k8s has connected, with each kernel object as its
//! v1.23.1 makes it.

use datapath::Removal;
use datapath::pod::{PodExpectation, del};

use crate::lab::{Namespace, Pod, on_node};
use crate::restore::{restored, running};

/// The main table: a pod on the primary ENI has no rule but the one to it.
const MAIN: u32 = 254;

/// The option of `ip` for the address's family, the pod's gateway and the length of a host route.
fn family(address: &str) -> (&'static str, &'static str, &'static str) {
    match address.contains(':') {
        true => ("-6", "fe80::1", "128"),
        false => ("-4", "169.254.1.1", "32"),
    }
}

/// The pod `default/<name>` with one address, connected by `ip` as the incumbent does.
fn connected(node: &Namespace, name: &str, address: &str, table: u32) -> Pod {
    let (ip, gateway, alone) = family(address);
    let namespace = match ip {
        "-6" => Namespace::with_ipv6("pod"),
        _ => Namespace::new("pod"),
    };
    let pod = Pod::planned_in(namespace, name, &[&format!("{address}@{table}")]);
    let (inside, host) = (&pod.namespace, pod.link.host_name.as_str());
    // Unlike us, it leaves duplicate address detection on and waits for its end.
    let peer = format!("peer name eth0 mtu 9001 netns {}", inside.name());
    node.ip(&format!("link add {host} address 0e:00:00:00:00:01 mtu 9001 type veth {peer}"));
    node.ip(&format!("link set {host} up"));
    inside.ip("link set eth0 up");
    inside.ip(&format!("{ip} route replace {gateway}/{alone} dev eth0 scope link"));
    inside.ip(&format!("{ip} route add default via {gateway} dev eth0"));
    inside.ip(&format!("{ip} addr add {address}/{alone} dev eth0"));
    inside.ip(&format!(
        "{ip} neigh replace {gateway} lladdr 0e:00:00:00:00:01 dev eth0 nud permanent"
    ));
    node.ip(&format!("{ip} route replace {address} dev {host} scope link"));
    node.ip(&format!("{ip} rule add to {address} lookup main priority 512"));
    if table != MAIN {
        node.ip(&format!("{ip} rule add from {address} lookup {table} priority 1536"));
    }
    pod
}

/// Connects the pod, removes it, and asserts that the node is as before.
fn check_del(address: &str, table: u32, alive: bool, named: bool) {
    on_node(|_| {
        let node = &Namespace::with_ipv6("node");
        // Links without addresses of their own, which would come into use some time later. The number is the
        // kernel's `IN6_ADDR_GEN_MODE_NONE`.
        node.set_sysctl("net/ipv6/conf/default/addr_gen_mode", "1");
        node.ip("link add pad type veth peer name pad-peer");
        // Rules of the incumbent that are not a pod's: an ENI's own, and the one for marked packets.
        node.ip("rule add from 10.0.2.9 lookup 2 priority 32765");
        node.ip("rule add fwmark 0x80/0x80 lookup main priority 1024");
        let neighbour = match address.contains(':') {
            true => connected(node, "neighbour", "fd00:2::21", table),
            false => connected(node, "neighbour", "10.0.2.21", table),
        };
        let before = node.dump();
        let pod = connected(node, "sample-pod", address, table);
        // The node's neighbour entry for the pod goes with the link.
        let (ip, ..) = family(address);
        let host = pod.link.host_name.clone();
        node.ip(&format!(
            "{ip} neigh replace {address} lladdr 0e:00:00:00:00:02 dev {host} nud permanent"
        ));
        let mut removal = pod.removal();
        if !named {
            removal.addresses.clear();
        }
        let living = alive.then_some(pod);
        let removed = node.block_on(del(&removal)).unwrap();
        assert_eq!(removed.addresses, [(address.parse().unwrap(), Removal::Removed)]);
        let left = node.dump();
        assert_eq!(left, before, "{address} table {table} alive {alive} named {named}");
        let removed = node.block_on(del(&removal)).unwrap();
        assert_eq!(removed.link, Removal::Absent);
        assert!(removed.addresses.iter().all(|(_, did)| *did == Removal::Absent));
        drop((living, neighbour));
    });
}

#[test]
fn del_with_namespace_leaves_nothing_of_incumbent_pod() {
    for (address, table) in [("10.0.2.20", 2), ("10.0.0.20", MAIN), ("fd00:2::20", MAIN)] {
        check_del(address, table, true, true);
    }
}

#[test]
fn del_after_namespace_leaves_nothing_of_incumbent_pod() {
    for (address, table) in [("10.0.2.20", 2), ("10.0.0.20", MAIN), ("fd00:2::20", MAIN)] {
        check_del(address, table, false, true);
    }
}

#[test]
fn del_finds_an_incumbent_pods_addresses_by_its_link() {
    for (address, table) in [("10.0.2.20", 2), ("fd00:2::20", MAIN)] {
        check_del(address, table, true, false);
    }
}

/// The name and the address now belong to a sandbox that we connected.
#[test]
fn late_del_leaves_a_link_with_another_mark() {
    on_node(|node| {
        let pod = connected(node, "web-0", "10.0.2.20", 2);
        node.ip(&format!("link set {} alias newer/eth0", pod.link.host_name));
        let before = node.dump();
        let removed = node.block_on(del(&pod.removal())).unwrap();
        assert_eq!(removed.link, Removal::NotOurs);
        assert_eq!(removed.addresses, [("10.0.2.20".parse().unwrap(), Removal::NotOurs)]);
        assert_eq!(node.dump(), before);
    });
}

/// CHECK with the incumbent's result, which has no hardware address.
#[test]
fn check_of_incumbent_pod_finds_missing_objects() {
    on_node(|node| {
        let pod = connected(node, "sample-pod", "10.0.2.20", 2);
        let expectation = PodExpectation {
            netns: pod.link.netns.clone(),
            ifname: pod.link.ifname.clone(),
            host_name: pod.link.host_name.clone(),
            owner: pod.link.owner.clone(),
            mac: None,
            mtu: None,
            addresses: pod.link.addresses.clone(),
            node_local: None,
            routes: datapath::pod::PodRoutes::Main,
            ipv6: datapath::pod::PodIpv6::AsItIs,
        };
        let check = || node.block_on(datapath::pod::check(&expectation));
        check().unwrap();
        node.ip("rule del from 10.0.2.20 lookup 2 priority 1536");
        check().unwrap_err();
        node.ip("rule add from 10.0.2.20 lookup 2 priority 1536");
        check().unwrap();
        pod.namespace.ip("neigh del 169.254.1.1 dev eth0");
        check().unwrap_err();
    });
}

/// `AWS_VPC_K8S_CNI_VETHPREFIX` may be anything of up to four bytes, and another value than when the link was made.
#[test]
fn pod_of_the_incumbent_is_found_under_any_prefix() {
    on_node(|node| {
        let pod = connected(node, "web", "10.0.2.20", 2);
        let hash = pod.link.host_name.as_str().trim_start_matches("eni");
        let name = format!("vpc{hash}");
        for words in [
            format!("link set eni{hash} down"),
            format!("link set eni{hash} name {name}"),
            // Another veth with the same end of its name, without a route.
            format!("link add a{hash} type veth peer name other"),
            format!("link set {name} up"),
            format!("route add 10.0.2.20 dev {name} scope link"),
        ] {
            node.ip(&words);
        }
        let before = node.dump();
        assert!(restored(node, &[running(&pod)]).is_empty(), "nothing differs");
        node.ip("rule del to 10.0.2.20 priority 512");
        let done = restored(node, &[running(&pod)]);
        assert_eq!((done.len(), &done[0].host_name), (1, &name));
        assert_eq!(node.dump(), before);
        node.ip(&format!("link del a{hash}"));
        node.ip(&format!("route del 10.0.2.20 dev {name}"));
        assert_eq!(restored(node, &[running(&pod)])[0].host_name, name, "the name is enough");
    });
}

#[test]
fn pod_of_the_incumbent_is_restored_by_its_links_name() {
    on_node(|node| {
        let pod = connected(node, "web", "10.0.2.20", 2);
        let before = node.dump();
        node.ip("rule del to 10.0.2.20 priority 512");
        node.ip("rule del from 10.0.2.20 priority 1536");
        assert_eq!(restored(node, &[running(&pod)]).len(), 1);
        assert_eq!(node.dump(), before);
    });
}
