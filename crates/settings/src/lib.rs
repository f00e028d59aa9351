//! The settings of a node, and the policy that they amount to on an instance type.
//!
//! Names and defaults are those of amazon-vpc-cni-k8s v1.23.1. Where the default of its code differs
//! from what its manifest sets, ours is the manifest's. A bad value is an error; an empty value
//! counts as unset.
//!
//! The daemon and the planner share this package, so it must not know the AWS SDK, the kernel or
//! the daemon.

mod config_maps;
mod describe;
mod egress;
mod endpoints;
mod env_file;
mod family;
mod install;
mod introspection;
mod kubernetes;
mod limits;
mod listing;
mod misspelt;
mod nat;
mod network_policies;
mod policy;
mod provisioning;
pub mod registry;
mod reload;
mod tags;
mod traces;
mod tracking;
mod unsupported;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipam::block::{BlockKind, Family};
use ipam::connection_tracking::ConnectionTracking;
use ipam::eni_config::EniConfigKeys;
use ipam::policy::{NatPolicy, Needs, Placement, Provisioning, WarmSettings};
use ipam::record::PodIpv6;
use service_url::{NoProxy, ProxyUrl, ServiceUrl};

pub use self::config_maps::{ConfigMapError, ConfigMaps};
pub use self::describe::{changes_text, families_text, limits_text, targets_text};
pub use self::env_file::{EnvFileError, LineFault};
use self::family::Asked;
pub use self::install::InstallSettings;
pub use self::introspection::{BindAddress, ipamd_settings, network_settings};
pub use self::kubernetes::{ApiServer, OnNode, SettingsMaps};
pub use self::limits::{assumed_limits, known_limits, known_types, known_vcpus};
pub use self::listing::help;
pub use self::network_policies::EnforcingMode;
pub use self::policy::{policy, pool_warnings, setting_warnings, warnings};
use self::registry::{
    AWS_CA_BUNDLE, AWS_VPC_ENI_MTU, AWS_VPC_K8S_CNI_BACKING_STORE, AWS_VPC_K8S_CNI_LOG_FILE,
    AWS_VPC_K8S_CNI_LOGLEVEL, DISABLE_LEAKED_ENI_CLEANUP, DISABLE_METRICS, DISABLE_POD_V6,
    HTTP_PROXY, HTTP_TIMEOUT, HTTPS_PROXY, IP_COOLDOWN_PERIOD, MANAGE_UNTAGGED_ENI, MAX_ENI,
    MINIMUM_IP_TARGET, MY_NODE_NAME, MY_POD_NAME, NO_PROXY, POD_MTU, TIDEPOOL_ADD_WAIT,
    TIDEPOOL_DELEGATED_PREFIXES, TIDEPOOL_ENV_FILE, TIDEPOOL_EVENTS, TIDEPOOL_GROW_DELAY,
    TIDEPOOL_LEAK_AGE, TIDEPOOL_LOG_FORMAT, TIDEPOOL_MAX_PODS, TIDEPOOL_MIN_ENI_AGE,
    TIDEPOOL_RAISE_NEIGHBOUR_LIMITS, TIDEPOOL_RUNTIME_SOCKET, TIDEPOOL_SHRINK_DELAY,
    TIDEPOOL_SOCKET, WARM_ENI_TARGET, WARM_IP_TARGET, WARM_PREFIX_TARGET,
};
pub use self::reload::{InForce, Reloaded, reload};
pub use self::traces::{Collector, Headers, TraceSettings};
pub use self::variables::{Source, Variables};

/// Why settings are refused, in one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting has a bad value.
    #[error(transparent)]
    Value(#[from] SettingError),
    /// The file that `TIDEPOOL_ENV_FILE` names is bad.
    #[error(transparent)]
    File(#[from] EnvFileError),
    /// The cluster's `ConfigMap`s have something else than live settings.
    #[error(transparent)]
    ConfigMap(#[from] ConfigMapError),
}

/// Why a value is refused: one line that names the variable, its value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?}: {allowed}")]
pub struct SettingError {
    /// The name of the environment variable.
    pub variable: &'static str,
    /// Its value as [`Variables::shown`] has it; empty if it was not set.
    pub value: String,
    /// What is allowed, or what to set instead.
    pub allowed: String,
}

/// The least important lines that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// One line for each change of state.
    Info,
    /// What is degraded and heals itself.
    Warn,
    /// What a person must look at; `fatal` means this too.
    Error,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        })
    }
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, to which lines are appended.
    File(PathBuf),
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// All settings, each valid by itself and beside the others. Whether the instance can do what they
/// ask for is for [`policy`] to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// From `ENABLE_PREFIX_DELEGATION` and `ENABLE_IPv6`; of IPv4 with both families. [`policy`] uses single IPv4
    /// addresses on an instance without prefixes.
    pub kind: BlockKind,
    /// `TIDEPOOL_DUAL_STACK`, if pods have both families: never with IPv6 as `kind`.
    pub dual: Option<Needs>,
    /// `WARM_ENI_TARGET`, `WARM_IP_TARGET`, `MINIMUM_IP_TARGET`, `WARM_PREFIX_TARGET`.
    pub warm: WarmSettings,
    /// `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`.
    pub placement: Placement,
    /// `DISABLE_NETWORK_RESOURCE_PROVISIONING` and its like.
    pub provisioning: Provisioning,
    /// `ENI_CONFIG_ANNOTATION_DEF` and `ENI_CONFIG_LABEL_DEF`.
    pub eni_config_keys: EniConfigKeys,
    /// `TIDEPOOL_KUBERNETES`, with where the API server is.
    pub api_server: ApiServer,
    /// `TIDEPOOL_EVENTS`.
    pub events: bool,
    /// What the daemon does for this node and its pods at the API server.
    pub on_node: OnNode,
    /// `TIDEPOOL_SETTINGS` and `TIDEPOOL_SETTINGS_LABEL`; `None` if the first is `off`.
    pub settings_maps: Option<SettingsMaps>,
    /// `MY_NODE_NAME`.
    pub node_name: Option<String>,
    /// `MAX_ENI`.
    pub max_enis: Option<u16>,
    /// `TIDEPOOL_MAX_PODS`.
    pub max_pods: Option<u32>,
    /// `TIDEPOOL_DELEGATED_PREFIXES`; above 0 only with prefixes.
    pub delegated_prefixes: Option<u16>,
    /// `IP_COOLDOWN_PERIOD`.
    pub cooldown: Duration,
    /// `TIDEPOOL_ADD_WAIT`.
    pub add_wait: Duration,
    /// `TIDEPOOL_GROW_DELAY`.
    pub grow_delay: Duration,
    /// `TIDEPOOL_SHRINK_DELAY`.
    pub shrink_delay: Duration,
    /// `TIDEPOOL_MIN_ENI_AGE`.
    pub min_eni_age: Duration,
    /// `TIDEPOOL_LEAK_AGE`; none with `DISABLE_LEAKED_ENI_CLEANUP`.
    pub leak_age: Option<Duration>,
    /// `CLUSTER_NAME`.
    pub cluster: Option<String>,
    /// `ADDITIONAL_ENI_TAGS`, without keys that are the daemon's own.
    pub eni_tags: BTreeMap<String, String>,
    /// `MANAGE_UNTAGGED_ENI`.
    pub manage_untagged: bool,
    /// `TIDEPOOL_TCP_ESTABLISHED_TIMEOUT` and its like, as far as they are set.
    pub connection_tracking: ConnectionTracking,
    /// `AWS_VPC_ENI_MTU`: bytes, 576 (with IPv6 1280) to 9001.
    pub mtu: u16,
    /// `POD_MTU`, or `mtu`: the most that a pod's link may have.
    pub pod_mtu: u16,
    /// `DISABLE_POD_V6`.
    pub pod_ipv6: PodIpv6,
    /// `AWS_VPC_K8S_CNI_EXTERNALSNAT` and its like.
    pub nat: NatPolicy,
    /// `NETWORK_POLICY_ENFORCING_MODE`; `None` if the network policy agent is not used.
    pub network_policies: Option<EnforcingMode>,
    /// `AWS_EC2_ENDPOINT`, or what the environment names for the SDK.
    pub ec2_endpoint: Option<ServiceUrl>,
    /// `HTTP_PROXY`.
    pub http_proxy: Option<ProxyUrl>,
    /// `HTTPS_PROXY`.
    pub https_proxy: Option<ProxyUrl>,
    /// `NO_PROXY`.
    pub no_proxy: NoProxy,
    /// `AWS_CA_BUNDLE`.
    pub ca_bundle: Option<PathBuf>,
    /// `TIDEPOOL_RAISE_NEIGHBOUR_LIMITS`.
    pub raise_neighbour_limits: bool,
    /// `HTTP_TIMEOUT`.
    pub http_timeout: Duration,
    /// `TIDEPOOL_ENV_FILE`.
    pub env_file: Option<PathBuf>,
    /// `TIDEPOOL_SOCKET`.
    pub socket: PathBuf,
    /// `MY_POD_NAME`.
    pub pod_name: Option<String>,
    /// `TIDEPOOL_RUNTIME_SOCKET`; `None` if it is `off`.
    pub runtime_socket: Option<PathBuf>,
    /// `DISABLE_METRICS`; `None` if it is true.
    pub metrics_port: Option<u16>,
    /// `INTROSPECTION_BIND_ADDRESS`; `None` with `DISABLE_INTROSPECTION`.
    pub introspection: Option<BindAddress>,
    /// `AWS_VPC_K8S_CNI_BACKING_STORE`: the incumbent's checkpoint, read and never written.
    pub checkpoint: PathBuf,
    /// The directory of `checkpoint`, in which the daemon keeps its own files.
    pub state_directory: PathBuf,
    /// `AWS_VPC_K8S_CNI_LOGLEVEL`.
    pub log_level: LogLevel,
    /// `AWS_VPC_K8S_CNI_LOG_FILE`.
    pub log_target: LogTarget,
    /// What is put on the node, and where.
    pub install: InstallSettings,
    /// `TIDEPOOL_LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` and its like.
    pub traces: TraceSettings,
    /// What the settings ask for and do not get, one sentence each.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads [`Variables::of_process`].
    ///
    /// # Errors
    /// For the first line of the file that is wrong, or the first bad value.
    pub fn from_process() -> Result<Self, Error> {
        Ok(Self::read(&Variables::of_process()?)?)
    }

    /// Reads `variables`.
    ///
    /// # Errors
    /// For the first bad value.
    pub fn read(variables: &Variables) -> Result<Self, SettingError> {
        let asked @ Asked { kind, dual } = family::asked(variables)?;
        unsupported::check(variables)?;
        let (eni_tags, mut warnings) = tags::additional(variables)?;
        let (mtu, pod_mtu) = mtus(variables, asked)?;
        warnings.extend(larger_pod_mtu(variables, mtu)?);
        warnings.extend(unsupported::warnings(variables));
        let (provisioning, unheeded) = provisioning::wanted(variables)?;
        warnings.extend(unheeded);
        warnings.extend(variables.misspelt());
        let (network_policies, unpoliced) = network_policies::mode(variables, asked)?;
        warnings.extend(unpoliced);
        let no_proxy = NoProxy::parse(variables.text(&NO_PROXY).unwrap_or_default());
        warnings.extend(endpoints::warnings(variables, &no_proxy)?);
        let (introspection, elsewhere) = introspection::address(variables)?;
        warnings.extend(elsewhere);
        let (checkpoint, state_directory) = backing_store(variables)?;
        Ok(Self {
            kind,
            dual,
            warm: warm_settings(variables, kind)?,
            placement: kubernetes::placement(variables)?,
            provisioning,
            eni_config_keys: kubernetes::eni_config_keys(variables),
            api_server: kubernetes::api_server(variables)?,
            events: variables.boolean(&TIDEPOOL_EVENTS)?,
            on_node: kubernetes::on_node(variables)?,
            settings_maps: kubernetes::settings_maps(variables)?,
            node_name: variables.text(&MY_NODE_NAME).map(str::to_owned),
            max_enis: variables.optional_number(&MAX_ENI, 1, u16::MAX)?,
            max_pods: variables.optional_number(&TIDEPOOL_MAX_PODS, 1, u32::MAX)?,
            delegated_prefixes: delegated_prefixes(variables, kind)?,
            cooldown: variables.seconds(&IP_COOLDOWN_PERIOD, 0)?,
            add_wait: variables.span(&TIDEPOOL_ADD_WAIT, LONGEST_ADD_WAIT)?,
            grow_delay: variables.span(&TIDEPOOL_GROW_DELAY, LONGEST_GROW_DELAY)?,
            shrink_delay: variables.span(&TIDEPOOL_SHRINK_DELAY, LONGEST_DELAY)?,
            min_eni_age: variables.span(&TIDEPOOL_MIN_ENI_AGE, LONGEST_DELAY)?,
            leak_age: leak_age(variables)?,
            cluster: tags::cluster(variables)?,
            eni_tags,
            manage_untagged: variables.boolean(&MANAGE_UNTAGGED_ENI)?,
            connection_tracking: tracking::wanted(variables)?,
            mtu,
            pod_mtu,
            pod_ipv6: match variables.boolean(&DISABLE_POD_V6)? {
                false => PodIpv6::AsItIs,
                true => PodIpv6::Off,
            },
            nat: nat::policy(variables, kind)?,
            network_policies,
            raise_neighbour_limits: variables.boolean(&TIDEPOOL_RAISE_NEIGHBOUR_LIMITS)?,
            ec2_endpoint: endpoints::of_ec2(variables)?,
            http_proxy: variables.proxy(&HTTP_PROXY)?,
            https_proxy: variables.proxy(&HTTPS_PROXY)?,
            no_proxy,
            ca_bundle: variables.optional_path(&AWS_CA_BUNDLE)?,
            http_timeout: variables.seconds(&HTTP_TIMEOUT, LEAST_HTTP_TIMEOUT)?,
            env_file: variables.optional_path(&TIDEPOOL_ENV_FILE)?,
            socket: variables.path(&TIDEPOOL_SOCKET)?,
            pod_name: variables.text(&MY_POD_NAME).map(str::to_owned),
            runtime_socket: runtime_socket(variables)?,
            metrics_port: (!variables.boolean(&DISABLE_METRICS)?).then_some(METRICS_PORT),
            introspection,
            checkpoint,
            state_directory,
            log_level: log_level(variables, &AWS_VPC_K8S_CNI_LOGLEVEL)?,
            log_target: log_target(variables)?,
            install: install::settings(variables)?,
            log_format: log_format(variables)?,
            traces: traces::settings(variables)?,
            warnings,
        })
    }
}

/// No instance has more places for prefixes on all its ENIs together.
const MOST_DELEGATED: u16 = 1000;

/// A pool of single addresses has no prefix to give away.
fn delegated_prefixes(variables: &Variables, kind: BlockKind) -> Result<Option<u16>, SettingError> {
    let setting = &TIDEPOOL_DELEGATED_PREFIXES;
    let wanted = variables.optional_number(setting, 0, MOST_DELEGATED)?;
    if wanted.is_some_and(|n| n > 0) && !kind.is_prefix() {
        let needs = "only with ENABLE_PREFIX_DELEGATION=true or ENABLE_IPv6=true";
        return Err(variables.error(setting, needs));
    }
    Ok(wanted)
}

/// Where the daemon listens, for a client that needs no other setting to be right.
///
/// # Errors
/// If `TIDEPOOL_SOCKET` or the file that `TIDEPOOL_ENV_FILE` names is bad.
pub fn socket_of_process() -> Result<PathBuf, Error> {
    Ok(Variables::of_process()?.path(&TIDEPOOL_SOCKET)?)
}

/// Where the introspection is served, for a client that needs no other setting to be right.
///
/// # Errors
/// If `INTROSPECTION_BIND_ADDRESS`, `DISABLE_INTROSPECTION` or the file that `TIDEPOOL_ENV_FILE` names is bad.
pub fn introspection_of_process() -> Result<Option<BindAddress>, Error> {
    Ok(introspection::address(&Variables::of_process()?)?.0)
}

/// The directory of the record, for a command that needs no other setting to be right.
///
/// # Errors
/// If `AWS_VPC_K8S_CNI_BACKING_STORE` or the file that `TIDEPOOL_ENV_FILE` names is bad.
pub fn state_directory_of_process() -> Result<PathBuf, Error> {
    let (_, directory) = backing_store(&Variables::of_process()?)?;
    Ok(directory)
}

/// Where the plugin asks by default; `proto::DEFAULT_SOCKET` too, as a test of `ipamd` checks.
const DEFAULT_SOCKET: &str = "/var/run/aws-node/ipamd.sock";
/// Where scrapers of the incumbent look.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/introspect.go`.
const METRICS_PORT: u16 = 61678;
/// Shorter than the four minutes that a kubelet gives a pod's sandbox.
const LONGEST_ADD_WAIT: Duration = Duration::from_secs(180);
/// A pod that waits for EC2 would wait this long in addition.
const LONGEST_GROW_DELAY: Duration = Duration::from_secs(10);
/// A longer delay would keep unused addresses from nodes that need them.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);
/// No node takes a day to attach an ENI.
const LONGEST_LEAK_AGE: Duration = Duration::from_secs(24 * 3600);
/// In seconds. Source: amazon-vpc-cni-k8s v1.23.1, `HTTP_TIMEOUT`.
const LEAST_HTTP_TIMEOUT: u32 = 10;
/// In bytes, what every IPv4 host takes. Source: RFC 791, section 3.1.
const LEAST_IPV4_MTU: u16 = 576;
/// In bytes. Source: RFC 8200, section 5.
const LEAST_IPV6_MTU: u16 = 1280;
/// In bytes, jumbo frames of a VPC. Source: AWS, "Network MTU for your EC2 instance".
const JUMBO_MTU: u16 = 9001;

fn warm_settings(variables: &Variables, kind: BlockKind) -> Result<WarmSettings, SettingError> {
    let warm = WarmSettings {
        warm_eni: variables.number(&WARM_ENI_TARGET, 0, u16::MAX)?,
        warm_ip: variables.number(&WARM_IP_TARGET, 0, u32::MAX)?,
        minimum_ip: variables.number(&MINIMUM_IP_TARGET, 0, u32::MAX)?,
        warm_prefix: variables.number(&WARM_PREFIX_TARGET, 0, u16::MAX)?,
    };
    let asks_for_nothing = warm.warm_ip == 0 && warm.minimum_ip == 0 && warm.warm_prefix == 0;
    if kind == BlockKind::V4Prefix && asks_for_nothing {
        return Err(variables.error(
            &WARM_PREFIX_TARGET,
            "with ENABLE_PREFIX_DELEGATION=true one of WARM_PREFIX_TARGET, WARM_IP_TARGET and \
             MINIMUM_IP_TARGET must be above 0",
        ));
    }
    Ok(warm)
}

fn leak_age(variables: &Variables) -> Result<Option<Duration>, SettingError> {
    let age = variables.span(&TIDEPOOL_LEAK_AGE, LONGEST_LEAK_AGE)?;
    let is_off = variables.boolean(&DISABLE_LEAKED_ENI_CLEANUP)?;
    Ok(Some(age).filter(|_| !is_off))
}

/// The MTU of ENIs, and the largest of pods' links. A packet of a pod that is larger than its ENI takes is lost.
fn mtus(variables: &Variables, asked: Asked) -> Result<(u16, u16), SettingError> {
    let least = match (asked.kind.family(), egress::to(variables, asked.kind)?) {
        _ if asked.dual.is_some() => LEAST_IPV6_MTU,
        (Family::V6, _) | (Family::V4, Some(Family::V6)) => LEAST_IPV6_MTU,
        (Family::V4, Some(Family::V4) | None) => LEAST_IPV4_MTU,
    };
    let mtu = variables.number(&AWS_VPC_ENI_MTU, least, JUMBO_MTU)?;
    let of_pods = variables.optional_number(&POD_MTU, least, JUMBO_MTU)?;
    Ok((mtu, of_pods.unwrap_or(mtu).min(mtu)))
}

fn larger_pod_mtu(variables: &Variables, mtu: u16) -> Result<Option<String>, SettingError> {
    let of_pods = variables.optional_number(&POD_MTU, 0, JUMBO_MTU)?.filter(|pods| *pods > mtu);
    let warning = |pods| format!("POD_MTU: {pods} is more than AWS_VPC_ENI_MTU; pods get {mtu}");
    Ok(of_pods.map(warning))
}

/// `off` stands for none, since an empty value stands for the default.
fn runtime_socket(variables: &Variables) -> Result<Option<PathBuf>, SettingError> {
    let setting = &TIDEPOOL_RUNTIME_SOCKET;
    if variables.text(setting) == Some("off") {
        return Ok(None);
    }
    let socket = variables.path(setting);
    socket.map(Some).map_err(|_| variables.error(setting, "expected off or an absolute path"))
}

/// The incumbent's checkpoint, and the directory that it is in.
fn backing_store(variables: &Variables) -> Result<(PathBuf, PathBuf), SettingError> {
    let setting = &AWS_VPC_K8S_CNI_BACKING_STORE;
    let file = variables.path(setting)?;
    let directory = file.parent().map(Path::to_owned);
    let directory = directory
        .ok_or_else(|| variables.error(setting, "expected the absolute path of a file"))?;
    Ok((file, directory))
}

fn log_level(
    variables: &Variables,
    setting: &'static registry::Setting,
) -> Result<LogLevel, SettingError> {
    match &*variables.text(setting).unwrap_or_default().to_ascii_lowercase() {
        "debug" => Ok(LogLevel::Debug),
        "info" => Ok(LogLevel::Info),
        "warn" => Ok(LogLevel::Warn),
        "error" | "fatal" => Ok(LogLevel::Error),
        _ => Err(variables.error(setting, "expected debug, info, warn, error or fatal")),
    }
}

fn log_target(variables: &Variables) -> Result<LogTarget, SettingError> {
    let setting = &AWS_VPC_K8S_CNI_LOG_FILE;
    match &*variables.text(setting).unwrap_or_default().to_ascii_lowercase() {
        "stdout" => Ok(LogTarget::Stdout),
        "stderr" => Ok(LogTarget::Stderr),
        _ => variables
            .path(setting)
            .map(LogTarget::File)
            .map_err(|_| variables.error(setting, "expected stdout, stderr or an absolute path")),
    }
}

fn log_format(variables: &Variables) -> Result<LogFormat, SettingError> {
    let setting = &TIDEPOOL_LOG_FORMAT;
    match &*variables.text(setting).unwrap_or_default().to_ascii_lowercase() {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err(variables.error(setting, "expected json or text")),
    }
}

#[cfg(test)]
mod tests;
