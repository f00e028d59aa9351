//! What is put where, by the settings of a DaemonSet.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::*;

/// A node's directories, and a folder that stands for the one of the program.
struct Node {
    root: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("app")).unwrap();
        fs::write(root.path().join("app").join(PLUGIN), "a plugin").unwrap();
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn settings(&self, more: &[(&str, &str)]) -> Settings {
        let path = |name: &str| self.path(name).display().to_string();
        let mut variables: BTreeMap<String, String> = [
            ("HOST_CNI_BIN_PATH", path("bin")),
            ("HOST_CNI_CONFDIR_PATH", path("net.d")),
            ("AWS_VPC_K8S_CNI_BACKING_STORE", path("run/ipam.json")),
            ("TIDEPOOL_SOCKET", path("run/ipamd.sock")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        variables.extend(more);
        Settings::read(&variables.into_iter().collect()).unwrap()
    }

    fn files(&self, more: &[(&str, &str)]) -> anyhow::Result<Files> {
        let settings = self.settings(more);
        let conflist = conflist(&settings, &self.path("app").join(CONFLIST))?;
        let InstallSettings { plugins, conflists, .. } = settings.install;
        Ok(Files { source: self.path("app").join(PLUGIN), plugins, conflists, conflist })
    }

    fn conflist(&self) -> Value {
        let text = fs::read_to_string(self.path("net.d").join(CONFLIST)).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn settings_of_the_daemonset_are_in_the_conflist() {
    let node = Node::new();
    let more = [
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "pod"),
        ("AWS_VPC_ENI_MTU", "1500"),
        ("POD_MTU", "1400"),
        ("AWS_VPC_K8S_PLUGIN_LOG_FILE", "/var/log/x.log"),
        ("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "WARN"),
        ("ENABLE_BANDWIDTH_PLUGIN", "false"),
    ];
    assert_eq!(node.files(&more).unwrap().put_conflist().unwrap(), Placed::Added);
    let entry = &node.conflist()["plugins"][0];
    let expect = serde_json::json!({
        "type": "aws-cni",
        "capabilities": {"portMappings": true},
        "vethPrefix": "pod",
        "mtu": "1400",
        "pluginLogFile": "/var/log/x.log",
        "pluginLogLevel": "warn",
        "ipamdSocket": node.path("run/ipamd.sock").to_str().unwrap(),
    });
    assert_eq!(*entry, expect);
}

/// The plugin knows the default socket, so the usual conflist is the shipped one.
#[test]
fn default_socket_is_not_in_the_conflist() {
    let settings = Settings::read(&settings::Variables::default()).unwrap();
    let text = conflist(&settings, Path::new("/nonexistent")).unwrap();
    assert!(!text.contains("ipamdSocket"), "{text}");
}

#[test]
fn conflist_of_an_administrator_takes_the_place_of_ours() {
    let node = Node::new();
    let own = node.path("app").join(CONFLIST);
    fs::write(&own, r#"{"name": "x", "plugins": [{"type": "aws-cni", "mtu": "__MTU__"}]}"#)
        .unwrap();
    node.files(&[]).unwrap().put_conflist().unwrap();
    assert_eq!(node.conflist()["plugins"][0]["mtu"], "9001");
    assert_eq!(node.conflist()["name"], "x");
    fs::write(&own, "{").unwrap();
    let fault = format!("{:#}", node.files(&[]).unwrap_err());
    assert!(fault.contains("10-aws.conflist cannot be installed: it is not JSON"), "{fault}");
}

#[test]
fn plugin_is_copied_and_a_missing_one_is_named() {
    let node = Node::new();
    let files = node.files(&[]).unwrap();
    assert_eq!(files.put_plugin().unwrap(), Placed::Added);
    assert_eq!(fs::read_to_string(node.path("bin").join(PLUGIN)).unwrap(), "a plugin");
    assert_eq!(fs::read_link(node.path("bin").join(LOOPBACK)).unwrap(), Path::new(PLUGIN));
    assert_eq!(files.put_plugin().unwrap(), Placed::Unchanged);
    fs::remove_file(node.path("app").join(PLUGIN)).unwrap();
    let fault = files.put_plugin().unwrap_err().to_string();
    assert!(fault.starts_with("there is no /") && fault.ends_with("/app/aws-cni"), "{fault}");
}

#[test]
fn conflist_that_the_runtime_prefers_is_named() {
    let node = Node::new();
    let files = node.files(&[]).unwrap();
    files.put_conflist().unwrap();
    assert_eq!(files.rival(), None);
    fs::write(node.path("net.d/05-other.conf"), "").unwrap();
    let rival = files.rival().unwrap();
    assert!(rival.starts_with("05-other.conf comes before 10-aws.conflist in /"), "{rival}");
}

#[test]
fn removal_takes_what_an_installation_has_put() {
    let node = Node::new();
    let (files, settings) = (node.files(&[]).unwrap(), node.settings(&[]));
    assert_eq!(remove(&settings, false).unwrap(), [""; 0]);
    files.put_plugin().unwrap();
    files.put_conflist().unwrap();
    let lines = remove(&settings, false).unwrap();
    let path = |name: &str| format!("{} removed", node.path(name).display());
    assert_eq!(lines, [path("net.d/10-aws.conflist"), path("bin/loopback"), path("bin/aws-cni")]);
    assert_eq!(fs::read_dir(node.path("bin")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(node.path("net.d")).unwrap().count(), 0);
}

/// As on a node that has gone back to amazon-vpc-cni-k8s.
#[test]
fn removal_leaves_what_another_has_put() {
    let node = Node::new();
    let files = node.files(&[]).unwrap();
    files.put_plugin().unwrap();
    let theirs = r#"{"cniVersion": "0.4.0", "name": "aws-cni", "plugins": [{"type": "aws-cni"}]}"#;
    installer::put(&files.conflists, CONFLIST, theirs.as_bytes(), 0o644).unwrap();
    let fault = remove(&node.settings(&[]), true).unwrap_err().to_string();
    assert!(fault.ends_with("10-aws.conflist is not ipamd's, so nothing is removed"), "{fault}");
    assert!(node.path("bin/aws-cni").exists() && node.path("bin/loopback").exists());
}
