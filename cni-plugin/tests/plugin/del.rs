//! Assertions 29 to 36: DEL.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::fake::{Mode, on_eni};
use crate::node::Node;

#[test]
fn a29_del_of_nothing_succeeds() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    for netns in ["", "/run/netns/never-there", pod.netns.path().to_str().unwrap()] {
        node.pod_call("DEL", &pod).set("CNI_NETNS", netns).run().silent();
    }
}

#[test]
fn a29_del_without_namespace_succeeds() {
    let Some(node) = Node::new() else { return };
    let before = node.host.dump();
    let pod = node.pod("c1", "p1");
    node.add(&pod);
    let mut call = node.pod_call("DEL", &pod);
    drop(pod);
    call.set("CNI_NETNS", "").run().silent();
    assert_eq!(node.host.dump(), before);
    assert!(node.ipamd().held().is_empty());
}

#[test]
fn a30_and_a34_repeated_del_leaves_nothing() {
    let Some(node) = Node::new() else { return };
    // The second address is on a secondary ENI.
    let pods = [node.pod("c1", "p1"), node.pod("c2", "p2")];
    let before = node.host.dump();
    let results = pods.each_ref().map(|pod| node.add(pod));
    for _ in 0..2 {
        for (pod, result) in pods.iter().zip(&results) {
            node.pod_call("DEL", pod).conf("prevResult", result.clone()).run().silent();
        }
        assert_eq!(node.host.dump(), before);
        for pod in &pods {
            assert_eq!(pod.netns.ip("-o link").lines().count(), 1, "only lo is left");
        }
    }
    assert!(node.ipamd().held().is_empty());
}

#[test]
fn a31_del_needs_only_record_or_prev_result() {
    let Some(mut node) = Node::new() else { return };
    let before = node.host.dump();
    let pods = [node.pod("c1", "p1"), node.pod("c2", "p2"), node.pod("c3", "p3")];
    let results = pods.each_ref().map(|pod| node.add(pod));
    node.del(&pods[0]);
    node.stop_ipamd();
    node.pod_call("DEL", &pods[1]).conf("prevResult", results[1].clone()).run().silent();
    // With neither, the plugin finds the link by its name.
    node.del(&pods[2]);
    assert_eq!(node.host.dump(), before);
}

/// A runtime that has lost the pod's name, or names it differently, has the container and interface.
#[test]
fn a31_del_with_another_pod_name_removes_the_link() {
    let Some(mut node) = Node::new() else { return };
    let before = node.host.dump();
    for (args, away) in [("IgnoreUnknown=1", false), ("K8S_POD_NAME=other", false), ("", true)] {
        let pod = node.pod("c1", "p1");
        node.add(&pod);
        if away {
            node.stop_ipamd();
        }
        node.pod_call("DEL", &pod).set("CNI_ARGS", args).run().silent();
        assert_eq!(node.host.dump(), before, "{args}");
    }
}

#[test]
fn a32_late_del_leaves_the_newer_sandbox() {
    let Some(node) = Node::new() else { return };
    let old = node.pod("c-old", "web");
    let late = node.pod_call("DEL", &old);
    let old_result = node.add(&old);
    node.del(&old);
    let new = node.pod("c-new", "web");
    assert_eq!(new.host_name(), old.host_name());
    let result = node.add(&new);
    let before = node.host.dump();
    late.run().silent();
    late.clone().conf("prevResult", old_result).run().silent();
    assert_eq!(node.host.dump(), before);
    node.pod_call("CHECK", &new).conf("prevResult", result).run().silent();
}

#[test]
fn a32_late_del_leaves_an_address_of_another_pod() {
    let Some(mut node) = Node::new() else { return };
    node.ipamd().set(Mode::Granting(vec![on_eni("10.0.0.77", 0)]));
    let old = node.pod("c1", "p1");
    let old_result = node.add(&old);
    node.del(&old);
    let new = node.pod("c2", "p2");
    node.add(&new);
    let before = node.host.dump();
    let mut late = node.pod_call("DEL", &old);
    late.conf("prevResult", old_result).run().silent();
    assert_eq!(node.host.dump(), before);
    assert_eq!(node.ipamd().held(), ["10.0.0.77"]);
    let late = late.conf.clone();
    node.stop_ipamd();
    let mut again = node.pod_call("DEL", &old);
    again.conf = late;
    again.run().silent();
    assert_eq!(node.host.dump(), before);
}

#[test]
fn a33_del_without_daemon_is_left_on_disk() {
    let Some(mut node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    node.add(&pod);
    node.stop_ipamd();
    for _ in 0..2 {
        node.del(&pod);
        assert_eq!(node.pending(), ["net:c1:eth0.json"]);
    }
    let directory = proto::pending::directory(&node.socket());
    let file = directory.join("net:c1:eth0.json");
    for path in [&directory, &file] {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is for root alone", path.display());
    }
    let left: proto::pending::PendingDel =
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(left.file_name(), "net:c1:eth0.json");
}

#[test]
fn a33_new_add_withdraws_the_del_on_disk() {
    let Some(mut node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    node.add(&pod);
    node.ipamd().set(Mode::Failing(tonic::Code::Unavailable));
    node.del(&pod);
    assert_eq!(node.pending().len(), 1);
    node.restart_ipamd();
    node.ipamd().set(Mode::Serving);
    node.add(&pod);
    assert!(node.pending().is_empty());
    assert_eq!(node.ipamd().held(), ["10.0.0.1"]);
}

#[test]
fn a33_del_without_daemon_and_disk_fails() {
    let Some(mut node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let before = node.host.dump();
    node.add(&pod);
    node.stop_ipamd();
    std::fs::write(proto::pending::directory(&node.socket()), "in the way").unwrap();
    node.pod_call("DEL", &pod).run().fails(5, "connect to ipamd");
    assert_eq!(node.host.dump(), before, "all that can be done is done");
}

#[test]
fn a36_del_after_changed_options_succeeds() {
    let Some(mut node) = Node::new() else { return };
    let before = node.host.dump();
    let pod = node.pod("c1", "p1");
    let result = node.add(&pod);
    node.stop_ipamd();
    let mut call = node.pod_call("DEL", &pod);
    call.conf("vethPrefix", "new").conf("mtu", "huge").conf("prevResult", result);
    call.run().silent();
    assert_eq!(node.host.dump(), before);
}

/// Results of amazon-vpc-cni-k8s have a table where a MAC belongs, and list an interface that does not
/// exist.
#[test]
fn a36_del_removes_an_incumbents_pod() {
    let Some(mut node) = Node::new() else { return };
    let before = node.host.dump();
    let pod = node.pod("c1", "p1");
    node.add(&pod);
    node.host.ip(&format!("link set {} alias ''", pod.host_name()));
    node.stop_ipamd();
    let sandbox = pod.netns.path();
    let result = json!({
        "cniVersion": "0.4.0",
        "interfaces": [{"name": pod.host_name()}, {"name": "eth0", "mac": "2", "sandbox": sandbox},
            {"name": "dummy0", "mac": "0", "sandbox": "1"}],
        "ips": [{"version": "4", "interface": 1, "address": "10.0.0.1/32"}],
        "dns": {},
    });
    let mut call = node.pod_call("DEL", &pod);
    call.conf("cniVersion", "0.4.0").conf("prevResult", result).run().silent();
    assert_eq!(node.host.dump(), before);
}

#[test]
fn a65_del_rejected_by_the_daemon_is_code_11() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let before = node.host.dump();
    node.add(&pod);
    node.ipamd().set(Mode::Failing(tonic::Code::Internal));
    node.pod_call("DEL", &pod).run().fails(11, "Del");
    assert_eq!(node.host.dump(), before, "all that can be done is done");
    node.ipamd().set(Mode::Serving);
    node.del(&pod);
    assert!(node.ipamd().held().is_empty() && node.pending().is_empty());
}
