//! For any environment and stdin the answer is a request or a coded error. There is no panic and no
//! hang, and the length of the text is bounded.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use cni::{AddResult, Attachment, Environment, Request, Version, requested_version};
use mangle::hostile;
use proptest::prelude::*;
use serde::Deserialize as _;
use serde_json::Value;

/// Every option, with a result in the shapes of old and of new versions.
const FULL: &str = r#"{"cniVersion":"1.1.0","name":"aws-cni","type":"aws-cni","vethPrefix":"eni",
"mtu":"9001","pluginLogFile":"/var/log/x","pluginLogLevel":"DEBUG","podSGEnforcingMode":"strict",
"ipamdSocket":"/run/x.sock","ipamdTimeout":"1m 30s","runtimeConfig":{"portMappings":
[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"::"},{"HostPort":0,"ContainerPort":1}],
"bandwidth":{"ingressRate":1000000,"ingressBurst":4294967295,"egressRate":8,"egressBurst":0}},
"capabilities":{"io.kubernetes.cri.pod-annotations":true},
"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}],
"cni.dev/attachments":[{"containerID":"c2","ifname":"eth0"}],
"prevResult":{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","mtu":9001,
"sandbox":"/proc/1/ns/net","pciID":"x"}],"ips":[{"version":"4","interface":0,"address":
"10.0.2.9/32","gateway":"169.254.1.1"}],"routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1","mtu":1}],
"dns":{"nameservers":["10.0.0.2"]}}}"#;

const KEYS: [&str; 8] = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
    "CNI_NETNS_OVERRIDE",
    "PATH",
];

const VALUES: [&str; 16] = [
    "ADD",
    "DEL",
    "CHECK",
    "STATUS",
    "GC",
    "VERSION",
    "",
    "c1",
    "/proc/1/ns/net",
    "eth0",
    "IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=default;K8S_POD_UID=u",
    "K8S_POD_NAME=a=b;;=",
    "..",
    "sixteen-bytes-00",
    "true",
    "/opt/cni/bin:",
];

/// The recorded stdin of real runtimes, and [`FULL`].
fn documents() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut documents = vec![FULL.as_bytes().to_vec()];
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let stdin = text.lines().filter(|line| line.starts_with('{'));
        documents.extend(stdin.map(|line| line.as_bytes().to_vec()));
    }
    assert!(documents.len() > 20, "only {} documents were found", documents.len());
    documents
}

/// A good call of any verb, with other values for some variables.
fn variables() -> impl Strategy<Value = Vec<(OsString, OsString)>> {
    let good = |verb: &str| {
        [("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "e")]
            .map(|(key, value)| (key.into(), value.into()))
            .to_vec()
    };
    let verb = prop::sample::select(&VALUES[..6]).prop_map(good);
    let values: Vec<Vec<u8>> = VALUES.iter().map(|value| value.as_bytes().to_vec()).collect();
    let other = (prop::sample::select(&KEYS[..]), hostile(values))
        .prop_map(|(key, value)| (OsString::from(key), OsString::from_vec(value.0)));
    let nameless = (hostile(vec![b"CNI_ARGS".to_vec()]), any::<Vec<u8>>())
        .prop_map(|(key, value)| (OsString::from_vec(key.0), OsString::from_vec(value)));
    let changes = prop::collection::vec(prop_oneof![8 => other, 1 => nameless], 0..3);
    // The last value of a repeated variable counts.
    (verb, changes).prop_map(|(vars, changes)| vars.into_iter().chain(changes).collect())
}

fn check_attachment(attachment: &Attachment) {
    let Attachment { network, container_id, ifname } = attachment;
    assert!((1..=15).contains(&ifname.as_str().len()), "{ifname}");
    for name in [network.as_str(), container_id.as_str(), ifname.as_str()] {
        let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
        assert!(!name.is_empty() && !name.contains(odd), "{name:?}");
    }
}

/// The result as printed in each version parses back to the same document.
fn check_result(result: &AddResult) {
    for version in Version::ALL {
        let printed: Value = serde_json::from_str(&result.to_json(version)).unwrap();
        assert_eq!(printed["cniVersion"], version.as_str());
        let again = AddResult::deserialize(&printed).unwrap();
        let again: Value = serde_json::from_str(&again.to_json(version)).unwrap();
        assert_eq!(again, printed);
    }
}

fn check_request(request: Request) {
    match request {
        Request::Add(add) => {
            check_attachment(&add.attachment);
            check_result(&add.prev_result);
        }
        Request::Del(del) => {
            check_attachment(&del.attachment);
            check_result(&del.prev_result.unwrap_or_default());
        }
        Request::Check(check) => {
            check_attachment(&check.attachment);
            check_result(&check.prev_result);
        }
        Request::Gc(gc) => assert!(gc.valid.is_sorted()),
        Request::Status(conf) => assert!((1..=4).contains(&conf.veth_prefix.len())),
        Request::Version(version) => {
            let document = cni::version_document(&version);
            assert!(serde_json::from_str::<Value>(&document).unwrap().is_object());
        }
    }
}

proptest! {
    #[test]
    fn fuzz_request(vars in variables(), stdin in hostile(documents())) {
        let n_bytes: usize =
            stdin.len() + vars.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        match Request::parse(&Environment::from_vars(vars), &stdin) {
            Ok(request) => check_request(request),
            Err(error) => {
                let printed = error.to_json(&requested_version(&stdin));
                let document: Value = serde_json::from_str(&printed).unwrap();
                prop_assert_eq!(&document["code"], &Value::from(error.code.number()));
                // Escaped twice, a byte becomes at most seven (`\\u{0}`).
                prop_assert!(printed.len() < 1000 + 8 * n_bytes, "{} of {n_bytes}", printed.len());
            }
        }
    }
}

#[test]
fn document_of_endless_nesting_is_refused() {
    let vars = [("CNI_COMMAND".into(), "GC".into())];
    let environment = Environment::from_vars(vars);
    for (open, n) in [("[", 1_000_000), (r#"{"a":"#, 1_000_000), (r#"{"name":["#, 200_000)] {
        let error = Request::parse(&environment, open.repeat(n).as_bytes()).unwrap_err();
        assert_eq!(error.code.number(), 6, "{error}");
        assert!(error.to_string().len() < 1000, "{error}");
    }
}
