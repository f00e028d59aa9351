//! The daemon's files, the plugin and the runtime's network configuration.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ipam::record::Record;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::report::Finding;

/// The name of the plugin's executable, which is the `type` in the configuration.
const PLUGIN: &str = "aws-cni";
/// The largest network configuration that is read, in bytes.
const LARGEST_CONF: u64 = 1024 * 1024;
/// The plugin names its version within milliseconds, in some hundred bytes.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_HINT: u64 = 4096;
/// The daemon writes a line within milliseconds.
const RECORD_AGAIN: Duration = Duration::from_millis(200);

/// Where the runtime finds plugin and configuration.
#[derive(Debug)]
pub(super) struct Directories {
    conf: PathBuf,
    bin: PathBuf,
}

impl Directories {
    /// The given ones, else those of the host as a container sees them, else those of this machine.
    pub(super) fn of(conf: &Option<PathBuf>, bin: &Option<PathBuf>) -> Self {
        let or_default = |given: &Option<PathBuf>, path: &str| {
            let host = PathBuf::from(format!("/host{path}"));
            let there = || if host.is_dir() { host } else { PathBuf::from(path) };
            given.clone().unwrap_or_else(there)
        };
        Self { conf: or_default(conf, "/etc/cni/net.d"), bin: or_default(bin, "/opt/cni/bin") }
    }
}

/// The files of the state directory. A daemon that runs has written a record there.
pub(super) async fn state(directory: &Path, runs: bool) -> Vec<Finding> {
    let unsafe_files = agent::examine::unsafe_files(directory).into_iter();
    let advice =
        "give it to root with mode 0600 (a directory: 0755); the daemon does not use it as it is";
    let mut findings: Vec<_> = unsafe_files
        .map(|(path, fault)| Finding::difference("unsafe_file", path, fault, advice))
        .collect();
    let path = directory.display().to_string();
    match record(directory).await {
        Ok(Some(_)) => {}
        Ok(None) if runs => {
            let advice = "check AWS_VPC_K8S_CNI_BACKING_STORE here and at the daemon; restart the daemon if \
                          somebody has removed the record";
            findings.push(Finding::difference("no_record", path, "there is no record", advice));
        }
        Ok(None) => {}
        Err(fault) => {
            let advice = "restart the daemon: it keeps the file aside and takes running pods back from their links";
            let fault = format!("{fault:#}");
            findings.push(Finding::difference("record_damaged", path, fault, advice));
        }
    }
    findings
}

/// The record. The daemon may be in the midst of a line, so a damage must be there again.
async fn record(directory: &Path) -> anyhow::Result<Option<Record>> {
    let read = agent::migration::read_record(directory);
    if read.is_ok() {
        return read;
    }
    tokio::time::sleep(RECORD_AGAIN).await;
    agent::migration::read_record(directory)
}

/// The plugin, and the configuration by which the runtime starts it.
///
/// # Errors
///
/// If the directories are not there, as in a container that has not mounted them.
pub(super) async fn plugin(
    directories: &Directories,
    socket: &Path,
) -> Result<Vec<Finding>, String> {
    let Directories { conf, bin } = directories;
    let mut findings = configuration(conf, socket)?;
    findings.extend(executable(&bin.join(PLUGIN)).await);
    Ok(findings)
}

/// The configuration with our plugin's entry, and the log that the entry names.
pub(super) fn ours(directories: &Directories) -> Option<(PathBuf, Option<PathBuf>)> {
    let files = configurations(&directories.conf).ok()?;
    files.into_iter().find_map(|path| {
        let entry = our_entry(&read(&path).ok()?)?;
        Some((path, entry["pluginLogFile"].as_str().map(PathBuf::from)))
    })
}

/// The files that the runtime looks at, in its order.
fn configurations(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = directory.display();
    let entries = fs::read_dir(directory).map_err(|fault| format!("{shown}: {fault}"))?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_conf = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("conf" | "conflist" | "json"))
    };
    let mut files: Vec<_> = files.filter(is_conf).collect();
    files.sort();
    Ok(files)
}

fn configuration(directory: &Path, socket: &Path) -> Result<Vec<Finding>, String> {
    let shown = directory.display();
    let files = configurations(directory)?;
    let first = files.first().map(|path| (path, read(path)));
    let ours = files.iter().find_map(|path| Some((path, our_entry(&read(path).ok()?)?)));
    let Some((path, entry)) = ours else {
        let advice = "install 10-aws.conflist there; until then the runtime starts no pod";
        let found = format!("no file names the plugin {PLUGIN}");
        return Ok(vec![Finding::difference("no_conflist", shown.to_string(), found, advice)]);
    };
    let mut findings = Vec::new();
    if let Some((first, content)) = first
        && first != path
    {
        let found = match content {
            Ok(_) => {
                format!("the runtime takes the first file, and {} comes later", path.display())
            }
            Err(fault) => {
                format!("the runtime takes the first file, which cannot be read: {fault}")
            }
        };
        let advice = "remove it, or give it a name that sorts after ours";
        findings.push(Finding::difference(
            "other_conflist",
            first.display().to_string(),
            found,
            advice,
        ));
    }
    let asked = entry["ipamdSocket"].as_str().unwrap_or(proto::DEFAULT_SOCKET);
    if Path::new(asked) != socket {
        let found =
            format!("the plugin asks at {asked}, and the daemon listens at {}", socket.display());
        let advice =
            "set ipamdSocket in the conflist, or TIDEPOOL_SOCKET, so that both are the same";
        findings.push(Finding::difference(
            "other_socket",
            path.display().to_string(),
            found,
            advice,
        ));
    }
    Ok(findings)
}

fn read(path: &Path) -> io::Result<Value> {
    // A FIFO would make this command wait.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_CONF).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The plugin's entry in a configuration, which is a list or one entry alone.
fn our_entry(conf: &Value) -> Option<Value> {
    let alone = std::slice::from_ref(conf);
    let entries = conf["plugins"].as_array().map_or(alone, Vec::as_slice);
    entries.iter().find(|entry| entry["type"] == PLUGIN).cloned()
}

async fn executable(path: &Path) -> Vec<Finding> {
    let shown = path.display().to_string();
    let advice = "install the plugin of the daemon's version there";
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(fault) => {
            return vec![Finding::difference("no_plugin", shown, fault.to_string(), advice)];
        }
    };
    let mode = metadata.mode() & 0o7777;
    if metadata.uid() != 0 || mode & 0o022 != 0 {
        // It runs as root at each pod, so whoever can write it owns the node. It is not started here.
        let found = format!("it belongs to uid {} with mode {mode:04o}", metadata.uid());
        let advice = "install it again as root with mode 0755, and find out who has written it";
        return vec![Finding::difference("unsafe_plugin", shown, found, advice)];
    }
    if mode & 0o111 == 0 {
        let found = format!("it is not executable (mode {mode:04o})");
        return vec![Finding::difference("no_plugin", shown, found, advice)];
    }
    match version(path).await {
        Ok(version) if version == proto::VERSION => Vec::new(),
        Ok(version) => {
            let found =
                format!("it has version {version}, and this command has {}", proto::VERSION);
            vec![Finding::difference("other_plugin_version", shown, found, advice)]
        }
        Err(fault) => vec![Finding::difference("no_plugin", shown, fault, advice)],
    }
}

/// The version that the plugin names when it is started without a verb: `aws-cni 0.1.0: …` on standard error.
async fn version(path: &Path) -> Result<String, String> {
    let hint = tokio::time::timeout(PLUGIN_TIMEOUT, hint(path)).await;
    let text = hint.map_err(|_late| format!("it does not end within {PLUGIN_TIMEOUT:?}"))?;
    let text = text.map_err(|fault| format!("it cannot be started: {fault}"))?;
    let version = text.strip_prefix("aws-cni ").and_then(|rest| rest.split_once(": "));
    version
        .map(|(version, _)| version.to_owned())
        .ok_or_else(|| format!("it is not Tidepool's plugin: it says {:?}", first_line(&text)))
}

async fn hint(path: &Path) -> io::Result<String> {
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn()?;
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(LONGEST_HINT).read_to_end(&mut text).await?;
    }
    child.wait().await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(120).collect()
}

#[cfg(test)]
mod tests;
