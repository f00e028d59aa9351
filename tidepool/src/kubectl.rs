//! The cluster, through `kubectl`: whoever may use it may use these commands, and nothing else needs to be set up.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;

/// The largest answer that is read: some hundred bytes for each pod of the DaemonSet, or the pool of one node.
const LARGEST: u64 = 64 * 1024 * 1024;
/// How long to wait for an error's text once the command has ended.
const AFTER_THE_END: Duration = Duration::from_secs(1);
/// The characters of an error that are shown.
const LONGEST_FAULT: usize = 300;

/// Where the daemons run, and how kubectl finds the cluster.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// The context of the kubeconfig file. By default kubectl's own.
    #[arg(long)]
    context: Option<String>,
    /// The namespace of the DaemonSet.
    #[arg(long, default_value = "kube-system")]
    namespace: String,
    /// The label of the DaemonSet's pods.
    #[arg(long, default_value = "k8s-app=aws-node")]
    selector: String,
    /// The daemon's container.
    #[arg(long, default_value = "aws-node")]
    container: String,
}

/// A daemon's pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Daemon {
    /// Its node.
    pub(crate) node: String,
    /// Its name.
    pub(crate) pod: String,
}

#[derive(Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    /// None while the pod is on no node.
    node_name: Option<String>,
}

#[derive(Deserialize, Default)]
struct Status {
    #[serde(default)]
    phase: String,
}

impl Arguments {
    /// The daemons' pods, one for each node, by node. With a `node`, those of this node.
    ///
    /// # Errors
    ///
    /// If kubectl is not there, or the API server does not answer.
    pub(crate) fn daemons(
        &self,
        node: Option<&str>,
        timeout: Duration,
    ) -> anyhow::Result<Vec<Daemon>> {
        let mut command = self.kubectl();
        command.args(["get", "pods", "--selector", &self.selector, "--output", "json"]);
        command.args(node.map(|node| format!("--field-selector=spec.nodeName={node}")));
        let text = output(&mut command, timeout)?;
        let pods: Pods = serde_json::from_str(&text).context("read kubectl's list of pods")?;
        Ok(running(pods))
    }

    /// The command that runs `ipamd` with `arguments` beside the daemon.
    pub(crate) fn ipamd(&self, daemon: &Daemon, arguments: &[OsString]) -> Command {
        let mut command = self.kubectl();
        command.args(["exec", &daemon.pod, "--container", &self.container, "--", "ipamd"]);
        command.args(arguments);
        command
    }

    fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.args(self.context.iter().map(|context| format!("--context={context}")));
        command.args(["--namespace", &self.namespace]);
        command
    }
}

/// One pod for each node. During a rollout a node may have two; the one that is not on its way out counts.
fn running(pods: Pods) -> Vec<Daemon> {
    let mut daemons = Vec::new();
    for Pod { metadata, spec, status } in pods.items {
        let is_leaving = metadata.deletion_timestamp.is_some();
        if let Some(node) = spec.node_name.filter(|_| status.phase != "Failed") {
            daemons.push((is_leaving, Daemon { node, pod: metadata.name }));
        }
    }
    daemons.sort_by(|(one_leaves, one), (other_leaves, other)| {
        (&one.node, one_leaves, &one.pod).cmp(&(&other.node, other_leaves, &other.pod))
    });
    daemons.dedup_by(|(_, later), (_, first)| later.node == first.node);
    daemons.into_iter().map(|(_, daemon)| daemon).collect()
}

/// Becomes the command, so that its output, its exit code and signals are the user's.
pub(crate) fn become_command(mut command: Command) -> anyhow::Error {
    let fault = command.exec();
    not_started(fault)
}

fn not_started(fault: io::Error) -> anyhow::Error {
    match fault.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "kubectl is not in PATH; this command reaches the cluster through it, so install it and give it a kubeconfig"
        ),
        _ => anyhow!(fault).context("start kubectl"),
    }
}

/// What the command prints, as long as it ends well and in time.
pub(crate) fn output(command: &mut Command, timeout: Duration) -> anyhow::Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(not_started)?;
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let Ok(stdout) = stdout.recv_timeout(timeout) else {
        child.kill().context("end kubectl")?;
        child.wait().context("wait for kubectl")?;
        bail!("no answer within {timeout:?}");
    };
    let status = child.wait().context("wait for kubectl")?;
    if status.success() {
        return stdout.context("read kubectl's answer");
    }
    // A helper of kubectl's may still have the pipe.
    let stderr = stderr.recv_timeout(AFTER_THE_END).map(Result::unwrap_or_default);
    bail!("kubectl: {}", fault(&stderr.unwrap_or_default(), status))
}

/// Reads to the end in a thread of its own, up to the bound. The thread outlives a reader that gives up.
fn reader(from: Option<impl io::Read + Send + 'static>) -> Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = match from {
            Some(from) => from.take(LARGEST).read_to_end(&mut bytes),
            None => Ok(0),
        };
        // Nobody may wait for it any more.
        let _ = sender.send(read.map(|_| String::from_utf8_lossy(&bytes).into_owned()));
    });
    receiver
}

/// The last line of an error, since kubectl's warnings come before.
fn fault(stderr: &str, status: std::process::ExitStatus) -> String {
    let last = stderr.lines().rfind(|line| !line.trim().is_empty());
    last.map_or_else(|| status.to_string(), |line| line.chars().take(LONGEST_FAULT).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_the_pod_that_stays() {
        let json = r#"{"items": [
            {"metadata": {"name": "b-old", "deletionTimestamp": "2026-01-01T00:00:00Z"},
             "spec": {"nodeName": "b"}, "status": {"phase": "Running"}},
            {"metadata": {"name": "b-new"}, "spec": {"nodeName": "b"}, "status": {"phase": "Running"}},
            {"metadata": {"name": "a-0"}, "spec": {"nodeName": "a"}, "status": {"phase": "Running"}},
            {"metadata": {"name": "none"}, "spec": {}, "status": {"phase": "Pending"}},
            {"metadata": {"name": "c-evicted"}, "spec": {"nodeName": "c"}, "status": {"phase": "Failed"}}
        ]}"#;
        let found = running(serde_json::from_str(json).unwrap());
        let found: Vec<_> = found.iter().map(|it| (it.node.as_str(), it.pod.as_str())).collect();
        assert_eq!(found, [("a", "a-0"), ("b", "b-new")]);
    }

    #[test]
    fn silent_command_is_ended_in_time() {
        let mut command = Command::new("sleep");
        let error = output(command.arg("600"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "no answer within 50ms");
    }
}
