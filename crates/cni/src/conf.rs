//! The network configuration: stdin, which the runtime composes from our entry of the conflist. Other
//! keys are ignored.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::capabilities::{self, Bandwidth, PortMapping, member};
use crate::error::CniError;
use crate::name::{NetworkName, is_ifname};
use crate::version::Version;

/// The validated options of our entry.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConf {
    /// `cniVersion`, which decides the shape of the answer.
    pub version: Version,
    /// `name` of the list.
    pub name: NetworkName,
    /// `vethPrefix`, with which the names of host interfaces start; 1 to 4 bytes.
    pub veth_prefix: String,
    /// `mtu` of pods' interfaces, in bytes; 576 to 9001.
    pub mtu: u32,
    /// `pluginLogFile`, an absolute path; `None` is stderr.
    pub log_file: Option<PathBuf>,
    /// `pluginLogLevel`, unparsed.
    pub log_level: Option<String>,
    /// `dataPath` and `ipvlanMode`: how a pod is connected.
    pub data_path: DataPath,
    /// `podSGEnforcingMode`, unparsed.
    pub pod_sg_enforcing_mode: Option<String>,
    /// `ipamdSocket`, at which the daemon listens; `None` is the default socket.
    pub ipamd_socket: Option<PathBuf>,
    /// `ipamdTimeout`, the bound of a whole verb.
    pub ipamd_timeout: Duration,
    /// `runtimeConfig`, the runtime's values for the capabilities that the entry declares.
    pub runtime_config: RuntimeConfig,
    /// The capability `portMappings`.
    pub port_mappings: Vec<PortMapping>,
    /// The capability `bandwidth`, or else the same members of the entry itself.
    pub bandwidth: Bandwidth,
}

/// How a pod is connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DataPath {
    /// By a veth pair, whose other end is on the node.
    #[default]
    Veth,
    /// By an `ipvlan` child of the interface that has the pod's address.
    Ipvlan(IpvlanMode),
}

/// How an `ipvlan` child sends. The reference plugin `ipvlan` has the same names in its `mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IpvlanMode {
    /// Frames, past the node's routes and netfilter.
    #[default]
    L2,
    /// Packets, by the node's routes and through its netfilter.
    L3s,
}

/// How a bad option is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// A bad option is an error.
    Strict,
    /// A bad option counts as absent. This is for DEL and GC. The configuration may have changed
    /// since the ADD, and they must not fail for an option that they do not use.
    Lenient,
}

impl NetConf {
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(75);
    const MAX_TIMEOUT: Duration = Duration::from_secs(600);
    const DEFAULT_MTU: u32 = 9001;
    const DEFAULT_VETH_PREFIX: &str = "eni";

    /// Parses the options; the caller has read the name and the version.
    ///
    /// # Errors
    ///
    /// Code 7 with every bad option, if strict.
    pub(crate) fn parse(
        name: NetworkName,
        version: Version,
        map: &Map<String, Value>,
        strictness: Strictness,
    ) -> Result<NetConf, CniError> {
        let mut options = Options { map, faults: Vec::new() };
        let runtime_config = options.read("runtimeConfig", runtime_config).unwrap_or_default();
        let conf = NetConf {
            version,
            name,
            veth_prefix: options
                .read("vethPrefix", veth_prefix)
                .unwrap_or_else(|| Self::DEFAULT_VETH_PREFIX.to_owned()),
            mtu: options.read("mtu", mtu).unwrap_or(Self::DEFAULT_MTU),
            log_file: options.read("pluginLogFile", log_file).flatten(),
            log_level: options.read("pluginLogLevel", text),
            data_path: options.data_path(),
            pod_sg_enforcing_mode: options.read("podSGEnforcingMode", text),
            ipamd_socket: options.read("ipamdSocket", absolute_path),
            ipamd_timeout: options.read("ipamdTimeout", timeout).unwrap_or(Self::DEFAULT_TIMEOUT),
            port_mappings: options
                .take(
                    "portMappings",
                    runtime_config.get(&["portMappings"]),
                    capabilities::port_mappings,
                )
                .unwrap_or_default(),
            bandwidth: options.bandwidth(&runtime_config).unwrap_or_default(),
            runtime_config,
        };
        match strictness {
            Strictness::Strict if !options.faults.is_empty() => {
                Err(CniError::config(options.faults.join("; ")))
            }
            Strictness::Strict | Strictness::Lenient => Ok(conf),
        }
    }
}

struct Options<'a> {
    map: &'a Map<String, Value>,
    faults: Vec<String>,
}

impl Options<'_> {
    /// The option's value. `None` if it is absent, null or empty. A bad value gives `None` too, and is
    /// noted.
    fn read<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&Value) -> Result<T, &'static str>,
    ) -> Option<T> {
        self.take(key, self.map.get(key), parse)
    }

    /// A mode without the data path that has it would have no effect, so it is a fault.
    fn data_path(&mut self) -> DataPath {
        let mode = self.read("ipvlanMode", ipvlan_mode);
        let is_ipvlan = self.read("dataPath", is_ipvlan).unwrap_or_default();
        match (is_ipvlan, mode) {
            (true, mode) => DataPath::Ipvlan(mode.unwrap_or_default()),
            (false, None) => DataPath::Veth,
            (false, Some(_)) => {
                self.faults
                    .push("ipvlanMode is set: expected dataPath \"ipvlan\" beside it".into());
                DataPath::Veth
            }
        }
    }

    fn bandwidth(&mut self, runtime_config: &RuntimeConfig) -> Option<Bandwidth> {
        let capability = runtime_config.get(&["bandwidth"]).filter(|value| !value.is_null());
        let (key, limits) = match capability {
            Some(Value::Object(limits)) => ("bandwidth", limits),
            Some(other) => return self.take("bandwidth", Some(other), |_| Err("an object")),
            None => ("the entry", self.map),
        };
        let fault =
            |allowed| self.faults.push(format!("{key} has a bad limit: expected {allowed}"));
        capabilities::bandwidth(limits).map_err(fault).ok()
    }

    fn take<T>(
        &mut self,
        key: &str,
        value: Option<&Value>,
        parse: impl FnOnce(&Value) -> Result<T, &'static str>,
    ) -> Option<T> {
        let value = value.filter(|v| !v.is_null() && *v != "")?;
        let fault = |allowed| self.faults.push(format!("{key} is {value}: expected {allowed}"));
        parse(value).map_err(fault).ok()
    }
}

fn text(value: &Value) -> Result<String, &'static str> {
    value.as_str().map(str::to_owned).ok_or("a text")
}

fn absolute_path(value: &Value) -> Result<PathBuf, &'static str> {
    let path = value.as_str().map(Path::new).filter(|path| path.is_absolute());
    path.map(Path::to_owned).ok_or("an absolute path")
}

/// `None` is stderr. A relative path would lie wherever the runtime happens to run, and stdout belongs to
/// the result.
fn log_file(value: &Value) -> Result<Option<PathBuf>, &'static str> {
    match value.as_str() {
        Some("stderr") => Ok(None),
        _ => absolute_path(value).map(Some).map_err(|_| "stderr or an absolute path"),
    }
}

fn veth_prefix(value: &Value) -> Result<String, &'static str> {
    let prefix = value.as_str().filter(|text| text.len() <= 4 && is_ifname(text));
    prefix.map(str::to_owned).ok_or("1 to 4 bytes that may start an interface's name")
}

fn is_ipvlan(value: &Value) -> Result<bool, &'static str> {
    match value.as_str() {
        Some("veth") => Ok(false),
        Some("ipvlan") => Ok(true),
        Some(_) | None => Err("veth or ipvlan"),
    }
}

fn ipvlan_mode(value: &Value) -> Result<IpvlanMode, &'static str> {
    match value.as_str() {
        Some("l2") => Ok(IpvlanMode::L2),
        Some("l3s") => Ok(IpvlanMode::L3s),
        Some(_) | None => Err("l2 or l3s"),
    }
}

/// amazon-vpc-cni-k8s writes the number as text.
fn mtu(value: &Value) -> Result<u32, &'static str> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|n| u32::try_from(n).ok()),
    };
    number.filter(|n| (576..=9001).contains(n)).ok_or("a number from 576 to 9001")
}

fn timeout(value: &Value) -> Result<Duration, &'static str> {
    let duration = match value {
        Value::String(text) => humantime::parse_duration(text).ok(),
        other => other.as_u64().map(Duration::from_secs),
    };
    duration
        .filter(|d| !d.is_zero() && *d <= NetConf::MAX_TIMEOUT)
        .ok_or("seconds, or a text such as \"20s\" or \"500ms\", up to ten minutes")
}

fn runtime_config(value: &Value) -> Result<RuntimeConfig, &'static str> {
    value.as_object().cloned().map(RuntimeConfig).ok_or("an object")
}

/// `runtimeConfig`: one value for each declared capability that the runtime fills in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeConfig(Map<String, Value>);

impl RuntimeConfig {
    /// The value at `path`: a capability's name, then keys inside of it. Case is ignored, since the
    /// specification writes `hostPort` and containerd sends `HostPort`.
    #[must_use]
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        let (capability, keys) = path.split_first()?;
        let value = member(&self.0, capability)?;
        keys.iter().try_fold(value, |value, key| member(value.as_object()?, key))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorCode;

    fn parse(options: &Value, strictness: Strictness) -> Result<NetConf, CniError> {
        let name = NetworkName::try_from("n").unwrap();
        NetConf::parse(name, Version::NEWEST, options.as_object().unwrap(), strictness)
    }

    fn strict(options: &Value) -> Result<NetConf, CniError> {
        parse(options, Strictness::Strict)
    }

    #[test]
    fn conf_without_options_has_the_defaults() {
        let absent = strict(&json!({"type": "aws-cni", "unknown": {"a": 1}})).unwrap();
        assert_eq!(absent.veth_prefix, "eni");
        assert_eq!(absent.mtu, 9001);
        assert_eq!(absent.ipamd_timeout, Duration::from_secs(75));
        assert_eq!((&absent.log_file, &absent.ipamd_socket), (&None, &None));
        let empty = json!({"vethPrefix": "", "mtu": "", "pluginLogFile": null, "ipamdSocket": ""});
        assert_eq!(strict(&empty).unwrap(), absent);
    }

    #[test]
    fn conf_with_every_option_is_read() {
        let conf = strict(&json!({
            "vethPrefix": "tp", "mtu": "1500", "pluginLogFile": "/l", "pluginLogLevel": "DEBUG",
            "podSGEnforcingMode": "strict", "ipamdSocket": "/s", "ipamdTimeout": "1500ms",
        }))
        .unwrap();
        assert_eq!((conf.veth_prefix.as_str(), conf.mtu), ("tp", 1500));
        assert_eq!(conf.log_file, Some(PathBuf::from("/l")));
        assert_eq!(conf.log_level.as_deref(), Some("DEBUG"));
        assert_eq!(conf.pod_sg_enforcing_mode.as_deref(), Some("strict"));
        assert_eq!(conf.ipamd_socket, Some(PathBuf::from("/s")));
        assert_eq!(conf.ipamd_timeout, Duration::from_millis(1500));
    }

    #[test]
    fn conf_log_file_is_stderr_or_an_absolute_path() {
        let log_file = |text: &str| strict(&json!({ "pluginLogFile": text })).map(|c| c.log_file);
        assert_eq!(log_file("stderr"), Ok(None));
        assert_eq!(log_file("/var/log/l"), Ok(Some(PathBuf::from("/var/log/l"))));
        for bad in ["stdout", "plugin.log", "./l", "../l"] {
            let error = log_file(bad).unwrap_err();
            assert!(error.details.contains("expected stderr or an absolute path"), "{error}");
        }
    }

    #[test]
    fn conf_data_path_is_veth_or_ipvlan_in_a_mode() {
        for (options, expect) in [
            (json!({}), DataPath::Veth),
            (json!({"dataPath": "veth"}), DataPath::Veth),
            (json!({"dataPath": "ipvlan"}), DataPath::Ipvlan(IpvlanMode::L2)),
            (json!({"dataPath": "ipvlan", "ipvlanMode": "l2"}), DataPath::Ipvlan(IpvlanMode::L2)),
            (json!({"dataPath": "ipvlan", "ipvlanMode": "l3s"}), DataPath::Ipvlan(IpvlanMode::L3s)),
        ] {
            assert_eq!(strict(&options).unwrap().data_path, expect, "{options}");
        }
        for (options, fault) in [
            (json!({"dataPath": "macvlan"}), "dataPath is \"macvlan\": expected veth or ipvlan"),
            (
                json!({"dataPath": "ipvlan", "ipvlanMode": "l3"}),
                "ipvlanMode is \"l3\": expected l2",
            ),
            (json!({"ipvlanMode": "l2"}), "ipvlanMode is set: expected dataPath"),
            (json!({"dataPath": "veth", "ipvlanMode": "l2"}), "ipvlanMode is set"),
        ] {
            let error = strict(&options).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidNetworkConfig);
            assert!(error.details.contains(fault), "{options}: {error}");
        }
        let lenient = parse(&json!({"dataPath": 1, "ipvlanMode": "l2"}), Strictness::Lenient);
        assert_eq!(lenient.unwrap().data_path, DataPath::Veth);
    }

    #[test]
    fn conf_numbers_are_read_from_numbers_and_texts() {
        assert_eq!(strict(&json!({"mtu": 576})).unwrap().mtu, 576);
        assert_eq!(strict(&json!({"mtu": "9001"})).unwrap().mtu, 9001);
        let conf = strict(&json!({"ipamdTimeout": 3})).unwrap();
        assert_eq!(conf.ipamd_timeout, Duration::from_secs(3));
    }

    #[test]
    fn conf_bad_options_are_all_named_or_all_ignored() {
        let bad = json!({
            "vethPrefix": "abcde", "mtu": "big", "pluginLogFile": 1, "ipamdSocket": "relative",
            "ipamdTimeout": "soon", "runtimeConfig": [],
        });
        let error = strict(&bad).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidNetworkConfig);
        for key in bad.as_object().unwrap().keys() {
            assert!(error.details.contains(&format!("{key} is ")), "{key}: {error}");
        }
        assert_eq!(parse(&bad, Strictness::Lenient), strict(&json!({})));
    }

    #[test]
    fn conf_values_out_of_range_are_refused() {
        for bad in [
            json!({"mtu": 575}),
            json!({"mtu": 9002}),
            json!({"mtu": -1500}),
            json!({"mtu": 1500.5}),
            json!({"mtu": 4_294_968_796_u64}),
            json!({"ipamdTimeout": 0}),
            json!({"ipamdTimeout": "1h"}),
            json!({"vethPrefix": "a/b"}),
            json!({"vethPrefix": "e%d"}),
            json!({"vethPrefix": 7}),
        ] {
            assert!(strict(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn capabilities_come_from_the_runtime_before_the_entry() {
        let entry = json!({"ingressRate": 800});
        let rate = |conf: &NetConf| conf.bandwidth.ingress.map(|it| it.bits_per_second.get());
        assert_eq!(rate(&strict(&entry).unwrap()), Some(800));
        let runtime = json!({"ingressRate": 800, "runtimeConfig": {
            "bandwidth": {"ingressRate": 1600, "ingressBurst": 1},
            "portMappings": [{"hostPort": 1, "containerPort": 2, "protocol": "tcp"}],
        }});
        let conf = strict(&runtime).unwrap();
        assert_eq!((rate(&conf), conf.port_mappings.len()), (Some(1600), 1));
    }

    #[test]
    fn capabilities_with_faults_are_all_named_or_all_ignored() {
        let bad = json!({"runtimeConfig": {"bandwidth": 1, "portMappings": [{"hostPort": 1}]}});
        let error = strict(&bad).unwrap_err();
        assert!(error.details.contains("bandwidth is 1: expected an object"), "{error}");
        assert!(error.details.contains("portMappings is [{"), "{error}");
        let lenient = parse(&bad, Strictness::Lenient).unwrap();
        assert!(lenient.port_mappings.is_empty());
        let error = strict(&json!({"egressRate": 1})).unwrap_err();
        assert!(error.details.contains("the entry has a bad limit"), "{error}");
    }

    #[test]
    fn runtime_config_lookup_ignores_case() {
        let conf = strict(&json!({"runtimeConfig": {
            "bandwidth": {"IngressRate": 1_000_000},
            "io.kubernetes.cri.pod-annotations": {"foo": "bar"},
        }}))
        .unwrap()
        .runtime_config;
        assert_eq!(conf.get(&["bandwidth", "ingressRate"]), Some(&json!(1_000_000)));
        assert_eq!(conf.get(&["io.kubernetes.cri.pod-annotations", "foo"]), Some(&json!("bar")));
        assert_eq!(conf.get(&["bandwidth", "ingressRate", "deeper"]), None);
        assert_eq!(conf.get(&["mac"]), None);
        assert_eq!(conf.get(&[]), None);
    }
}
