//! The plugin under the name `loopback`.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::node::{Call, Node, Pod};

/// A call as containerd makes it: the configuration is built into it.
fn call<'a>(node: &'a Node, pod: &Pod, verb: &str) -> Call<'a> {
    let program = node.folder.path().join("loopback");
    if !program.exists() {
        symlink(Node::program(), &program).unwrap();
    }
    let mut call = node.pod_call(verb, pod);
    call.set("CNI_IFNAME", "lo");
    call.program(program);
    call.conf = json!({"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"});
    call
}

#[test]
fn loopback_raises_lo_and_asks_no_daemon() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let is_up = || pod.netns.ip("link show lo").contains("<LOOPBACK,UP,");
    assert!(!is_up());
    let result = call(&node, &pod, "ADD").run().result();
    assert!(is_up());
    assert_eq!(result["interfaces"][0]["name"], "lo");
    assert_eq!(result["interfaces"][0]["sandbox"], pod.netns.path().to_str().unwrap());
    let addresses: Vec<&Value> =
        result["ips"].as_array().unwrap().iter().map(|ip| &ip["address"]).collect();
    assert_eq!(addresses, ["127.0.0.1/8", "::1/128"]);
    let shown = pod.netns.ip("-o addr show lo");
    assert!(shown.contains("127.0.0.1/8") && shown.contains("::1/128"), "{shown}");
    // Again, as after a restart of the runtime.
    call(&node, &pod, "ADD").run().result();
    for _ in 0..2 {
        call(&node, &pod, "DEL").run().silent();
    }
    assert!(node.ipamd().memory().calls.is_empty());
}

#[test]
fn loopback_check_sees_that_lo_is_down() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let result = call(&node, &pod, "ADD").run().result();
    let mut check = call(&node, &pod, "CHECK");
    check.conf("cniVersion", "1.0.0").conf("prevResult", result);
    check.run().silent();
    pod.netns.ip("link set lo down");
    check.run().fails(153, "lo is down");
}

#[test]
fn loopback_without_namespace_fails_but_del_succeeds() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let mut add = call(&node, &pod, "ADD");
    add.set("CNI_NETNS", "/run/netns/none").run().fails(4, "CNI_NETNS");
    let mut del = call(&node, &pod, "DEL");
    del.set("CNI_NETNS", "/run/netns/none").run().silent();
    del.set("CNI_NETNS", "").run().silent();
}
