//! The settings, read from the environment once at the start. Names and defaults are those of
//! amazon-vpc-cni-k8s v1.23.1; where the default of its code differs from what its manifest sets,
//! ours is the manifest's. A bad value stops the start; an empty one counts as unset.
//!
//! Nothing here knows the node: see `node`.

mod family;
mod parse;
mod unsupported;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::host::Mtu;
use ipam::policy::{Mode, WarmSettings};
use tracing::Level;

use self::parse::Environment;

/// Why the daemon does not start: one line that names the variable, its value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?}: {allowed}")]
pub(crate) struct SettingError {
    pub(crate) variable: &'static str,
    pub(crate) value: String,
    pub(crate) allowed: String,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogTarget {
    Stdout,
    Stderr,
    /// Appended to.
    File(PathBuf),
}

/// All settings, validated as far as that goes without knowing the node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// `ENABLE_PREFIX_DELEGATION`, which an instance that takes no prefixes overrides, or
    /// `ENABLE_IPv6`.
    pub(crate) mode: Mode,
    /// `WARM_ENI_TARGET`, `WARM_IP_TARGET`, `MINIMUM_IP_TARGET`, `WARM_PREFIX_TARGET`.
    pub(crate) warm: WarmSettings,
    /// `MAX_ENI`.
    pub(crate) max_enis: Option<u16>,
    /// `TIDEPOOL_MAX_PODS`.
    pub(crate) max_pods: Option<u32>,
    /// `IP_COOLDOWN_PERIOD`, in seconds there.
    pub(crate) cooldown: Duration,
    /// `TIDEPOOL_ADD_WAIT`.
    pub(crate) add_wait: Duration,
    /// `TIDEPOOL_GROW_DELAY`.
    pub(crate) grow_delay: Duration,
    /// `TIDEPOOL_SHRINK_DELAY`.
    pub(crate) shrink_delay: Duration,
    /// `TIDEPOOL_MIN_ENI_AGE`.
    pub(crate) min_eni_age: Duration,
    /// `TIDEPOOL_LEAK_AGE`; none with `DISABLE_LEAKED_ENI_CLEANUP`.
    pub(crate) leak_age: Option<Duration>,
    /// `CLUSTER_NAME`.
    pub(crate) cluster: Option<String>,
    /// `ADDITIONAL_ENI_TAGS`, without the keys that are the daemon's own.
    pub(crate) eni_tags: BTreeMap<String, String>,
    /// `MANAGE_UNTAGGED_ENI`.
    pub(crate) manage_untagged: bool,
    /// `AWS_VPC_ENI_MTU`.
    pub(crate) mtu: Mtu,
    /// `AWS_EC2_ENDPOINT`.
    pub(crate) ec2_endpoint: Option<String>,
    /// `HTTP_TIMEOUT`, in seconds there.
    pub(crate) http_timeout: Duration,
    /// `TIDEPOOL_SOCKET`.
    pub(crate) socket: PathBuf,
    /// `TIDEPOOL_RUNTIME_SOCKET`; `None` if it is `off`.
    pub(crate) runtime_socket: Option<PathBuf>,
    /// `DISABLE_METRICS`; `None` if it is true.
    pub(crate) metrics_port: Option<u16>,
    /// `AWS_VPC_K8S_CNI_BACKING_STORE`: another daemon's record, which is read and never written.
    pub(crate) checkpoint: PathBuf,
    /// The directory that it is in, where our own lives.
    pub(crate) state_directory: PathBuf,
    /// `AWS_VPC_K8S_CNI_LOGLEVEL`.
    pub(crate) log_level: Level,
    /// `AWS_VPC_K8S_CNI_LOG_FILE`.
    pub(crate) log_target: LogTarget,
    /// What is accepted but not as the user may think.
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    ///
    /// [`SettingError`] for the first bad value.
    pub(crate) fn from_process() -> Result<Self, SettingError> {
        Self::read(&Environment::of_process())
    }

    /// Reads `variables` as if the environment held these and no others.
    ///
    /// # Errors
    ///
    /// [`SettingError`] for the first bad value.
    pub(crate) fn from_variables(
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
pub(crate) fn socket_of_process() -> Result<PathBuf, SettingError> {
    socket(&Environment::of_process())
}

/// Where the record lives, for a command that needs no other setting to be right.
///
/// # Errors
///
/// [`SettingError`] if `AWS_VPC_K8S_CNI_BACKING_STORE` is bad.
pub(crate) fn state_directory_of_process() -> Result<PathBuf, SettingError> {
    backing_store(&Environment::of_process()).map(|(_, directory)| directory)
}

fn socket(env: &Environment) -> Result<PathBuf, SettingError> {
    env.path("TIDEPOOL_SOCKET", proto::DEFAULT_SOCKET)
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
/// Source: RFC 8200, section 5.
const LEAST_IPV6_MTU: u32 = 1280;
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

fn mtu(env: &Environment, mode: Mode) -> Result<Mtu, SettingError> {
    let name = "AWS_VPC_ENI_MTU";
    let least = match mode {
        Mode::SecondaryIp | Mode::Prefix => 576,
        Mode::Ipv6 => LEAST_IPV6_MTU,
    };
    let bytes = env.number(name, least, Mtu::JUMBO.bytes(), Mtu::JUMBO.bytes())?;
    Mtu::try_from(bytes).map_err(|fault| env.error(name, &fault.to_string()))
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

fn log_level(env: &Environment) -> Result<Level, SettingError> {
    let name = "AWS_VPC_K8S_CNI_LOGLEVEL";
    match env.text(name).map(str::to_ascii_lowercase).as_deref() {
        None | Some("debug") => Ok(Level::DEBUG),
        Some("info") => Ok(Level::INFO),
        Some("warn") => Ok(Level::WARN),
        // Ours has no level above an error.
        Some("error" | "fatal") => Ok(Level::ERROR),
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
