//! Conflists of many settings, and templates of administrators.

use mangle::hostile;
use proptest::prelude::*;

use super::*;

const DEFAULTS: Choices<'_> = Choices {
    veth_prefix: "eni",
    mtu: 9001,
    log_file: "/var/log/aws-routed-eni/plugin.log",
    log_level: "debug",
    limits_bandwidth: true,
    socket: None,
};

/// As amazon-vpc-cni-k8s' image has it, shortened.
const THEIRS: &str = r#"{
  "cniVersion": "0.4.0", "name": "aws-cni", "disableCheck": true,
  "plugins": [
    { "name": "aws-cni", "type": "aws-cni", "vethPrefix": "__VETHPREFIX__", "mtu": "__MTU__",
      "pluginLogFile": "__PLUGINLOGFILE__", "pluginLogLevel": "__PLUGINLOGLEVEL__" },
    { "type": "portmap", "capabilities": {"portMappings": true}, "snat": true }
  ]
}"#;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn defaults_make_the_shipped_conflist() {
    let mut list = parsed(&shipped(&DEFAULTS));
    assert_eq!(list.as_object_mut().unwrap().remove(MARK.0), Some(json!(MARK.1)));
    assert_eq!(list, parsed(SHIPPED));
}

#[test]
fn each_choice_is_in_the_entry() {
    let check = |choices: Choices<'_>, member: &str, expect: Value| {
        let list = parsed(&shipped(&choices));
        assert_eq!(list["plugins"][0][member], expect, "{choices:?}");
        assert_eq!(list["cniVersion"], "1.0.0");
    };
    check(Choices { veth_prefix: "pod", ..DEFAULTS }, "vethPrefix", json!("pod"));
    check(Choices { mtu: 1500, ..DEFAULTS }, "mtu", json!("1500"));
    check(Choices { log_file: "stderr", ..DEFAULTS }, "pluginLogFile", json!("stderr"));
    check(Choices { log_level: "warn", ..DEFAULTS }, "pluginLogLevel", json!("warn"));
    let ports_alone = json!({"portMappings": true});
    check(Choices { limits_bandwidth: false, ..DEFAULTS }, "capabilities", ports_alone);
    check(DEFAULTS, "ipamdSocket", Value::Null);
    let socket = Some(Path::new("/run/ipamd.sock"));
    check(Choices { socket, ..DEFAULTS }, "ipamdSocket", json!("/run/ipamd.sock"));
}

#[test]
fn template_keeps_all_but_the_names_to_fill_in() {
    let choices = Choices { mtu: 1500, log_level: "error", ..DEFAULTS };
    let list = parsed(&filled(THEIRS.as_bytes(), &choices).unwrap());
    assert_eq!(list["cniVersion"], "0.4.0");
    assert_eq!(list["disableCheck"], true);
    let entry = json!({
        "name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "1500",
        "pluginLogFile": "/var/log/aws-routed-eni/plugin.log", "pluginLogLevel": "error",
    });
    assert_eq!(list["plugins"][0], entry);
    assert_eq!(list["plugins"][1]["type"], "portmap");
}

#[test]
fn template_that_no_runtime_could_use_is_refused() {
    let check = |template: &[u8], expect: &str| {
        let error = filled(template, &DEFAULTS).unwrap_err();
        assert_eq!(error.to_string(), expect, "{template:?}");
    };
    check(b"\xff", "it is not UTF-8");
    check(b"", "it is not JSON");
    check(b"[]", "it has no plugin of type aws-cni");
    check(br#"{"plugins": [{"type": "ptp"}, 7]}"#, "it has no plugin of type aws-cni");
    let egress = THEIRS.replace("true}, \"snat\": true", "true}, \"nodeIP\": \"__NODEIP__\"");
    check(egress.as_bytes(), "__NODEIP__ has no meaning here");
}

#[test]
fn conflist_of_another_installer_is_not_ours() {
    for ours in [shipped(&DEFAULTS), filled(THEIRS.as_bytes(), &DEFAULTS).unwrap()] {
        assert!(is_ours(ours.as_bytes()), "{ours}");
    }
    for other in [SHIPPED, THEIRS, "", "[]", "7", r#"{"installedBy": "somebody"}"#] {
        assert!(!is_ours(other.as_bytes()), "{other}");
    }
}

proptest! {
    #[test]
    fn fuzz_template(template in hostile(vec![THEIRS.as_bytes().to_vec(), SHIPPED.as_bytes().to_vec()])) {
        if let Ok(filled) = filled(&template, &DEFAULTS) {
            prop_assert!(is_ours(filled.as_bytes()), "{filled}");
        }
        let _no_panic = is_ours(&template);
    }
}
