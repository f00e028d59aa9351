//! A node: an instance's network namespace with mount, UTS and PID namespaces of its own, in which containerd, kubelet and
//! kube-proxy run as services. `tests/k8s/node` is its first process.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::process::Command;

use super::certificates::Authority;
use super::{SERVER, Shape, cgroups};
use crate::containerd::{self, Places};
use crate::process::{PATIENCE, Process, eventually, in_netns, output};
use crate::sim::OUTSIDE;

/// Where containerd listens.
const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// What makes a node.
#[derive(Debug)]
pub(super) struct MachineSpec<'a> {
    /// Its network namespace, which also names its cgroup.
    pub(super) netns: &'a str,
    /// Its name as a Kubernetes node.
    pub(super) name: &'a str,
    /// Its primary address.
    pub(super) address: IpAddr,
    /// A new directory for its files.
    pub(super) dir: PathBuf,
    /// The program that is all of Kubernetes.
    pub(super) kubernetes: &'a Path,
    /// What it is.
    pub(super) shape: Shape,
}

/// A node that runs. Dropping it ends all that runs on it.
#[derive(Debug)]
pub struct Machine {
    /// Its name as a Kubernetes node.
    pub name: String,
    /// What has made its namespaces.
    _process: Process,
    /// The id of its first process, seen from here.
    init: u32,
}

impl Machine {
    pub(super) async fn start(spec: &MachineSpec<'_>, authority: &Authority) -> Result<Self> {
        furnish(spec, authority).await?;
        let mut command = in_netns(spec.netns, "unshare");
        command
            .args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/k8s/node"))
            .arg(&spec.dir)
            .arg(spec.kubernetes)
            .arg(spec.address.to_string());
        let mut process = Process::start(spec.name, &mut command, &spec.dir.join("log/node.log"))?;
        let pid = process.pid()?;
        let init = process.wait_until("its first process runs", async || child(pid)).await?;
        let machine = Self { name: spec.name.to_owned(), _process: process, init };
        eventually("containerd of the node", PATIENCE, async || {
            output(machine.ctr().arg("version")).await.map(|_| ())
        })
        .await?;
        Ok(machine)
    }

    /// A file of the node, as a path here.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{file}", self.init))
    }

    /// A program in the node's namespaces.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string()]);
        command.args(["--mount", "--uts", "--net", "--pid", "--", program]);
        command
    }

    /// Gives its containerd the images of an archive.
    ///
    /// # Errors
    ///
    /// If containerd does not take them.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        output(self.ctr().args(["images", "import"]).arg(archive)).await.map(|_| ())
    }

    fn ctr(&self) -> Command {
        let mut command = self.command("ctr");
        command.args(["--address", CONTAINERD, "--namespace", "k8s.io"]);
        command
    }

    /// Ends a service as a crash would, and waits until it runs again.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn crash(&self, service: &str) -> Result<()> {
        let file = self.path(&format!("/run/{service}.pid"));
        let read =
            || std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()));
        let before = read()?;
        self.kill(before.trim()).await?;
        eventually("restart of the service", PATIENCE, async || {
            ensure!(read()? != before, "{service} has not started again");
            Ok(())
        })
        .await
    }

    /// Ends a process, given by the node's id for it, with SIGKILL.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub async fn kill(&self, pid: &str) -> Result<()> {
        output(self.command("kill").args(["-9", pid])).await.map(|_| ())
    }

    /// The ids of the node's processes for which `wanted` says yes of their folder in /proc.
    ///
    /// # Errors
    ///
    /// If they cannot be listed.
    pub fn processes(&self, wanted: impl Fn(&Path) -> bool) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(self.path("/proc")).context("list the node's processes")?;
        let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let ids = folders.filter_map(|folder| {
            let id = folder.file_name()?.to_str()?.to_owned();
            (id.bytes().all(|byte| byte.is_ascii_digit()) && wanted(&folder)).then_some(id)
        });
        Ok(ids.collect())
    }
}

/// The only child of a process.
fn child(pid: u32) -> Result<u32> {
    let children = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(&children).with_context(|| format!("read {children}"))?;
    text.trim().parse().with_context(|| format!("no child yet: {text:?}"))
}

/// Writes what the node's image and its user data would have on a real instance.
async fn furnish(spec: &MachineSpec<'_>, authority: &Authority) -> Result<()> {
    let etc = spec.dir.join("etc");
    for part in ["etc/containerd", "etc/kubernetes", "lib", "log/pods", "opt", "work"] {
        let part = spec.dir.join(part);
        std::fs::create_dir_all(&part).with_context(|| format!("make {}", part.display()))?;
    }
    let write = |file: &str, text: String| {
        std::fs::write(etc.join(file), text).with_context(|| format!("write {file}"))
    };
    write("hostname", spec.name.to_owned())?;
    write("resolv.conf", format!("search ec2.internal\nnameserver {OUTSIDE}\n"))?;
    write("containerd/config.toml", containerd::configuration(&places()))?;
    write("kubernetes/kubelet.yaml", kubelet(spec))?;
    write("kubernetes/proxy.yaml", proxy(spec))?;
    let kubernetes = etc.join("kubernetes");
    let subject = format!("/O=system:nodes/CN=system:node:{}", spec.name);
    authority.issue("kubelet", &subject, &format!("IP:{},DNS:{}", spec.address, spec.name)).await?;
    authority.hand_out("kubelet", SERVER, &kubernetes)?;
    authority.issue("proxy", "/CN=system:kube-proxy", "").await?;
    authority.hand_out("proxy", SERVER, &kubernetes)?;
    cgroups::make(spec.netns)
}

fn places() -> Places {
    Places {
        root: "/var/lib/containerd".into(),
        state: "/run/containerd".into(),
        socket: CONTAINERD.into(),
        bin: "/opt/cni/bin".into(),
        conf: "/etc/cni/net.d".into(),
    }
}

/// The kubelet's configuration: as on EKS where the machine allows.
fn kubelet(spec: &MachineSpec<'_>) -> String {
    let [_, _, dns] = spec.shape.family.services();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", spec.netns),
        "failCgroupV1": false, "failSwapOn": false,
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "address": "::", "clusterDNS": [dns], "clusterDomain": "cluster.local",
        "maxPods": spec.shape.max_pods,
        // The disk is the machine's: how full it is says nothing about the node.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        "tlsCertFile": "/etc/kubernetes/kubelet.crt", "tlsPrivateKeyFile": "/etc/kubernetes/kubelet.key",
    })
    .to_string()
}

/// kube-proxy's configuration. The machine's table of connections keeps its size.
fn proxy(spec: &MachineSpec<'_>) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": spec.shape.proxy_mode, "hostnameOverride": spec.name,
        "clientConnection": {"kubeconfig": "/etc/kubernetes/proxy.conf"},
        "conntrack": {"maxPerCore": 0, "min": 0},
    })
    .to_string()
}
