//! Calls recorded from real runtimes, parsed by this crate and by another implementation of the
//! protocol.
//!
//! Each file of `recorded/` has the calls of one runtime: the `CNI_*` variables, the runtime's stdin,
//! and after `>` the meaning of the call.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fmt::Write as _;
use std::path::Path;

use cni::{AddResult, Attachment, Environment, Pod, Request, Version};
use rscni_types::types as other;
use serde_json::Value;

struct Call {
    vars: Vec<(String, String)>,
    stdin: String,
    meaning: String,
}

impl Call {
    fn parse(&self) -> Result<Request, cni::CniError> {
        let vars = self.vars.iter().map(|(key, value)| (key.into(), value.into()));
        Request::parse(&Environment::from_vars(vars), self.stdin.as_bytes())
    }
}

/// All calls of all files.
fn recorded() -> Vec<Call> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let files = std::fs::read_dir(folder).unwrap();
    let calls: Vec<_> = files
        .flat_map(|file| read(&std::fs::read_to_string(file.unwrap().path()).unwrap()))
        .collect();
    assert!(calls.len() > 20, "only {} calls were found", calls.len());
    calls
}

fn read(text: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let (mut vars, mut stdin) = (Vec::new(), String::new());
    for line in text.lines() {
        if let Some(meaning) = line.strip_prefix("> ") {
            calls.push(Call {
                vars: std::mem::take(&mut vars),
                stdin: std::mem::take(&mut stdin),
                meaning: meaning.to_owned(),
            });
        } else if line.starts_with('{') {
            line.clone_into(&mut stdin);
        } else if let Some((key, value)) = line.split_once('=') {
            vars.push((key.to_owned(), value.to_owned()));
        }
    }
    calls
}

fn meaning(request: &Result<Request, cni::CniError>) -> String {
    match request {
        Ok(Request::Add(add)) => {
            let prev = &add.prev_result;
            let prev = (*prev != AddResult::default()).then_some(prev);
            of_attachment("ADD", add.conf.version, &add.attachment, &add.pod, prev)
        }
        Ok(Request::Del(del)) => {
            let prev = del.prev_result.as_ref();
            of_attachment("DEL", del.conf.version, &del.attachment, &del.pod, prev)
        }
        Ok(Request::Check(check)) => {
            let (prev, version) = (Some(&check.prev_result), check.conf.version);
            of_attachment("CHECK", version, &check.attachment, &check.pod, prev)
        }
        Ok(Request::Status(conf)) => format!("STATUS {} {}", conf.version, conf.name),
        Ok(Request::Gc(gc)) => format!("GC {} {}", gc.conf.version, gc.conf.name),
        Ok(Request::Version(version)) => format!("VERSION {version}"),
        Err(error) => format!("error {}", error.code.number()),
    }
}

fn of_attachment(
    verb: &str,
    version: Version,
    attachment: &Attachment,
    pod: &Pod,
    prev: Option<&AddResult>,
) -> String {
    let Attachment { network, container_id, ifname } = attachment;
    let mut text = format!("{verb} {version} {network}/{container_id}/{ifname}");
    write!(text, " pod {}/{}/{} prev ", pod.namespace, pod.name, pod.uid).unwrap();
    let addresses: Vec<_> =
        prev.iter().flat_map(|p| p.addresses_of("eth0")).map(|a| a.to_string()).collect();
    text + &if prev.is_some() { addresses.join(",") } else { "none".to_owned() }
}

#[test]
fn recorded_calls_mean_what_their_files_say() {
    for call in recorded() {
        assert_eq!(meaning(&call.parse()), call.meaning, "{}", call.stdin);
    }
}

#[test]
fn recorded_conf_is_read_alike() {
    for call in recorded() {
        let theirs = as_others_read(&call.stdin);
        let (name, version, prev) = match call.parse() {
            Ok(Request::Add(add)) => (add.conf.name, add.conf.version, Some(add.prev_result)),
            Ok(Request::Del(del)) => (del.conf.name, del.conf.version, del.prev_result),
            Ok(Request::Check(c)) => (c.conf.name, c.conf.version, Some(c.prev_result)),
            Ok(Request::Status(conf)) => (conf.name, conf.version, None),
            Ok(Request::Gc(_) | Request::Version(_)) => panic!("not among the recorded calls"),
            Err(_) => {
                assert_eq!(theirs.valid_attachments, None, "{}", call.stdin);
                continue;
            }
        };
        assert_eq!(name.as_str(), theirs.name);
        assert_eq!(version.as_str(), theirs.cni_version);
        let mut theirs = theirs.prev_result.unwrap_or_default();
        // An empty `dns` means the same as none; we write none.
        theirs.dns = theirs.dns.filter(|dns| *dns != other::Dns::default());
        assert_eq!(as_newest(&prev.unwrap_or_default()), theirs, "{}", call.stdin);
    }
}

/// The configuration without `runtimeConfig`: the other implementation accepts its keys only in the
/// specification's case.
fn as_others_read(stdin: &str) -> other::NetConf {
    let mut document: Value = serde_json::from_str(stdin).unwrap();
    document.as_object_mut().unwrap().remove("runtimeConfig");
    serde_json::from_value(document).unwrap()
}

/// Our result, parsed by the other implementation.
fn as_newest(result: &AddResult) -> other::CNIResult {
    let mut document: Value = serde_json::from_str(&result.to_json(Version::NEWEST)).unwrap();
    document.as_object_mut().unwrap().remove("cniVersion");
    serde_json::from_value(document).unwrap()
}

#[test]
fn runtime_config_of_containerd_is_found() {
    let calls = recorded();
    let found = calls.iter().filter_map(|call| match call.parse() {
        Ok(Request::Add(add)) => add.conf.runtime_config.get(&["portMappings"]).cloned(),
        _ => None,
    });
    assert!(found.count() >= 3);
    let bandwidth = calls.iter().find_map(|call| match call.parse() {
        Ok(Request::Add(add)) => {
            add.conf.runtime_config.get(&["bandwidth", "ingressRate"]).cloned()
        }
        _ => None,
    });
    assert_eq!(bandwidth, Some(1_000_000.into()));
}
