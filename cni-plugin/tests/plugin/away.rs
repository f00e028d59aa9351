//! A daemon that is away for a moment, as when it is restarted or upgraded.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Output};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::add::wait_until;
use crate::fake::{FakeIpamd, Mode};
use crate::node::{Call, Node};

fn spawn(call: &Call<'_>) -> Child {
    call.spawn(call.conf.to_string().as_bytes())
}

#[track_caller]
fn result(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Returns once the plugin has found no daemon.
fn until_it_waits(child: &mut Child) {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for ipamd") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it has ended without waiting");
    }
    // The plugin must not fail for want of a reader.
    std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
}

#[test]
fn add_and_check_wait_for_a_daemon_that_starts() {
    let Some(mut node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let mut prev = json!({});
    for verb in ["ADD", "CHECK"] {
        let memory = node.ipamd.take().unwrap();
        std::fs::remove_file(node.socket()).unwrap();
        let mut call = node.pod_call(verb, &pod);
        call.conf("prevResult", prev);
        let mut child = spawn(&call);
        until_it_waits(&mut child);
        node.ipamd = Some(memory.restart(&node.socket()));
        prev = result(&child.wait_with_output().unwrap());
    }
    assert_eq!(node.ipamd().held(), ["10.0.0.1"]);
}

/// As left by a daemon that was killed.
#[test]
fn add_waits_at_a_socket_without_listener() {
    let Some(mut node) = Node::new() else { return };
    node.stop_ipamd();
    drop(std::os::unix::net::UnixListener::bind(node.socket()).unwrap());
    let pod = node.pod("c1", "p1");
    let mut child = spawn(&node.pod_call("ADD", &pod));
    until_it_waits(&mut child);
    std::fs::remove_file(node.socket()).unwrap();
    node.ipamd = Some(FakeIpamd::start(&node.socket()));
    result(&child.wait_with_output().unwrap());
}

#[test]
fn call_that_breaks_off_is_made_again() {
    let Some(mut node) = Node::new() else { return };
    let mut prev = json!({});
    let pod = node.pod("c1", "p1");
    for (verb, held, calls) in [
        ("ADD", "Add", &["Add"][..]),
        ("ADD", "Check", &["Add", "Check"]),
        ("CHECK", "Check", &["Check"]),
    ] {
        if verb == "ADD" {
            node.del(&pod);
        }
        node.ipamd().memory().calls.clear();
        node.ipamd().set(Mode::Held(held, Arc::new(Notify::new())));
        let mut call = node.pod_call(verb, &pod);
        if verb == "CHECK" {
            call.conf("prevResult", prev.clone());
        }
        let child = spawn(&call);
        wait_until(|| node.ipamd().memory().calls == calls);
        node.ipamd().set(Mode::Serving);
        node.restart_ipamd();
        let output = child.wait_with_output().unwrap();
        let printed = result(&output);
        if verb == "ADD" {
            prev = printed;
        }
        assert_eq!(node.ipamd().held().len(), 1, "{verb} {held}");
    }
}

#[test]
fn daemon_that_stops_is_asked_again() {
    let Some(node) = Node::new() else { return };
    node.ipamd().set(Mode::Failing(tonic::Code::Unavailable));
    let pod = node.pod("c1", "p1");
    let mut child = spawn(&node.pod_call("ADD", &pod));
    until_it_waits(&mut child);
    node.ipamd().set(Mode::Serving);
    result(&child.wait_with_output().unwrap());
}

/// DEL goes on without it, STATUS must be quick, and a runtime repeats GC.
#[test]
fn other_verbs_do_not_wait_for_a_daemon() {
    let Some(mut node) = Node::new() else { return };
    node.stop_ipamd();
    let pod = node.pod("c1", "p1");
    let mut gc = node.call("GC");
    gc.conf("cni.dev/valid-attachments", json!([]));
    let answers = [node.pod_call("DEL", &pod).run(), node.call("STATUS").run(), gc.run()];
    for answer in answers {
        assert!(!answer.stderr().contains("waiting for ipamd"), "{answer:?}");
    }
}

#[test]
fn socket_of_another_user_is_not_asked() {
    let Some(node) = Node::new() else { return };
    std::os::unix::fs::chown(node.socket(), Some(65_534), None).unwrap();
    let pod = node.pod("c1", "p1");
    for (verb, code) in [("ADD", 11), ("STATUS", 50)] {
        let output = spawn(&node.pod_call(verb, &pod)).wait_with_output().unwrap();
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(error["code"], code, "{verb}: {error}");
        let details = error["details"].as_str().unwrap();
        assert!(details.contains("belongs to uid 65534, not to root"), "{verb}: {details}");
    }
    assert_eq!(node.ipamd().held(), Vec::<String>::new());
}
