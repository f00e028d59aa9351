//! A validated request: the verb, the attachment and the configuration.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::args::Pod;
use crate::conf::{NetConf, Strictness};
use crate::env::{Environment, Reader};
use crate::error::{CniError, ErrorCode};
use crate::name::{ContainerId, IfName, NetworkName};
use crate::result::AddResult;
use crate::version::{Verb, Version};

/// A runtime's request.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Connect a container.
    Add(Add),
    /// Disconnect a container.
    Del(Del),
    /// Check that a container is still connected.
    Check(Check),
    /// Check that a container could be connected now.
    Status(NetConf),
    /// Disconnect the containers that are not listed.
    Gc(Gc),
    /// List the supported versions. Holds the request's own `cniVersion`.
    Version(String),
}

/// A container's interface in a network: the key of the daemon's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `name` of the configuration.
    pub network: NetworkName,
    /// `CNI_CONTAINERID`.
    pub container_id: ContainerId,
    /// `CNI_IFNAME`.
    pub ifname: IfName,
}

/// ADD.
#[derive(Debug, Clone, PartialEq)]
pub struct Add {
    /// stdin.
    pub conf: NetConf,
    /// The attachment to make.
    pub attachment: Attachment,
    /// `CNI_NETNS`: the path of the namespace.
    pub netns: PathBuf,
    /// `CNI_NETNS_OVERRIDE`: the plugin's own namespace is allowed.
    pub own_netns_allowed: bool,
    /// From `CNI_ARGS`.
    pub pod: Pod,
    /// The result of the chain so far; empty for the first plugin.
    pub prev_result: AddResult,
}

/// DEL.
#[derive(Debug, Clone, PartialEq)]
pub struct Del {
    /// stdin; a bad option counts as absent.
    pub conf: NetConf,
    /// The attachment to remove.
    pub attachment: Attachment,
    /// `CNI_NETNS`, if there is one: the path of a namespace that may be gone.
    pub netns: Option<PathBuf>,
    /// From `CNI_ARGS`.
    pub pod: Pod,
    /// The ADD's result, if the runtime still has it; a malformed one counts as absent.
    pub prev_result: Option<AddResult>,
}

/// CHECK.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// stdin.
    pub conf: NetConf,
    /// The attachment to check.
    pub attachment: Attachment,
    /// `CNI_NETNS`: the path of the namespace.
    pub netns: PathBuf,
    /// From `CNI_ARGS`.
    pub pod: Pod,
    /// The ADD's result.
    pub prev_result: AddResult,
}

/// GC.
#[derive(Debug, Clone, PartialEq)]
pub struct Gc {
    /// stdin; a bad option counts as absent.
    pub conf: NetConf,
    /// The attachments to keep. An empty list is legal: none is kept.
    pub valid: Vec<ValidAttachment>,
}

/// An attachment that a GC must keep.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct ValidAttachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface.
    pub ifname: String,
}

impl Request {
    /// Parses a request. Faults of the environment are reported before stdin is read.
    ///
    /// # Errors
    ///
    /// Code 4 for the environment; 6 if stdin is not a JSON object; 1 for a version that is not
    /// supported or lacks the verb; 7 for any other fault of the configuration.
    pub fn parse(environment: &Environment, stdin: &[u8]) -> Result<Request, CniError> {
        let verb = environment.verb()?;
        match verb {
            Verb::Add => Add::parse(environment, stdin).map(Request::Add),
            Verb::Del => Del::parse(environment, stdin).map(Request::Del),
            Verb::Check => Check::parse(environment, stdin).map(Request::Check),
            Verb::Status => {
                Document::parse(stdin, verb)?.conf(Strictness::Strict).map(Request::Status)
            }
            Verb::Gc => Gc::parse(stdin).map(Request::Gc),
            Verb::Version => Ok(Request::Version(requested_version(stdin))),
        }
    }
}

/// The `cniVersion` for the answer to a request that may be malformed: the request's own, or else our
/// newest. Nothing else is kept of `stdin`.
#[must_use]
pub fn requested_version(stdin: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    struct Versioned {
        #[serde(rename = "cniVersion")]
        version: Option<String>,
    }
    let document = serde_json::from_slice::<Versioned>(stdin).unwrap_or_default();
    document.version.unwrap_or_else(|| Version::NEWEST.as_str().to_owned())
}

impl Add {
    fn parse(environment: &Environment, stdin: &[u8]) -> Result<Add, CniError> {
        let mut reader = Reader::new(environment);
        let (container_id, ifname, pod) = read_attachment(&mut reader);
        let netns = reader.required("CNI_NETNS", path);
        let own = reader.optional("CNI_NETNS_OVERRIDE", |text| Ok(is_truthy(text)));
        reader.finish()?;
        let document = Document::parse(stdin, Verb::Add)?;
        Ok(Add {
            conf: document.conf(Strictness::Strict)?,
            attachment: document.attachment(container_id, ifname),
            netns: netns.expect(ALL_READ),
            own_netns_allowed: own.unwrap_or(false),
            pod: pod.unwrap_or_default(),
            prev_result: document.prev_result()?.unwrap_or_default(),
        })
    }
}

impl Del {
    fn parse(environment: &Environment, stdin: &[u8]) -> Result<Del, CniError> {
        let mut reader = Reader::new(environment);
        let (container_id, ifname, pod) = read_attachment(&mut reader);
        reader.finish()?;
        let document = Document::parse(stdin, Verb::Del)?;
        Ok(Del {
            conf: document.conf(Strictness::Lenient)?,
            attachment: document.attachment(container_id, ifname),
            netns: environment.path("CNI_NETNS"),
            pod: pod.unwrap_or_default(),
            prev_result: document.prev_result().unwrap_or_default(),
        })
    }
}

impl Check {
    fn parse(environment: &Environment, stdin: &[u8]) -> Result<Check, CniError> {
        let mut reader = Reader::new(environment);
        let (container_id, ifname, pod) = read_attachment(&mut reader);
        let netns = reader.required("CNI_NETNS", path);
        reader.finish()?;
        let document = Document::parse(stdin, Verb::Check)?;
        Ok(Check {
            conf: document.conf(Strictness::Strict)?,
            attachment: document.attachment(container_id, ifname),
            netns: netns.expect(ALL_READ),
            pod: pod.unwrap_or_default(),
            prev_result: document
                .prev_result()?
                .ok_or_else(|| CniError::config("CHECK needs prevResult and there is none"))?,
        })
    }
}

impl Gc {
    fn parse(stdin: &[u8]) -> Result<Gc, CniError> {
        let document = Document::parse(stdin, Verb::Gc)?;
        Ok(Gc { valid: document.valid_attachments()?, conf: document.conf(Strictness::Lenient)? })
    }
}

const ALL_READ: &str = "a reader that finishes without error has every required variable";

type AttachmentVars = (Option<ContainerId>, Option<IfName>, Option<Pod>);

fn read_attachment(reader: &mut Reader<'_>) -> AttachmentVars {
    let container_id = reader.required("CNI_CONTAINERID", |text| {
        ContainerId::try_from(text).map_err(|e| format!("CNI_CONTAINERID: {e}"))
    });
    let ifname = reader.required("CNI_IFNAME", |text| {
        IfName::try_from(text).map_err(|e| format!("CNI_IFNAME: {e}"))
    });
    (container_id, ifname, reader.optional("CNI_ARGS", Pod::parse))
}

#[expect(clippy::unnecessary_wraps, reason = "the reader takes parsers that can fail")]
fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

/// A boolean as the reference skeleton reads it in `CNI_NETNS_OVERRIDE`.
fn is_truthy(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "1" | "t" | "true" | "y" | "yes")
}

/// A JSON configuration with a legal name, and a version that has the verb.
struct Document {
    map: Map<String, Value>,
    name: NetworkName,
    version: Version,
}

impl Document {
    fn parse(stdin: &[u8], verb: Verb) -> Result<Document, CniError> {
        let map: Map<String, Value> = serde_json::from_slice(stdin).map_err(|e| {
            let details = format!("stdin is not a JSON object: {e}");
            CniError::new(ErrorCode::Decode, "cannot decode the network configuration", details)
        })?;
        let name = map.get("name").and_then(Value::as_str).unwrap_or_default();
        let name = NetworkName::try_from(name)
            .map_err(|e| CniError::config(format!("missing or illegal name: {e}")))?;
        let version = version(&map, verb)?;
        Ok(Document { map, name, version })
    }

    fn conf(&self, strictness: Strictness) -> Result<NetConf, CniError> {
        NetConf::parse(self.name.clone(), self.version, &self.map, strictness)
    }

    fn attachment(&self, container_id: Option<ContainerId>, ifname: Option<IfName>) -> Attachment {
        Attachment {
            network: self.name.clone(),
            container_id: container_id.expect(ALL_READ),
            ifname: ifname.expect(ALL_READ),
        }
    }

    fn prev_result(&self) -> Result<Option<AddResult>, CniError> {
        match self.map.get("prevResult") {
            None | Some(Value::Null) => Ok(None),
            Some(value) => AddResult::deserialize(value)
                .map(Some)
                .map_err(|e| CniError::config(format!("prevResult is malformed: {e}"))),
        }
    }

    /// The attachments listed under either key. libcni writes the list twice: under the
    /// specification's key and under an earlier one.
    fn valid_attachments(&self) -> Result<Vec<ValidAttachment>, CniError> {
        let lists: Vec<_> = GC_KEYS.iter().filter_map(|key| self.map.get(*key)).collect();
        if lists.is_empty() {
            let [new, old] = GC_KEYS;
            let details =
                format!("GC needs {new} (or {old}) and there is none; nothing is removed");
            return Err(CniError::config(details));
        }
        let mut valid = Vec::new();
        for list in lists {
            let list = Option::<Vec<ValidAttachment>>::deserialize(list)
                .map_err(|e| CniError::config(format!("the list of attachments: {e}")))?;
            valid.extend(list.unwrap_or_default());
        }
        valid.sort_unstable();
        valid.dedup();
        Ok(valid)
    }
}

const GC_KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

fn version(map: &Map<String, Value>, verb: Verb) -> Result<Version, CniError> {
    let text = match map.get("cniVersion") {
        // The specification's value for configurations without the key.
        None => "0.1.0",
        Some(value) => value
            .as_str()
            .ok_or_else(|| CniError::config(format!("cniVersion is {value}: expected a text")))?,
    };
    let fitting = Version::ALL.into_iter().filter(|version| *version >= verb.since());
    let fitting: Vec<_> = fitting.map(Version::as_str).collect();
    Version::from_text(text).filter(|version| *version >= verb.since()).ok_or_else(|| {
        let details = format!(
            "the configuration has {text:?}, the plugin does {} for {fitting:?}",
            verb.as_str()
        );
        CniError::new(ErrorCode::IncompatibleVersion, "incompatible CNI versions", details)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARS: [(&str, &str); 4] = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "K8S_POD_NAME=p"),
    ];

    fn parse(verb: &str, change: &[(&str, &str)], stdin: &str) -> Result<Request, CniError> {
        let mut vars = vec![("CNI_COMMAND", verb)];
        vars.extend(VARS.into_iter().filter(|(key, _)| change.iter().all(|(k, _)| k != key)));
        vars.extend_from_slice(change);
        let vars = vars.into_iter().map(|(key, value)| (key.into(), value.into()));
        Request::parse(&Environment::from_vars(vars), stdin.as_bytes())
    }

    /// `expect` is the code and a part of the details.
    fn check(verb: &str, change: &[(&str, &str)], stdin: &str, expect: (u32, &str)) {
        let error = parse(verb, change, stdin).expect_err(stdin);
        assert_eq!(error.code.number(), expect.0, "{verb} {change:?} {stdin}: {error}");
        assert!(error.details.contains(expect.1), "{verb} {change:?} {stdin}: {error}");
    }

    const CONF: &str = r#"{"cniVersion":"1.1.0","name":"n","type":"aws-cni"}"#;

    #[test]
    fn a04_unknown_command_is_code_4() {
        check("UPDATE", &[], CONF, (4, "UPDATE"));
    }

    #[test]
    fn a05_missing_variables_are_all_named() {
        let none = [("CNI_CONTAINERID", ""), ("CNI_NETNS", ""), ("CNI_IFNAME", "")];
        for verb in ["ADD", "CHECK"] {
            check(verb, &none, CONF, (4, "missing: CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS"));
        }
        check("DEL", &none, CONF, (4, "missing: CNI_CONTAINERID, CNI_IFNAME"));
        let error = parse("ADD", &[("CNI_NETNS", ""), ("CNI_IFNAME", "a/b")], CONF).unwrap_err();
        assert!(error.details.contains("missing: CNI_NETNS"), "{error}");
        assert!(error.details.contains("a/b"), "{error}");
    }

    #[test]
    fn a06_illegal_container_id_is_code_4() {
        for id in ["-a", "a b", "a/b", "ä"] {
            check("ADD", &[("CNI_CONTAINERID", id)], CONF, (4, "CNI_CONTAINERID"));
        }
    }

    #[test]
    fn a07_illegal_interface_name_is_code_4() {
        for name in [".", "..", "a/b", "a:b", "a b", "sixteen-bytes-00"] {
            check("DEL", &[("CNI_IFNAME", name)], CONF, (4, "CNI_IFNAME"));
        }
    }

    #[test]
    fn a08_no_json_is_code_6_and_no_name_code_7() {
        for stdin in ["", "{", "[]", "1", "\u{feff}{}"] {
            check("ADD", &[], stdin, (6, "stdin"));
        }
        for stdin in [
            r#"{"cniVersion":"1.0.0"}"#,
            r#"{"cniVersion":"1.0.0","name":""}"#,
            r#"{"cniVersion":"1.0.0","name":7}"#,
            r#"{"cniVersion":"1.0.0","name":"a b"}"#,
        ] {
            check("DEL", &[], stdin, (7, "name"));
        }
    }

    #[test]
    fn a09_unsupported_version_is_code_1() {
        for (version, named) in [("0.2.0", "0.2.0"), ("1.2.0", "1.2.0"), ("x", "x")] {
            let stdin = format!(r#"{{"cniVersion":"{version}","name":"n"}}"#);
            check("ADD", &[], &stdin, (1, named));
            check("DEL", &[], &stdin, (1, r#"["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]"#));
        }
        check("ADD", &[], r#"{"name":"n"}"#, (1, "0.1.0"));
        check("ADD", &[], r#"{"cniVersion":1,"name":"n"}"#, (7, "cniVersion"));
    }

    #[test]
    fn a13_bad_args_are_code_4() {
        check("ADD", &[("CNI_ARGS", "X=1")], CONF, (4, "X"));
        check("DEL", &[("CNI_ARGS", "X")], CONF, (4, "key=value"));
        assert!(parse("ADD", &[("CNI_ARGS", "X=1;IgnoreUnknown=1")], CONF).is_ok());
    }

    #[test]
    fn a36_del_ignores_bad_options() {
        let stdin = r#"{"cniVersion":"1.0.0","name":"n","mtu":"x","vethPrefix":"long prefix",
            "prevResult":{"ips":[{"address":"none"}]}}"#;
        let Request::Del(del) = parse("DEL", &[("CNI_NETNS", "")], stdin).unwrap() else {
            panic!("a DEL must parse as one")
        };
        assert_eq!((del.conf.veth_prefix.as_str(), del.prev_result), ("eni", None));
        check("ADD", &[], stdin, (7, "mtu"));
    }

    #[test]
    fn a37_check_without_prev_result_or_0_4_0_is_refused() {
        check("CHECK", &[], CONF, (7, "prevResult"));
        check("CHECK", &[], r#"{"cniVersion":"0.3.1","name":"n","prevResult":{}}"#, (1, "0.3.1"));
        let stdin = r#"{"cniVersion":"0.4.0","name":"n","prevResult":{}}"#;
        assert!(parse("CHECK", &[], stdin).is_ok());
    }

    #[test]
    fn a49_status_and_gc_below_1_1_0_are_code_1() {
        let stdin = r#"{"cniVersion":"1.0.0","name":"n","cni.dev/valid-attachments":[]}"#;
        for verb in ["STATUS", "GC"] {
            check(verb, &[], stdin, (1, r#"does "#));
            check(verb, &[], stdin, (1, r#"["1.1.0"]"#));
        }
    }

    fn valid(members: &str) -> Result<Vec<String>, CniError> {
        let stdin = format!(r#"{{"cniVersion":"1.1.0","name":"n"{members}}}"#);
        match parse("GC", &[("CNI_CONTAINERID", ""), ("CNI_IFNAME", "")], &stdin)? {
            Request::Gc(gc) => {
                Ok(gc.valid.into_iter().map(|v| v.container_id + "/" + &v.ifname).collect())
            }
            other => panic!("a GC must parse as one, not {other:?}"),
        }
    }

    #[test]
    fn a53_gc_without_list_is_refused_and_empty_list_is_not() {
        assert_eq!(valid(r#","cni.dev/valid-attachments":[]"#), Ok(vec![]));
        assert_eq!(valid(r#","cni.dev/valid-attachments":null"#), Ok(vec![]));
        assert_eq!(valid("").unwrap_err().code, ErrorCode::InvalidNetworkConfig);
        for odd in [r#"{}"#, r#"[{"containerID":"a"}]"#, r#"["a"]"#] {
            let error = valid(&format!(r#","cni.dev/valid-attachments":{odd}"#)).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidNetworkConfig, "{odd}");
        }
    }

    #[test]
    fn a59_gc_reads_both_keys_of_the_list() {
        let (a, b) =
            (r#"{"containerID":"a","ifname":"eth0"}"#, r#"{"containerID":"b","ifname":"e"}"#);
        assert_eq!(valid(&format!(r#","cni.dev/attachments":[{a}]"#)).unwrap(), ["a/eth0"]);
        let both = format!(r#","cni.dev/attachments":[{a}],"cni.dev/valid-attachments":[{b},{a}]"#);
        assert_eq!(valid(&both).unwrap(), ["a/eth0", "b/e"]);
    }

    #[test]
    fn a02_version_parses_any_stdin() {
        for (stdin, version) in
            [("", "1.1.0"), ("garbage", "1.1.0"), (r#"{"cniVersion":"0.3.1"}"#, "0.3.1")]
        {
            let environment = Environment::from_vars([("CNI_COMMAND".into(), "VERSION".into())]);
            assert_eq!(
                Request::parse(&environment, stdin.as_bytes()),
                Ok(Request::Version(version.to_owned()))
            );
        }
    }

    #[test]
    fn netns_override_is_read_as_a_boolean() {
        for (text, allowed) in [("", false), ("0", false), ("1", true), ("True", true)] {
            match parse("ADD", &[("CNI_NETNS_OVERRIDE", text)], CONF).unwrap() {
                Request::Add(add) => assert_eq!(add.own_netns_allowed, allowed, "{text}"),
                other => panic!("an ADD must parse as one, not {other:?}"),
            }
        }
    }
}
