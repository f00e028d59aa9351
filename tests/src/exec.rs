//! The plugin started as a runtime starts it, but without a runtime: quicker, and with its errors
//! whole, where a runtime adds nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::cluster::{ClusterOf, NodeOf, Runtime};
use crate::containerd::Containerd;
use crate::process::{in_netns, output, program};

/// A cluster whose pods are network namespaces.
pub type ExecCluster = ClusterOf<Exec>;
/// A node whose pods are network namespaces.
pub type ExecNode = NodeOf<Exec>;

/// Starts the plugin of one node.
#[derive(Debug)]
pub struct Exec {
    dir: PathBuf,
    netns: String,
    /// The pods' namespaces that there are.
    namespaces: Mutex<BTreeSet<String>>,
}

/// A network namespace that is a pod, and where it is connected, its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its container id; up to an underscore its name in Kubernetes, so that two sandboxes of one pod
    /// are `web_1` and `web_2`.
    pub name: String,
    /// Path of its network namespace.
    pub netns: String,
    /// Its address; empty as long as it has none.
    pub ip: String,
}

/// The plugin's error, as it prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The number of docs/errors.md.
    pub code: u64,
    /// What is wrong.
    pub msg: String,
    /// More of it.
    pub details: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}: {}; {}", self.code, self.msg, self.details)
    }
}

impl std::error::Error for Refusal {}

impl Runtime for Exec {
    async fn start(dir: &Path, netns: &str) -> Result<Self> {
        Ok(Self { dir: dir.to_owned(), netns: netns.to_owned(), namespaces: Mutex::default() })
    }

    async fn network_ready(&self) -> Result<()> {
        Ok(())
    }

    /// The pods' addresses stay with the daemon, which goes down too.
    async fn down(self) -> Result<()> {
        let left = self.namespaces.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Ok(());
        for namespace in left {
            let deleted = delete(&namespace).await;
            // A test that fails may have left a deletion or a making in its midst.
            if Path::new("/run/netns").join(&namespace).exists() {
                outcome = outcome.and(deleted);
            }
        }
        outcome
    }
}

impl Exec {
    /// A new pod, not connected yet.
    ///
    /// # Errors
    ///
    /// If its network namespace cannot be made.
    pub async fn pod(&self, name: &str) -> Result<Pod> {
        let namespace = format!("{}-{name}", self.netns);
        let netns = format!("/run/netns/{namespace}");
        self.namespaces().insert(namespace.clone());
        output(Command::new("ip").args(["netns", "add", &namespace])).await?;
        Ok(Pod { name: name.to_owned(), netns, ip: String::new() })
    }

    /// Starts a pod.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the plugin fails. A DEL follows then, as from a runtime.
    pub async fn run(&self, name: &str) -> Result<Pod> {
        let mut pod = self.pod(name).await?;
        match self.add(&pod).await {
            Ok(ip) => pod.ip = ip,
            Err(error) => {
                self.remove(&pod).await.context("DEL after a failed ADD")?;
                return Err(error.context(format!("ADD of {name}")));
            }
        }
        Ok(pod)
    }

    /// Starts `count` pods, all at the same time.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the plugin fails for one.
    pub async fn run_all(&self, prefix: &str, count: usize) -> Result<Vec<Pod>> {
        let names: Vec<_> = (0..count).map(|index| format!("{prefix}{index}")).collect();
        try_join_all(names.iter().map(|name| self.run(name))).await
    }

    /// Starts a pod that gets no address.
    ///
    /// # Errors
    ///
    /// If it gets one, or if the plugin fails without an error message.
    pub async fn refusal(&self, name: &str) -> Result<Refusal> {
        match self.run(name).await {
            Ok(pod) => bail!("{name} got {}", pod.ip),
            Err(error) => error.downcast(),
        }
    }

    /// ADD; gives the address.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the plugin fails.
    pub async fn add(&self, pod: &Pod) -> Result<String> {
        address(&self.call("ADD", Some(pod), json!({})).await?)
    }

    /// ADD by a runtime that has these variables in its environment; gives the address.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the plugin fails.
    pub async fn add_with(&self, pod: &Pod, variables: &[(&str, &str)]) -> Result<String> {
        let mut command = self.command("ADD", Some(pod), self.plugin());
        command.envs(variables.iter().copied());
        added(self.start(command, json!({})).await?.wait_with_output().await?)
    }

    /// DEL; the pod's namespace stays.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the plugin fails.
    pub async fn del(&self, pod: &Pod) -> Result<()> {
        self.call("DEL", Some(pod), json!({})).await.map(|_| ())
    }

    /// DEL, and the pod's namespace goes.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the plugin fails.
    pub async fn remove(&self, pod: &Pod) -> Result<()> {
        self.del(pod).await?;
        let namespace = pod.netns.trim_start_matches("/run/netns/");
        delete(namespace).await?;
        self.namespaces().remove(namespace);
        Ok(())
    }

    /// Removes pods, all at the same time.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the plugin fails for one.
    pub async fn remove_all(&self, pods: &[Pod]) -> Result<()> {
        try_join_all(pods.iter().map(|pod| self.remove(pod))).await.map(|_| ())
    }

    /// CHECK against what the pod's ADD has printed, as far as it matters.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the plugin finds a difference.
    pub async fn check(&self, pod: &Pod) -> Result<()> {
        let result = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0", "sandbox": pod.netns}],
            "ips": [{"interface": 0, "address": format!("{}/32", pod.ip)}],
        });
        self.call("CHECK", Some(pod), json!({"prevResult": result})).await.map(|_| ())
    }

    /// Runs the plugin with any verb, for the `eth0` of `pod` if one is given. The configuration is our entry of the
    /// conflist with the keys of `conf`. Returns the plugin's result, or null for a verb without one.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the plugin fails.
    pub async fn call(&self, verb: &str, pod: Option<&Pod>, conf: Value) -> Result<Value> {
        let child = self.start(self.command(verb, pod, self.plugin()), conf).await?;
        read(child.wait_with_output().await?)
    }

    /// Starts the plugin for the pod's `eth0` and leaves it running.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub async fn start_verb(&self, verb: &str, pod: &Pod) -> Result<Child> {
        self.start(self.command(verb, Some(pod), self.plugin()), json!({})).await
    }

    /// As [`Self::start_verb`], with a plugin that is killed or stopped at its first pass through
    /// `point`. It is the one built beside the daemon: that which ships has no such points.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub async fn start_verb_armed(
        &self,
        verb: &str,
        pod: &Pod,
        point: &str,
        order: failpoint::Order,
    ) -> Result<Child> {
        self.start_armed(verb, Some(pod), json!({}), point, order).await
    }

    /// GC: these pods are all that there are.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if the plugin fails.
    pub async fn gc(&self, valid: &[Pod]) -> Result<()> {
        self.call("GC", None, only(valid)).await.map(|_| ())
    }

    /// GC by a plugin that is killed or stopped as in [`Self::start_verb_armed`].
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub async fn start_gc_armed(
        &self,
        valid: &[Pod],
        point: &str,
        order: failpoint::Order,
    ) -> Result<Child> {
        self.start_armed("GC", None, only(valid), point, order).await
    }

    /// Any verb with any configuration, otherwise as [`Self::start_verb_armed`].
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub async fn start_armed(
        &self,
        verb: &str,
        pod: Option<&Pod>,
        conf: Value,
        point: &str,
        order: failpoint::Order,
    ) -> Result<Child> {
        let of = pod.map_or("gc", |pod| &pod.name);
        let points = self.dir.join("fail-points-of-the-plugin").join(of);
        failpoint::arm(&points, point, order, 1).with_context(|| format!("arm {point}"))?;
        let mut command = self.command(verb, pod, program("aws-cni")?);
        command.env(failpoint::VARIABLE, points);
        self.start(command, conf).await
    }

    fn plugin(&self) -> PathBuf {
        Containerd::cni_bin(&self.dir).join("aws-cni")
    }

    fn command(&self, verb: &str, pod: Option<&Pod>, plugin: PathBuf) -> Command {
        let mut command = in_netns(&self.netns, plugin);
        command.env_clear().env("CNI_COMMAND", verb);
        command.env("CNI_PATH", Containerd::cni_bin(&self.dir));
        if let Some(pod) = pod {
            let name = pod.name.split('_').next().unwrap_or_default();
            let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}");
            command.env("CNI_CONTAINERID", &pod.name).env("CNI_NETNS", &pod.netns);
            command.env("CNI_IFNAME", "eth0").env("CNI_ARGS", args);
        }
        command
    }

    async fn start(&self, mut command: Command, conf: Value) -> Result<Child> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let conf = self.configuration(conf)?;
        stdin.write_all(conf.as_bytes()).await.context("hand it its conf")?;
        Ok(child)
    }

    fn namespaces(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first entry of the conflist, composed as a runtime does it, with the keys of `more`.
    fn configuration(&self, more: Value) -> Result<String> {
        let path = Containerd::cni_conf(&self.dir).join("10-aws.conflist");
        let text = std::fs::read_to_string(&path).context("read the conflist")?;
        let list: Value = serde_json::from_str(&text).context("read the conflist")?;
        let mut conf = list["plugins"][0].clone();
        conf["name"] = list["name"].clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        for (key, value) in more.as_object().into_iter().flatten() {
            conf[key] = value.clone();
        }
        Ok(conf.to_string())
    }
}

/// What a runtime adds to the configuration for a GC that leaves these pods.
fn only(valid: &[Pod]) -> Value {
    let valid = valid.iter().map(|pod| json!({"containerID": pod.name, "ifname": "eth0"}));
    json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid.collect::<Vec<_>>()})
}

/// The address that an ADD has printed.
///
/// # Errors
///
/// A [`Refusal`] if it has printed that.
pub fn added(out: Output) -> Result<String> {
    address(&read(out)?)
}

/// The address in the result of an ADD.
///
/// # Errors
///
/// If there is none.
pub fn address(result: &Value) -> Result<String> {
    let address = result["ips"][0]["address"].as_str().context("a result without address")?;
    let (address, _length) = address.split_once('/').context("an address without length")?;
    Ok(address.to_owned())
}

async fn delete(namespace: &str) -> Result<()> {
    output(Command::new("ip").args(["netns", "delete", namespace])).await.map(|_| ())
}

/// The plugin's result; null for a verb without any.
fn read(out: Output) -> Result<Value> {
    if out.status.success() && out.stdout.is_empty() {
        return Ok(Value::Null);
    }
    let said = || {
        let text = [&*out.stdout, &*out.stderr].map(String::from_utf8_lossy).concat();
        format!("aws-cni ended with {}: {text}", out.status)
    };
    let answer: Value = serde_json::from_slice(&out.stdout).with_context(said)?;
    if out.status.success() {
        return Ok(answer);
    }
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let code = answer["code"].as_u64().with_context(said)?;
    Err(Refusal { code, msg: text("msg"), details: text("details") }.into())
}
