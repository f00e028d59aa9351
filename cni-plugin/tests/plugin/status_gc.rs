//! Assertions 44 to 60: STATUS, GC, and daemons of another version.

use proto::v1::pod_address::Reach;
use proto::v1::{BranchReach, PodAddress, Refused};
use serde_json::{Value, json};

use crate::fake::{Mode, on_eni};
use crate::node::{Answer, Node};

#[test]
fn a44_status_succeeds_where_add_succeeds() {
    let Some(node) = Node::new() else { return };
    node.call("STATUS").run().silent();
    node.add(&node.pod("c1", "p1"));
}

#[test]
fn a45_status_without_fitting_daemon_is_code_50() {
    let Some(mut node) = Node::new() else { return };
    node.ipamd().set(Mode::Version("0.3.0".to_owned()));
    node.call("STATUS").run().fails(50, "0.3.0");
    node.stop_ipamd();
    node.call("STATUS").run().fails(50, "connect to ipamd");
}

fn refusing(code: &str) -> Mode {
    let message = "subnet-0a1 has 0 of 251 addresses free".to_owned();
    Mode::Refusing(Refused { code: code.to_owned(), message, retry_after_ms: 0 })
}

#[test]
fn a46_status_without_addresses_is_code_50_until_served() {
    let Some(node) = Node::new() else { return };
    node.ipamd().set(refusing("SUBNET_EXHAUSTED"));
    node.call("STATUS").run().fails(50, "SUBNET_EXHAUSTED: subnet-0a1 has 0 of 251");
    node.ipamd().set(Mode::Serving);
    node.call("STATUS").run().silent();
}

#[test]
fn a47_status_with_broken_network_is_code_51() {
    let Some(node) = Node::new() else { return };
    node.ipamd().set(refusing("LINK_FAILING"));
    node.call("STATUS").run().fails(51, "LINK_FAILING");
}

#[test]
fn a48_status_allocates_nothing_and_is_bounded() {
    let Some(node) = Node::new() else { return };
    let before = node.host.dump();
    node.call("STATUS").run().silent();
    node.ipamd().set(Mode::Hung);
    // The daemon never answers, and the configured timeout is far beyond the harness's. So the end shows that
    // STATUS has a shorter bound of its own.
    node.call("STATUS").conf("ipamdTimeout", "600s").run().fails(50, "ipamd at");
    assert!(node.ipamd().memory().calls.iter().all(|call| *call == "Ready"));
    assert_eq!(node.host.dump(), before);
}

#[test]
fn a49_status_below_1_1_0_is_code_1() {
    let Some(node) = Node::new() else { return };
    node.call("STATUS").conf("cniVersion", "1.0.0").run().fails(1, "STATUS");
}

#[test]
fn status_with_bad_configuration_is_code_7() {
    let Some(node) = Node::new() else { return };
    node.call("STATUS").conf("mtu", "huge").run().fails(7, "mtu");
}

fn gc(node: &Node, network: &str, valid: &[&str]) -> Answer {
    let item = |id: &&str| json!({"containerID": id, "ifname": "eth0"});
    let list: Vec<Value> = valid.iter().map(item).collect();
    let mut call = node.call("GC");
    call.conf("name", network).conf("cni.dev/valid-attachments", list).run()
}

#[test]
fn a51_and_a52_gc_removes_exactly_the_unlisted() {
    let Some(node) = Node::new() else { return };
    let before = node.host.dump();
    let pods: Vec<_> = (0..4).map(|n| node.pod(&format!("c{n}"), &format!("p{n}"))).collect();
    for pod in &pods[..3] {
        node.add(pod);
    }
    node.pod_call("ADD", &pods[3]).conf("name", "other-net").run().result();
    gc(&node, "net", &["c1", "unheard-of"]).silent();
    let links = node.host.ip("-o link");
    let alive: Vec<_> =
        pods.iter().filter(|pod| links.contains(&pod.host_name())).map(|pod| &*pod.name).collect();
    assert_eq!(alive, ["p1", "p3"]);
    assert_eq!(node.ipamd().held(), ["10.0.0.2", "10.0.0.4"]);
    gc(&node, "net", &[]).silent();
    gc(&node, "other-net", &[]).silent();
    assert_eq!(node.host.dump(), before);
}

#[test]
fn a53_gc_without_list_removes_nothing_empty_list_all() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    node.add(&pod);
    node.call("GC").run().fails(7, "nothing is removed");
    assert_eq!(node.ipamd().memory().calls, ["Add", "Check"]);
    node.call("GC").conf("cni.dev/valid-attachments", Value::Null).run().silent();
    assert!(node.ipamd().held().is_empty());
}

#[test]
fn a54_gc_after_a_failure_continues_and_reports() {
    let Some(node) = Node::new() else { return };
    let pods = [node.pod("c1", "p1"), node.pod("c2", "p2")];
    for pod in &pods {
        node.add(pod);
    }
    let key = ("net".to_owned(), "c1".to_owned(), "eth0".to_owned());
    {
        // An attachment whose parts cannot be a link's mark.
        let mut memory = node.ipamd().memory();
        let record = memory.records.remove(&key).unwrap();
        memory.records.insert((key.0, key.1 + "\n", key.2), record);
    }
    gc(&node, "net", &[]).fails(152, "cannot mark a link");
    let links = node.host.ip("-o link");
    assert!(!links.contains(&pods[1].host_name()), "{links}");
}

/// A daemon that has lost its record knows such an attachment by its link only.
#[test]
fn a54_gc_of_a_pod_without_a_name_removes_its_link() {
    let Some(node) = Node::new() else { return };
    let before = node.host.dump();
    node.add(&node.pod("c1", "p1"));
    for record in node.ipamd().memory().records.values_mut() {
        record.pod = Default::default();
    }
    gc(&node, "net", &[]).silent();
    assert_eq!(node.host.dump(), before);
}

#[test]
fn a56_gc_repeated_changes_nothing() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let before = node.host.dump();
    node.add(&pod);
    for _ in 0..2 {
        gc(&node, "net", &[]).silent();
        assert_eq!(node.host.dump(), before);
    }
}

#[test]
fn a59_gc_reads_the_older_key() {
    let Some(node) = Node::new() else { return };
    node.add(&node.pod("c1", "p1"));
    let list = json!([{"containerID": "c1", "ifname": "eth0"}]);
    node.call("GC").conf("cni.dev/attachments", list).run().silent();
    assert_eq!(node.ipamd().held(), ["10.0.0.1"]);
}

#[test]
fn a60_status_with_daemon_one_minor_apart_succeeds() {
    let Some(node) = Node::new() else { return };
    let mut numbers = proto::VERSION.split('.').map(|n| n.parse::<u64>().unwrap());
    let (major, minor) = (numbers.next().unwrap(), numbers.next().unwrap());
    for minor in [minor.saturating_sub(1), minor + 1] {
        node.ipamd().set(Mode::Version(format!("{major}.{minor}.7")));
        node.call("STATUS").run().silent();
    }
    node.ipamd().set(Mode::Version(format!("{major}.{}.0", minor + 2)));
    node.call("STATUS").run().fails(50, "incompatible versions");
}

/// An older daemon serves all calls, or only some: it is upgraded or rolled back between two calls.
#[test]
fn a60_verbs_with_a_daemon_without_reach_succeed() {
    let Some(node) = Node::new() else { return };
    let before = node.host.dump();
    // The second pod of each round is on a secondary ENI.
    for calls in [["Add", "Check", "Del", "Gc"].as_slice(), &["Add"], &["Check"], &["Del", "Gc"]] {
        node.ipamd().set(Mode::WithoutReach(calls));
        for name in ["p1", "p2"] {
            let pod = node.pod(&format!("c-{name}"), name);
            let result = node.add(&pod);
            node.pod_call("CHECK", &pod).conf("prevResult", result).run().silent();
            node.del(&pod);
            assert_eq!(node.host.dump(), before, "{calls:?}");
            node.add(&pod);
            gc(&node, "net", &[]).silent();
            assert_eq!(node.host.dump(), before, "{calls:?}");
        }
        assert!(node.ipamd().held().is_empty(), "{calls:?}");
    }
}

#[test]
fn a60_grant_of_a_newer_daemon_is_refused_and_given_back() {
    let Some(node) = Node::new() else { return };
    let branch = BranchReach { id: "eni-b".to_owned(), vlan_id: 7, ..Default::default() };
    let branch = PodAddress {
        address: "10.0.0.7".to_owned(),
        reach: Some(Reach::ByBranch(branch)),
        ..Default::default()
    };
    let unknown = PodAddress { address: "10.0.0.8".to_owned(), ..Default::default() };
    let pod = node.pod("c1", "p1");
    let before = (node.host.dump(), pod.netns.dump());
    for (grant, part) in [
        (vec![branch], "10.0.0.7 on branch ENI eni-b (VLAN 7"),
        (vec![unknown], "10.0.0.8 without a route table"),
        (vec![on_eni("10.0.0.9", 0), on_eni("10.0.0.10", 1)], "2 addresses (10.0.0.9, 10.0.0.10)"),
    ] {
        node.ipamd().set(Mode::Granting(grant));
        let answer = node.pod_call("ADD", &pod).run();
        answer.fails(156, "UNSUPPORTED_GRANT");
        answer.fails(156, part);
        assert!(node.ipamd().held().is_empty(), "{part}");
        assert_eq!((node.host.dump(), pod.netns.dump()), before, "{part}");
    }
}
