//! Assertions 16 to 28: ADD.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::v1::Refused;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::fake::{Mode, on_eni};
use crate::node::{HANG, Node, Pod};

#[test]
fn a16_result_has_the_requested_version_and_shape() {
    let Some(node) = Node::new() else { return };
    for (n, version) in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].into_iter().enumerate() {
        let pod = node.pod(&format!("c{n}"), &format!("p{n}"));
        let result = node.pod_call("ADD", &pod).conf("cniVersion", version).run().result();
        assert_eq!(result["cniVersion"], version);
        let (old, newest) = (version.starts_with("0."), version == "1.1.0");
        assert_eq!(result["ips"][0]["version"] == "4", old, "{result}");
        assert_eq!(result["interfaces"][0]["mtu"] == 9001, newest, "{result}");
        assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]));
        node.pod_call("DEL", &pod).conf("cniVersion", version).run().silent();
    }
}

#[test]
fn a17_to_a19_result_is_what_the_kernel_has() {
    let Some(node) = Node::new() else { return };
    // The second one is on a secondary ENI.
    for name in ["p1", "p2"] {
        let pod = node.pod(&format!("c-{name}"), name);
        let result = node.add(&pod);
        let sandbox = pod.netns.path();
        let (on_host, in_pod) = (link(&node, &pod.host_name()), pod_link(&pod));
        assert_eq!(
            result["interfaces"],
            json!([
                {"name": pod.host_name(), "mac": on_host.0, "mtu": on_host.1},
                {"name": "eth0", "mac": in_pod.0, "mtu": in_pod.1, "sandbox": sandbox},
            ])
        );
        assert_eq!(in_pod.1, 9001);
        assert_eq!(result["ips"][0]["interface"], 1);
        let address = result["ips"][0]["address"].as_str().unwrap().to_owned();
        assert_eq!(result["ips"].as_array().unwrap().len(), 1);
        let addresses = pod.netns.ip("-4 -o addr show dev eth0");
        assert!(addresses.contains(&format!("inet {address} ")), "{addresses}");
        let routes = pod.netns.ip("route");
        assert!(routes.contains("default via 169.254.1.1 dev eth0"), "{routes}");
    }
    let rules = node.host.ip("rule");
    assert!(rules.contains("1536:\tfrom 10.0.0.2 lookup 2"), "{rules}");
}

/// The conflist's MTU, unless the node's ENIs carry less. An older daemon does not say what they carry.
#[test]
fn mtu_is_at_most_what_the_enis_carry() {
    let Some(node) = Node::new() else { return };
    for (carried, conf, expect) in [(1500, "9001", 1500), (9001, "1400", 1400), (0, "8000", 8000)] {
        node.ipamd().set(Mode::Mtu(carried));
        let name = format!("p{carried}");
        let pod = node.pod(&format!("c-{name}"), &name);
        let result = node.pod_call("ADD", &pod).conf("mtu", conf).run().result();
        assert_eq!(pod_link(&pod).1, expect);
        assert_eq!(link(&node, &pod.host_name()).1, expect);
        assert_eq!(result["interfaces"][1]["mtu"], expect, "{result}");
    }
}

/// MAC and MTU of a link on the node.
fn link(node: &Node, name: &str) -> (String, u64) {
    mac_and_mtu(&node.host.ip(&format!("-j link show dev {name}")))
}

fn pod_link(pod: &Pod) -> (String, u64) {
    mac_and_mtu(&pod.netns.ip("-j link show dev eth0"))
}

fn mac_and_mtu(ip: &str) -> (String, u64) {
    let links: Value = serde_json::from_str(ip).unwrap();
    (links[0]["address"].as_str().unwrap().to_owned(), links[0]["mtu"].as_u64().unwrap())
}

#[test]
fn a20_add_with_existing_interface_leaves_it() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    pod.netns.ip("link add name eth0 type bridge");
    let before = (node.host.dump(), pod.netns.dump());
    node.pod_call("ADD", &pod).run().fails(150, "eth0 exists already");
    assert_eq!((node.host.dump(), pod.netns.dump()), before);
    assert!(node.ipamd().memory().calls.is_empty());
}

#[test]
fn a20_second_add_leaves_the_pod_its_address() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let result = node.add(&pod);
    node.pod_call("ADD", &pod).run().fails(150, "eth0 exists already");
    assert_eq!(node.ipamd().held(), ["10.0.0.1"]);
    node.pod_call("CHECK", &pod).conf("prevResult", result).run().silent();
}

/// The second one is granted the same address, and finds the interface that it did not find before.
#[test]
fn a20_add_overtaken_by_another_leaves_that_ones_pod() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let go = Arc::new(Notify::new());
    node.ipamd().set(Mode::Held("Add", Arc::clone(&go)));
    let call = node.pod_call("ADD", &pod);
    let slow = call.spawn(call.conf.to_string().as_bytes());
    wait_until(|| node.ipamd().memory().calls == ["Add"]);
    node.ipamd().set(Mode::Serving);
    let result = node.add(&pod);
    let before = (node.host.dump(), pod.netns.dump());
    go.notify_one();
    let output = slow.wait_with_output().unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 150, "{error}");
    assert_eq!((node.host.dump(), pod.netns.dump()), before);
    assert_eq!(node.ipamd().held(), ["10.0.0.1"]);
    node.pod_call("CHECK", &pod).conf("prevResult", result).run().silent();
}

#[test]
fn a20_parallel_adds_of_one_container_connect_it_once() {
    let Some(node) = Node::new() else { return };
    for round in 0..30 {
        let pod = node.pod(&format!("c{round}"), "p1");
        // A pod's name may differ from call to call.
        let calls = ["p1", "p1", "other"].map(|name| {
            let mut call = node.pod_call("ADD", &pod);
            call.set("CNI_ARGS", &format!("IgnoreUnknown=1;K8S_POD_NAME={name}"));
            call
        });
        let running = calls.each_ref().map(|call| call.spawn(call.conf.to_string().as_bytes()));
        let outputs = running.map(|child| child.wait_with_output().unwrap());
        let made: Vec<_> = outputs.iter().filter(|output| output.status.success()).collect();
        assert_eq!(made.len(), 1, "round {round}: {outputs:?}");
        let result: Value = serde_json::from_slice(&made[0].stdout).unwrap();
        node.pod_call("CHECK", &pod).conf("prevResult", result).run().silent();
        node.del(&pod);
        assert!(node.ipamd().held().is_empty(), "round {round}");
    }
}

#[test]
fn a21_repeated_add_gives_the_same_address() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let first = node.add(&pod);
    pod.netns.ip("link del eth0");
    let second = node.add(&pod);
    assert_eq!(first["ips"], second["ips"]);
    assert_eq!(node.ipamd().held().len(), 1);
}

#[test]
fn a22_failed_add_leaves_nothing() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    node.host.ip(&format!("link add name {} type bridge", pod.host_name()));
    let before = (node.host.dump(), pod.netns.dump());
    node.pod_call("ADD", &pod).run().fails(151, "exists and is in use");
    assert_eq!((node.host.dump(), pod.netns.dump()), before);
    assert_eq!(node.ipamd().memory().calls, ["Add", "Del"]);
    assert!(node.ipamd().held().is_empty());
}

#[test]
fn a22_unusable_address_is_given_back() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let before = (node.host.dump(), pod.netns.dump());
    for (address, code) in [("127.0.0.1", 151), ("10.0.0.1/32", 155), ("", 155)] {
        node.ipamd().set(Mode::Granting(vec![on_eni(address, 0)]));
        node.pod_call("ADD", &pod).run().fails(code, address);
        assert!(node.ipamd().held().is_empty());
    }
    assert_eq!((node.host.dump(), pod.netns.dump()), before);
}

/// Kills an ADD after each of many delays, up to the end of its run and beyond.
#[test]
fn a23_del_after_killed_add_leaves_nothing() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let before = node.host.dump();
    let mut killed = 0;
    for n in 0..60 {
        let call = node.pod_call("ADD", &pod);
        let start = Instant::now();
        let mut child = call.spawn(call.conf.to_string().as_bytes());
        while start.elapsed() < Duration::from_micros(250 * n) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().signal() == Some(9));
        node.del(&pod);
        assert!(node.ipamd().held().is_empty(), "killed after {n} quarters of a millisecond");
        assert_eq!(node.host.dump(), before, "killed after {n} quarters of a millisecond");
    }
    assert!(killed > 0, "none of 60 was still running, so the test shows nothing");
}

#[test]
fn a23_add_killed_while_waiting_leaves_nothing() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let before = node.host.dump();
    node.ipamd().set(Mode::Hung);
    let call = node.pod_call("ADD", &pod);
    let mut child = call.spawn(call.conf.to_string().as_bytes());
    wait_until(|| node.ipamd().memory().calls == ["Add"]);
    child.kill().unwrap();
    child.wait().unwrap();
    node.ipamd().set(Mode::Serving);
    node.del(&pod);
    assert!(node.ipamd().held().is_empty());
    assert_eq!(node.host.dump(), before);
}

pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + HANG;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition was not reached");
        std::thread::yield_now();
    }
}

#[test]
fn a24_add_extends_the_previous_result() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let prev = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "sandbox": pod.netns.path(), "socketPath": "/s"}],
        "ips": [{"address": "10.9.0.1/24", "gateway": "10.9.0.254", "interface": 0}],
        "routes": [{"dst": "10.8.0.0/16", "gw": "10.9.0.254", "mtu": 1400}],
        "dns": {"nameservers": ["10.1.0.1"], "search": ["a.b"]},
    });
    let result = node.pod_call("ADD", &pod).conf("prevResult", prev.clone()).run().result();
    for list in ["interfaces", "ips", "routes"] {
        assert_eq!(result[list][0], prev[list][0]);
    }
    assert_eq!(result["dns"], prev["dns"]);
    assert_eq!(result["interfaces"][2]["name"], "eth0");
    assert_eq!(result["ips"][1], json!({"address": "10.0.0.1/32", "interface": 2}));
    assert_eq!(result["routes"][1]["gw"], "169.254.1.1");
}

fn refusal(code: &str, retry_after_ms: u64) -> Mode {
    let message = "subnet-0a1 (10.0.0.0/24) has 0 of 251 addresses free".to_owned();
    Mode::Refusing(Refused { code: code.to_owned(), message, retry_after_ms })
}

#[test]
fn a25_refusal_with_retry_is_code_11_else_its_own() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let before = (node.host.dump(), pod.netns.dump());
    for (name, retry, code) in
        [("ATTACHING", 2000, 11), ("THROTTLED", 1, 11), ("SUBNET_EXHAUSTED", 0, 103), ("X", 0, 100)]
    {
        node.ipamd().set(refusal(name, retry));
        let answer = node.pod_call("ADD", &pod).run();
        answer.fails(code, name);
        answer.fails(code, "subnet-0a1 (10.0.0.0/24) has 0 of 251");
    }
    assert_eq!((node.host.dump(), pod.netns.dump()), before);
}

#[test]
fn a25_add_waits_for_an_address() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    node.ipamd().set(Mode::Slow(Duration::from_millis(300)));
    let answer = node.pod_call("ADD", &pod).run();
    assert!(answer.took >= Duration::from_millis(300), "{answer:?}");
    assert_eq!(answer.result()["ips"][0]["address"], "10.0.0.1/32");
}

#[test]
fn a26_add_to_own_namespace_is_refused_unchanged() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let before = node.host.dump();
    let own = node.host.path();
    let mut call = node.pod_call("ADD", &pod);
    call.set("CNI_NETNS", own.to_str().unwrap());
    call.run().fails(8, "node's own");
    assert!(node.ipamd().memory().calls.is_empty());
    // The override disables the protocol's check. `datapath` still refuses a link from the node to
    // itself.
    call.set("CNI_NETNS_OVERRIDE", "1").run().fails(151, "own network namespace");
    assert!(node.ipamd().held().is_empty());
    assert_eq!(node.host.dump(), before);
}

#[test]
fn a27_ipv6_address_is_usable_at_once() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    node.ipamd().set(Mode::Granting(vec![on_eni("2001:db8::5", 0)]));
    let result = node.add(&pod);
    assert_eq!(result["ips"], json!([{"address": "2001:db8::5/128", "interface": 1}]));
    assert_eq!(result["routes"], json!([{"dst": "::/0", "gw": "fe80::1"}]));
    let addresses = pod.netns.ip("-6 -o addr show dev eth0 scope global");
    assert!(addresses.contains("2001:db8::5/128"), "{addresses}");
    assert!(!addresses.contains("tentative") && !addresses.contains("dadfailed"), "{addresses}");
    node.del(&pod);
    assert!(!node.host.dump().contains("2001:db8::5"));
}

#[test]
fn a27_addresses_of_both_families_are_one_link() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    node.ipamd().set(Mode::Granting(vec![on_eni("10.0.2.5", 1), on_eni("2001:db8::5", 0)]));
    let result = node.add(&pod);
    let ips = json!([
        {"address": "10.0.2.5/32", "interface": 1},
        {"address": "2001:db8::5/128", "interface": 1},
    ]);
    assert_eq!(result["ips"], ips);
    let routes =
        json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}]);
    assert_eq!(result["routes"], routes);
    let rules = |family: &str| node.host.ip(&format!("{family} rule"));
    assert!(rules("-4").contains("from 10.0.2.5 lookup 2"), "{}", rules("-4"));
    assert!(rules("-4").contains("from all to 10.0.2.5 lookup main"), "{}", rules("-4"));
    assert!(rules("-6").contains("from all to 2001:db8::5 lookup main"), "{}", rules("-6"));
    assert!(!rules("-6").contains("from 2001:db8::5"), "{}", rules("-6"));
    node.pod_call("CHECK", &pod).conf("prevResult", result).run().silent();
    node.del(&pod);
    let after = node.host.dump();
    assert!(!after.contains("10.0.2.5") && !after.contains("2001:db8::5"), "{after}");
}
