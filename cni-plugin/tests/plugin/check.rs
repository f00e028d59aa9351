//! Assertions 37 to 43: CHECK.

use serde_json::{Value, json};

use crate::fake::Mode;
use crate::node::{Call, Node, Pod};

fn check<'a>(node: &'a Node, pod: &Pod, result: &Value) -> Call<'a> {
    let mut call = node.pod_call("CHECK", pod);
    call.conf("prevResult", result.clone());
    call
}

#[test]
fn a37_check_without_prev_result_or_version_is_refused() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let result = node.add(&pod);
    node.pod_call("CHECK", &pod).run().fails(7, "prevResult");
    check(&node, &pod, &result).conf("cniVersion", "0.3.1").run().fails(1, "0.3.1");
}

#[test]
fn a38_and_a42_check_after_add_changes_nothing() {
    let Some(node) = Node::new() else { return };
    // Primary ENI, secondary ENI.
    let pods = ["p1", "p2", "p3"].map(|name| node.pod(&format!("c-{name}"), name));
    for (pod, version) in pods.iter().zip(["0.4.0", "1.0.0", "1.1.0"]) {
        let result = node.pod_call("ADD", pod).conf("cniVersion", version).run().result();
        let before = (node.host.dump(), pod.netns.dump());
        check(&node, pod, &result).conf("cniVersion", version).run().silent();
        assert_eq!((node.host.dump(), pod.netns.dump()), before);
    }
}

/// A harm to the pod or the node, as arguments of `ip`, and a part of CHECK's error. `HOST` stands for
/// the host end's name.
const HARMS: [(&str, &str, &str); 11] = [
    ("pod", "link set eth0 down", "eth0 is down"),
    ("pod", "link del eth0", "eth0 is not in"),
    ("pod", "link set eth0 address 02:00:00:00:00:99", "hardware address"),
    ("pod", "link set eth0 mtu 1400", "MTU 1400"),
    ("pod", "addr del 10.0.0.2/32 dev eth0", "10.0.0.2"),
    ("pod", "route del default", "no route"),
    ("pod", "neigh del 169.254.1.1 dev eth0", "no neighbour"),
    ("host", "route del 10.0.0.2", "no route"),
    ("host", "rule del pref 512", "no rule"),
    ("host", "rule del pref 1536", "no rule"),
    ("host", "link set HOST alias another", "is not c1/eth0's"),
];

#[test]
fn a39_check_finds_every_harm() {
    for (side, harm, part) in HARMS {
        let Some(node) = Node::new() else { return };
        node.add(&node.pod("c0", "p0"));
        let pod = node.pod("c1", "p1");
        let result = node.add(&pod);
        assert_eq!(result["ips"][0]["address"], "10.0.0.2/32", "this one has all rules");
        node.del(&node.pod("c0", "p0"));
        let harm = harm.replace("HOST", &pod.host_name());
        match side {
            "pod" => pod.netns.ip(&harm),
            _ => node.host.ip(&harm),
        };
        check(&node, &pod, &result).run().fails(153, part);
    }
}

#[test]
fn a40_check_finds_another_record() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let result = node.add(&pod);
    let key = ("net".to_owned(), "c1".to_owned(), "eth0".to_owned());
    let mut record = node.ipamd().memory().records.remove(&key).unwrap();
    check(&node, &pod, &result).run().fails(154, "10.0.0.1");
    record.addresses[0].address = "10.0.0.9".to_owned();
    node.ipamd().memory().records.insert(key, record);
    check(&node, &pod, &result).run().fails(154, "10.0.0.9");
    let nameless = json!({"interfaces": [{"name": "eth1", "sandbox": "/x"}]});
    check(&node, &pod, &nameless).run().fails(154, "no eth0");
}

#[test]
fn a41_check_tolerates_later_plugins_additions() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let mut result = node.add(&pod);
    for addition in [
        "addr add 10.9.0.1/24 dev eth0",
        "route add 10.8.0.0/16 via 169.254.1.1",
        "link add name br0 type bridge",
    ] {
        pod.netns.ip(addition);
    }
    let addresses = result["ips"].as_array_mut().unwrap();
    addresses.push(json!({"address": "10.9.0.1/24", "interface": 1}));
    check(&node, &pod, &result).run().silent();
}

#[test]
fn a41_check_with_another_pod_name_succeeds() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let result = node.add(&pod);
    check(&node, &pod, &result).set("CNI_ARGS", "K8S_POD_NAME=other").run().silent();
}

#[test]
fn check_without_daemon_is_code_11() {
    let Some(mut node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let result = node.add(&pod);
    node.ipamd().set(Mode::Failing(tonic::Code::Unavailable));
    let hasty = |node: &Node| check(node, &pod, &result).conf("ipamdTimeout", "300ms").run();
    hasty(&node).fails(11, "Check");
    node.stop_ipamd();
    hasty(&node).fails(11, "connect to ipamd");
}
