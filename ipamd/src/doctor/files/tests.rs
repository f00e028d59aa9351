//! The plugin and its configuration in directories like the runtime's.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::*;

const SOCKET: &str = "/run/ipamd.sock";

/// A directory with our conflist and a plugin that says `text`.
fn installed(text: &str) -> (tempfile::TempDir, Directories) {
    let directory = tempfile::tempdir().unwrap();
    let (conf, bin) = (directory.path().join("net.d"), directory.path().join("bin"));
    [&conf, &bin].iter().for_each(|path| fs::create_dir(path).unwrap());
    let list = json!({"name": "aws-cni", "plugins": [{"type": PLUGIN, "ipamdSocket": SOCKET}]});
    fs::write(conf.join("10-aws.conflist"), list.to_string()).unwrap();
    fs::write(bin.join(PLUGIN), format!("#!/bin/sh\necho '{text}' >&2\n")).unwrap();
    fs::set_permissions(bin.join(PLUGIN), fs::Permissions::from_mode(0o755)).unwrap();
    (directory, Directories { conf, bin })
}

fn ours() -> String {
    format!("aws-cni {}: a CNI plugin", proto::VERSION)
}

async fn codes(directories: &Directories, socket: &str) -> Vec<String> {
    let findings = plugin(directories, Path::new(socket)).await.unwrap();
    findings.into_iter().map(|finding| finding.code).collect()
}

#[tokio::test]
async fn whole_installation_has_no_finding() {
    let (_directory, directories) = installed(&ours());
    assert_eq!(codes(&directories, SOCKET).await, [""; 0]);
}

#[tokio::test]
async fn conflist_that_the_runtime_does_not_use_is_found() {
    let (_directory, directories) = installed(&ours());
    assert_eq!(codes(&directories, "/run/other.sock").await, ["other_socket"]);
    let first = directories.conf.join("05-other.conf");
    fs::write(&first, r#"{"type": "bridge"}"#).unwrap();
    assert_eq!(codes(&directories, SOCKET).await, ["other_conflist"]);
    fs::write(&first, "{").unwrap();
    assert_eq!(codes(&directories, SOCKET).await, ["other_conflist"]);
    fs::remove_file(directories.conf.join("10-aws.conflist")).unwrap();
    assert_eq!(codes(&directories, SOCKET).await, ["no_conflist"]);
    let none = Directories { conf: "/nonexistent".into(), bin: directories.bin.clone() };
    assert!(plugin(&none, Path::new(SOCKET)).await.is_err(), "then nothing was compared");
}

#[tokio::test]
async fn plugin_that_others_may_write_is_not_started() {
    let (_directory, directories) = installed("aws-cni 9.9.9: a CNI plugin");
    assert_eq!(codes(&directories, SOCKET).await, ["other_plugin_version"]);
    let path = directories.bin.join(PLUGIN);
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    assert_eq!(codes(&directories, SOCKET).await, ["unsafe_plugin"]);
    mode(0o644);
    assert_eq!(codes(&directories, SOCKET).await, ["no_plugin"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(codes(&directories, SOCKET).await, ["no_plugin"]);
    let (_directory, directories) = installed("host-local v1.2.0");
    assert_eq!(codes(&directories, SOCKET).await, ["no_plugin"]);
}

#[tokio::test]
async fn record_is_missed_only_while_the_daemon_runs() {
    let directory = tempfile::tempdir().unwrap();
    let codes = async |runs| -> Vec<String> {
        state(directory.path(), runs).await.into_iter().map(|finding| finding.code).collect()
    };
    assert_eq!(codes(false).await, [""; 0]);
    assert_eq!(codes(true).await, ["no_record"]);
    let log = directory.path().join("tidepool.jsonl");
    fs::write(&log, "damaged\n").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(codes(false).await, ["record_damaged"]);
    fs::set_permissions(&log, fs::Permissions::from_mode(0o622)).unwrap();
    assert_eq!(codes(false).await, ["unsafe_file", "record_damaged"]);
}
