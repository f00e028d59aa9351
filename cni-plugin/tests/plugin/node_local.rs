//! Node-local addresses: what the plugin sets up, what its result shows, and older daemons.

use serde_json::json;

use crate::fake::Mode;
use crate::node::{Call, Node, Pod};

fn check<'a>(node: &'a Node, pod: &Pod, result: &serde_json::Value) -> Call<'a> {
    let mut call = node.pod_call("CHECK", pod);
    call.conf("prevResult", result.clone());
    call
}

/// The kubelet would take any other address in the result for one of the pod.
#[test]
fn result_shows_the_vpc_address_alone() {
    let Some(node) = Node::new() else { return };
    node.ipamd().set(Mode::NodeLocal("fd00::ac:2"));
    let pod = node.pod("c1", "p1");
    let before = (node.host.dump(), pod.netns.dump());
    let result = node.add(&pod);
    assert_eq!(result["ips"].as_array().unwrap().len(), 1, "{result}");
    assert_eq!(result["ips"][0]["address"], "10.0.0.1/32");
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]));
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 2, "one interface: {result}");
    let addresses = pod.netns.ip("-o -6 addr show dev eth0");
    let is_its = |line: &&str| line.contains("inet6 fd00::ac:2/128");
    let address = addresses.lines().find(is_its).expect(&addresses);
    assert!(!address.contains("tentative"), "usable at once: {address}");
    let routes = pod.netns.ip("-6 route");
    assert!(routes.contains("default via fe80::1 dev eth0"), "{routes}");
    let routes = node.host.ip("-6 route");
    assert!(routes.contains(&format!("fd00::ac:2 dev {}", pod.host_name())), "{routes}");
    check(&node, &pod, &result).run().silent();
    // A DEL without daemon knows the addresses of the result alone.
    node.pod_call("DEL", &pod).conf("prevResult", result).run().silent();
    assert_eq!(node.host.dump(), before.0);
    assert!(!pod.netns.ip("addr").contains("eth0"));
}

#[test]
fn check_finds_a_lost_node_local_address() {
    let Some(node) = Node::new() else { return };
    node.ipamd().set(Mode::NodeLocal("169.254.172.2"));
    // The VPC address is not on IPv6 here, which is all the same to the plugin.
    for (side, harm, part) in [
        ("pod", "addr del 169.254.172.2/32 dev eth0", "169.254.172.2"),
        ("host", "route del 169.254.172.2", "no route 169.254.172.2"),
    ] {
        let pod = node.pod(side, side);
        let result = node.add(&pod);
        check(&node, &pod, &result).run().silent();
        let namespace = if side == "pod" { &pod.netns } else { &node.host };
        namespace.ip(harm);
        check(&node, &pod, &result).run().fails(153, part);
        node.del(&pod);
    }
}

/// The daemon gives none where none is asked for. An older one does not know the question.
#[test]
fn only_the_first_interface_asks_for_a_node_local_address() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let result = node.add(&pod);
    assert!(!node.host.ip("route").contains("169.254.172"));
    check(&node, &pod, &result).run().silent();
    node.ipamd().set(Mode::NodeLocal("169.254.172.2"));
    let mut call = node.pod_call("ADD", &pod);
    call.set("CNI_IFNAME", "net1").run().result();
    assert!(!node.host.ip("route").contains("169.254.172"));
    assert_eq!(node.ipamd().held(), ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn malformed_node_local_address_is_a_bad_answer() {
    let Some(node) = Node::new() else { return };
    node.ipamd().set(Mode::NodeLocal("169.254.172.2/32"));
    let pod = node.pod("c1", "p1");
    let before = node.host.dump();
    node.pod_call("ADD", &pod).run().fails(155, "169.254.172.2/32");
    assert_eq!((node.host.dump(), node.ipamd().held()), (before, Vec::<String>::new()));
}
