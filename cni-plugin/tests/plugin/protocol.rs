//! Assertions 1 to 15: what holds for every verb.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::fake::Mode;
use crate::node::{Call, Node};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn a01_version_lists_what_is_implemented() {
    let Some(node) = Node::new() else { return };
    let document = node.call("VERSION").run().result();
    assert_eq!(document, json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS}));
}

#[test]
fn a02_version_needs_nothing() {
    let Some(node) = Node::new() else { return };
    for stdin in ["", "garbage", "{\"cniVersion\":7}", "{}"] {
        let document = node.call("VERSION").run_with(stdin.as_bytes()).result();
        assert_eq!(document["cniVersion"], "1.1.0", "{stdin}");
    }
    let document = node.call("VERSION").run_with(b"{\"cniVersion\":\"0.4.0\"}").result();
    assert_eq!(document["cniVersion"], "0.4.0");
}

#[test]
fn a03_run_without_command_prints_a_hint() {
    let Some(node) = Node::new() else { return };
    let mut child = node.call("").start();
    // It stays open: to read it would never end.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert!(output.status.success());
    assert_eq!(output.stdout, b"");
    let hint = String::from_utf8(output.stderr).unwrap();
    assert!(hint.contains("versions supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{hint}");
}

#[test]
fn a04_to_a09_and_a13_bad_requests_have_their_codes() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let before = (node.host.dump(), pod.netns.dump());
    let check = |change: fn(&mut Call<'_>), code: u64, part: &str| {
        for verb in ["ADD", "DEL"] {
            let mut call = node.pod_call(verb, &pod);
            change(&mut call);
            call.run().fails(code, part);
        }
    };
    check(|call| _ = call.set("CNI_COMMAND", "UPDATE"), 4, "UPDATE");
    let bare = |call: &mut Call<'_>| {
        call.set("CNI_CONTAINERID", "").set("CNI_IFNAME", "");
    };
    check(bare, 4, "missing: CNI_CONTAINERID, CNI_IFNAME");
    check(|call| _ = call.set("CNI_CONTAINERID", "-a"), 4, "CNI_CONTAINERID");
    for ifname in ["..", "a/b", "a b", "sixteen-bytes-00"] {
        let mut call = node.pod_call("ADD", &pod);
        call.set("CNI_IFNAME", ifname).run().fails(4, "CNI_IFNAME");
    }
    node.pod_call("ADD", &pod).run_with(b"{").fails(6, "stdin");
    check(|call| _ = call.conf("name", "a b"), 7, "name");
    check(|call| _ = call.conf("cniVersion", "0.2.0"), 1, "0.2.0");
    check(|call| _ = call.conf("cniVersion", "0.2.0"), 1, "1.1.0");
    check(|call| _ = call.set("CNI_ARGS", "X=1"), 4, "X");
    check(|call| _ = call.set("CNI_ARGS", "X"), 4, "key=value");
    assert_eq!((node.host.dump(), pod.netns.dump()), before);
    assert!(node.ipamd().memory().calls.is_empty());
}

#[test]
fn a10_error_has_the_requests_version() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    for version in VERSIONS.into_iter().chain(["0.1.0", "9.9.9"]) {
        let mut call = node.pod_call("ADD", &pod);
        let answer = call.conf("cniVersion", version).set("CNI_NETNS", "/nowhere").run();
        let (_, text) = answer.error();
        let document: Value = serde_json::from_str(answer.stdout()).unwrap();
        assert_eq!(document["cniVersion"], version, "{text}");
    }
}

#[test]
fn a11_logs_never_go_to_stdout() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let mut call = node.pod_call("ADD", &pod);
    let answer = call.conf("pluginLogLevel", "DEBUG").run();
    answer.result();
    let lines: Vec<Value> =
        answer.stderr().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| line["span"]["container_id"] == "c1"), "{lines:?}");

    let file = node.folder.path().join("log/plugin.log");
    let mut call = node.pod_call("DEL", &pod);
    let answer = call.conf("pluginLogFile", file.to_str()).conf("pluginLogLevel", "debug").run();
    answer.silent();
    assert_eq!(answer.stderr(), "");
    let text = std::fs::read_to_string(file).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["span"]["verb"], &last["message"]), (&json!("DEL"), &json!("done")));
}

#[test]
fn a12_unknown_keys_are_ignored() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    for verb in ["ADD", "DEL"] {
        let mut call = node.pod_call(verb, &pod);
        call.conf("myOption", "x").conf("nested", json!({"a": [1, 2]}));
        call.conf("cni.dev/valid-attachments", "not a list").conf("cni.dev/new", 1);
        assert!(call.run().output.status.success());
    }
}

#[test]
fn a14_every_verb_with_silent_daemon_ends() {
    let Some(mut node) = Node::new() else { return };
    node.stop_ipamd();
    // The kernel accepts connections, and no process reads them.
    let _listener = UnixListener::bind(node.socket()).unwrap();
    let pod = node.pod("c1", "p1");
    let before = node.host.dump();
    for (verb, code) in [("ADD", 11), ("CHECK", 11), ("STATUS", 50), ("GC", 11)] {
        let mut call = node.pod_call(verb, &pod);
        call.conf("prevResult", json!({"interfaces": [{"name": "eth0", "sandbox": "/x"}]}));
        call.conf("cni.dev/valid-attachments", json!([])).conf("ipamdTimeout", "300ms");
        // The daemon never answers, so the end shows that the verb does not wait for it.
        call.run().fails(code, "ipamd");
    }
    node.pod_call("DEL", &pod).conf("ipamdTimeout", "300ms").run().silent();
    assert_eq!(node.pending(), ["net:c1:eth0.json"]);
    assert_eq!(node.host.dump(), before);
}

#[test]
fn a14_add_with_hung_daemon_ends() {
    let Some(node) = Node::new() else { return };
    node.ipamd().set(Mode::Hung);
    let (hasty, patient) = (node.pod("c1", "p1"), node.pod("c2", "p2"));
    let mut call = node.pod_call("ADD", &patient);
    call.conf("ipamdTimeout", "600s");
    let mut waiting = call.spawn(call.conf.to_string().as_bytes());
    // It reaches the daemon within the hundredth part of this on an idle machine.
    node.pod_call("ADD", &hasty).conf("ipamdTimeout", "2s").run().fails(11, "Add");
    assert!(
        waiting.try_wait().unwrap().is_none(),
        "each ADD waits as long as its configuration says"
    );
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert!(node.ipamd().memory().calls.iter().all(|call| *call == "Add"));
}

#[test]
fn a14_add_with_daemon_down_or_older_is_code_11() {
    let Some(mut node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    node.ipamd().set(Mode::Failing(tonic::Code::Unimplemented));
    node.pod_call("ADD", &pod).run().fails(11, "older");
    node.call("STATUS").run().fails(50, "older");
    node.pod_call("DEL", &pod).run().silent();
    assert_eq!(node.pending().len(), 1);
    node.stop_ipamd();
    let mut call = node.pod_call("ADD", &pod);
    call.conf("ipamdTimeout", "300ms").run().fails(11, "connect to ipamd");
}

/// Nobody writes to the one, and nobody reads the other.
#[test]
fn a14_fifos_in_place_of_files_do_not_hang_it() {
    let Some(node) = Node::new() else { return };
    let fifo = node.folder.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let fifo = fifo.to_str().unwrap();
    let pod = node.pod("c1", "p1");
    for verb in ["ADD", "CHECK"] {
        let mut call = node.pod_call(verb, &pod);
        let prev = json!({"interfaces": [{"name": "eth0", "sandbox": "/x"}]});
        call.set("CNI_NETNS", fifo).conf("prevResult", prev);
        let (code, text) = call.run().error();
        assert!(code == 4 || code == 154, "{verb}: {code} {text}");
    }
    let mut call = node.pod_call("DEL", &pod);
    call.set("CNI_NETNS", fifo).set("CNI_IFNAME", "net1").run().silent();
    let answer = node.pod_call("ADD", &pod).conf("pluginLogFile", fifo).run();
    answer.result();
    assert!(answer.stderr().contains("log file cannot be opened"), "{answer:?}");
}

#[test]
fn a08_stdin_beyond_its_bound_is_code_6() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let mut call = node.pod_call("ADD", &pod);
    call.conf("padding", "x".repeat(5 << 20));
    let mut child = call.start();
    // It stops to read, so that the rest cannot be written.
    let written = child.stdin.take().unwrap().write_all(call.conf.to_string().as_bytes());
    assert!(written.is_err());
    let output = child.wait_with_output().unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 6, "{error}");
    assert!(error["details"].as_str().unwrap().contains("4 MiB"), "{error}");
}

#[test]
fn a15_two_hundred_adds_at_once_succeed() {
    let Some(node) = Node::new() else { return };
    let before = node.host.dump();
    let pods: Vec<_> = (0..200).map(|n| node.pod(&format!("c{n}"), &format!("p{n}"))).collect();
    let at_once = |verb: &str| -> Vec<_> {
        let calls = pods.iter().map(|pod| node.pod_call(verb, pod));
        let running: Vec<_> =
            calls.map(|call| call.spawn(call.conf.to_string().as_bytes())).collect();
        running.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
    };
    let added = at_once("ADD");
    let addresses: BTreeSet<String> = added
        .iter()
        .map(|output| {
            assert!(output.status.success(), "{output:?}");
            let result: Value = serde_json::from_slice(&output.stdout).unwrap();
            result["ips"][0]["address"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(addresses.len(), 200);
    for output in at_once("DEL") {
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
    assert!(node.ipamd().held().is_empty());
    assert_eq!(node.host.dump(), before);
}
