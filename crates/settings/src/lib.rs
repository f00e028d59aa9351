//! The settings of a node, and the policy that they amount to on an instance type.
//!
//! Names and defaults are those of amazon-vpc-cni-k8s v1.23.1. Where the default of its code differs
//! from what its manifest sets, ours is the manifest's. A bad value is an error; an empty value
//! counts as unset.
//!
//! The daemon and the planner share this package, so it must not know the AWS SDK, the kernel or
//! the daemon.

mod describe;
mod family;
mod limits;
mod parse;
mod policy;
mod unsupported;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipam::policy::{Mode, WarmSettings};

pub use self::describe::{limits_text, mode_text, targets_text};
pub use self::limits::{assumed_limits, known_limits, known_types, known_vcpus};
use self::parse::Environment;
pub use self::policy::{policy, pool_warnings, setting_warnings, warnings};

/// Why a setting is refused: one line that names the variable, its value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?}: {allowed}")]
pub struct SettingError {
    /// The name of the environment variable.
    pub variable: &'static str,
    /// Its value as it was set; empty if it was not.
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

/// All settings, validated as far as that goes without knowing the node.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `ENABLE_PREFIX_DELEGATION`, which an instance that takes no prefixes overrides, or
    /// `ENABLE_IPv6`.
    pub mode: Mode,
    /// `WARM_ENI_TARGET`, `WARM_IP_TARGET`, `MINIMUM_IP_TARGET`, `WARM_PREFIX_TARGET`.
    pub warm: WarmSettings,
    /// `MAX_ENI`.
    pub max_enis: Option<u16>,
    /// `TIDEPOOL_MAX_PODS`.
    pub max_pods: Option<u32>,
    /// `IP_COOLDOWN_PERIOD`, in seconds there.
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
    /// `ADDITIONAL_ENI_TAGS`, without the keys that are the daemon's own.
    pub eni_tags: BTreeMap<String, String>,
    /// `MANAGE_UNTAGGED_ENI`.
    pub manage_untagged: bool,
    /// `AWS_VPC_ENI_MTU`: bytes, 576 (with IPv6 1280) to 9001.
    pub mtu: u32,
    /// `AWS_EC2_ENDPOINT`.
    pub ec2_endpoint: Option<String>,
    /// `HTTP_TIMEOUT`, in seconds there.
    pub http_timeout: Duration,
    /// `TIDEPOOL_SOCKET`.
    pub socket: PathBuf,
    /// `TIDEPOOL_RUNTIME_SOCKET`; `None` if it is `off`.
    pub runtime_socket: Option<PathBuf>,
    /// `DISABLE_METRICS`; `None` if it is true.
    pub metrics_port: Option<u16>,
    /// `AWS_VPC_K8S_CNI_BACKING_STORE`: another daemon's record, which is read and never written.
    pub checkpoint: PathBuf,
    /// The directory that it is in, where our own lives.
    pub state_directory: PathBuf,
    /// `AWS_VPC_K8S_CNI_LOGLEVEL`.
    pub log_level: LogLevel,
    /// `AWS_VPC_K8S_CNI_LOG_FILE`.
    pub log_target: LogTarget,
    /// What is accepted but not as the user may think.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    ///
    /// [`SettingError`] for the first bad value.
    pub fn from_process() -> Result<Self, SettingError> {
        Self::read(&Environment::of_process())
    }

    /// Reads `variables` as if the environment held these and no others.
    ///
    /// # Errors
    ///
    /// [`SettingError`] for the first bad value.
    pub fn from_variables(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingError> {
        Self::read(&variables.into_iter().collect())
    }

    fn read(env: &Environment) -> Result<Self, SettingError> {
        let mode = family::mode(env)?;
        unsupported::check(env)?;
        let (eni_tags, mut warnings) = env.tags("ADDITIONAL_ENI_TAGS")?;
        warnings.extend(unsupported::warnings(env, mode)?);
        let seconds = |name, least, default| env.number(name, least, u32::MAX, default);
        let (checkpoint, state_directory) = backing_store(env)?;
        Ok(Self {
            mode,
            warm: warm_settings(env, mode)?,
            max_enis: env.optional_number("MAX_ENI", 1, u16::MAX)?,
            max_pods: env.optional_number("TIDEPOOL_MAX_PODS", 1, u32::MAX)?,
            cooldown: Duration::from_secs(seconds("IP_COOLDOWN_PERIOD", 0, 30)?.into()),
            add_wait: env.span("TIDEPOOL_ADD_WAIT", Duration::from_secs(180), ADD_WAIT)?,
            grow_delay: env.span("TIDEPOOL_GROW_DELAY", Duration::from_secs(10), GROW_DELAY)?,
            shrink_delay: env.span("TIDEPOOL_SHRINK_DELAY", LONGEST_DELAY, SHRINK_DELAY)?,
            min_eni_age: env.span("TIDEPOOL_MIN_ENI_AGE", LONGEST_DELAY, MIN_ENI_AGE)?,
            leak_age: leak_age(env)?,
            cluster: env.text("CLUSTER_NAME").map(str::to_owned),
            eni_tags,
            manage_untagged: env.boolean("MANAGE_UNTAGGED_ENI", true)?,
            mtu: mtu(env, mode)?,
            ec2_endpoint: env.url("AWS_EC2_ENDPOINT")?,
            http_timeout: Duration::from_secs(seconds("HTTP_TIMEOUT", 10, 10)?.into()),
            socket: socket(env)?,
            runtime_socket: runtime_socket(env)?,
            metrics_port: (!env.boolean("DISABLE_METRICS", false)?).then_some(METRICS_PORT),
            checkpoint,
            state_directory,
            log_level: log_level(env)?,
            log_target: log_target(env)?,
            warnings,
        })
    }
}

/// Where the daemon listens, for a client that needs no other setting to be right.
///
/// # Errors
///
/// [`SettingError`] if `TIDEPOOL_SOCKET` is bad.
pub fn socket_of_process() -> Result<PathBuf, SettingError> {
    socket(&Environment::of_process())
}

/// Where the record lives, for a command that needs no other setting to be right.
///
/// # Errors
///
/// [`SettingError`] if `AWS_VPC_K8S_CNI_BACKING_STORE` is bad.
pub fn state_directory_of_process() -> Result<PathBuf, SettingError> {
    backing_store(&Environment::of_process()).map(|(_, directory)| directory)
}

fn socket(env: &Environment) -> Result<PathBuf, SettingError> {
    env.path("TIDEPOOL_SOCKET", DEFAULT_SOCKET)
}

/// An empty value would be the default.
fn runtime_socket(env: &Environment) -> Result<Option<PathBuf>, SettingError> {
    let name = "TIDEPOOL_RUNTIME_SOCKET";
    if env.text(name) == Some("off") {
        return Ok(None);
    }
    let socket = env.path(name, "/run/containerd/containerd.sock");
    socket.map(Some).map_err(|_| env.error(name, "expected off or an absolute path"))
}

/// Where the plugin asks by default; the same as `proto::DEFAULT_SOCKET`, as a test of `ipamd` checks.
const DEFAULT_SOCKET: &str = "/var/run/aws-node/ipamd.sock";
/// Where scrapers of the incumbent look. Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/introspect.go`.
const METRICS_PORT: u16 = 61678;
/// A kubelet gives a pod's sandbox four minutes and comes back ten seconds after it has failed. Who
/// waits is served sooner, in turn, and with fewer calls; but the user learns of it only at the end.
const ADD_WAIT: Duration = Duration::from_secs(60);
/// Little beside any call of EC2's, and enough for the pods of a burst to be counted.
const GROW_DELAY: Duration = Duration::from_millis(50);
/// How long the pool must have been too large before something goes back.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`, `decreaseIPPoolInterval`.
const SHRINK_DELAY: Duration = Duration::from_secs(30);
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/datastore/data_store.go`, `minENILifeTime`.
const MIN_ENI_AGE: Duration = Duration::from_secs(60);
/// A node attaches within seconds what it has made, within minutes if EC2 throttles.
const LEAK_AGE: Duration = Duration::from_secs(3600);
/// What every IPv4 host takes. Source: RFC 791, section 3.1.
const LEAST_IPV4_MTU: u32 = 576;
/// Source: RFC 8200, section 5.
const LEAST_IPV6_MTU: u32 = 1280;
/// Jumbo frames of a VPC, in bytes. Source: AWS, "Network MTU for your EC2 instance".
const JUMBO_MTU: u32 = 9001;
/// More than an hour would keep what nobody uses from those who need it.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

fn warm_settings(env: &Environment, mode: Mode) -> Result<WarmSettings, SettingError> {
    let default = WarmSettings::default();
    let warm = WarmSettings {
        warm_eni: env.number("WARM_ENI_TARGET", 0, u16::MAX, default.warm_eni)?,
        warm_ip: env.number("WARM_IP_TARGET", 0, u32::MAX, default.warm_ip)?,
        minimum_ip: env.number("MINIMUM_IP_TARGET", 0, u32::MAX, default.minimum_ip)?,
        warm_prefix: env.number("WARM_PREFIX_TARGET", 0, u16::MAX, default.warm_prefix)?,
    };
    let starving = warm.warm_ip == 0 && warm.minimum_ip == 0 && warm.warm_prefix == 0;
    if mode == Mode::Prefix && starving {
        return Err(env.error(
            "WARM_PREFIX_TARGET",
            "with ENABLE_PREFIX_DELEGATION=true one of WARM_PREFIX_TARGET, WARM_IP_TARGET and \
             MINIMUM_IP_TARGET must be above 0",
        ));
    }
    Ok(warm)
}

fn leak_age(env: &Environment) -> Result<Option<Duration>, SettingError> {
    let age = env.span("TIDEPOOL_LEAK_AGE", LEAK_AGE * 24, LEAK_AGE)?;
    let is_off = env.boolean("DISABLE_LEAKED_ENI_CLEANUP", false)?;
    Ok(Some(age).filter(|_| !is_off))
}

fn mtu(env: &Environment, mode: Mode) -> Result<u32, SettingError> {
    let least = match mode {
        Mode::SecondaryIp | Mode::Prefix => LEAST_IPV4_MTU,
        Mode::Ipv6 => LEAST_IPV6_MTU,
    };
    env.number("AWS_VPC_ENI_MTU", least, JUMBO_MTU, JUMBO_MTU)
}

/// The other daemon's record, and the directory that it is in.
fn backing_store(env: &Environment) -> Result<(PathBuf, PathBuf), SettingError> {
    let name = "AWS_VPC_K8S_CNI_BACKING_STORE";
    let file = env.path(name, "/var/run/aws-node/ipam.json")?;
    let directory = file.parent().map(Path::to_owned);
    let directory =
        directory.ok_or_else(|| env.error(name, "expected the absolute path of a file"))?;
    Ok((file, directory))
}

fn log_level(env: &Environment) -> Result<LogLevel, SettingError> {
    let name = "AWS_VPC_K8S_CNI_LOGLEVEL";
    match env.text(name).map(str::to_ascii_lowercase).as_deref() {
        None | Some("debug") => Ok(LogLevel::Debug),
        Some("info") => Ok(LogLevel::Info),
        Some("warn") => Ok(LogLevel::Warn),
        // Ours has no level above an error.
        Some("error" | "fatal") => Ok(LogLevel::Error),
        Some(_) => Err(env.error(name, "expected debug, info, warn, error or fatal")),
    }
}

fn log_target(env: &Environment) -> Result<LogTarget, SettingError> {
    let name = "AWS_VPC_K8S_CNI_LOG_FILE";
    match env.text(name).map(str::to_ascii_lowercase).as_deref() {
        Some("stdout") => Ok(LogTarget::Stdout),
        Some("stderr") => Ok(LogTarget::Stderr),
        None | Some(_) => {
            let path = env.path(name, "/host/var/log/aws-routed-eni/ipamd.log");
            path.map(LogTarget::File)
                .map_err(|_| env.error(name, "expected stdout, stderr or an absolute path"))
        }
    }
}

#[cfg(test)]
mod tests;
