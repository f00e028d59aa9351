//! Debian's containerd as a node's runtime, driven over the CRI as the kubelet drives it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::Runtime;
use crate::image;
use crate::process::{PATIENCE, Process, eventually, in_netns, output};

mod cri {
    #![expect(unreachable_pub, clippy::allow_attributes_without_reason, reason = "generated")]
    tonic::include_proto!("runtime.v1");
}
use cri::runtime_service_client::RuntimeServiceClient;

const CONTAINERD: &str = "/usr/bin/containerd";
const CONFIGURATION: &str = "containerd.toml";
/// The kubelet's `runtimeRequestTimeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Unix socket paths end at 107 bytes.
const MAX_SOCKET_PATH: usize = 107;

/// Where a containerd has what it needs.
#[derive(Debug)]
pub(crate) struct Places {
    /// What outlives a boot.
    pub(crate) root: PathBuf,
    /// What does not.
    pub(crate) state: PathBuf,
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// The CNI plugins.
    pub(crate) bin: PathBuf,
    /// The network configuration.
    pub(crate) conf: PathBuf,
}

/// A containerd of its own in a network namespace.
#[derive(Debug)]
pub struct Containerd {
    dir: PathBuf,
    netns: String,
    process: Process,
    client: RuntimeServiceClient<Channel>,
}

/// What a pod asks of its network beside an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// TCP ports of the node, each with the pod's port.
    pub host_ports: Vec<(u16, u16)>,
    /// Annotations, such as `kubernetes.io/ingress-bandwidth`.
    pub annotations: Vec<(&'static str, &'static str)>,
}

/// A pod sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id for it, which is `CNI_CONTAINERID`.
    pub id: String,
    /// The pod's name.
    pub name: String,
    /// The address that the runtime reports.
    pub ip: String,
    /// Path of its network namespace.
    pub netns: String,
}

impl Containerd {
    /// Where the runtime looks for CNI plugins, below its directory.
    #[must_use]
    pub fn cni_bin(dir: &Path) -> PathBuf {
        dir.join("cni/bin")
    }

    /// Where the runtime looks for the network configuration, below its directory.
    #[must_use]
    pub fn cni_conf(dir: &Path) -> PathBuf {
        dir.join("cni/net.d")
    }

    /// Where it listens, below its directory.
    #[must_use]
    pub fn socket(dir: &Path) -> PathBuf {
        dir.join("containerd.sock")
    }

    /// Starts a containerd with all its state in `dir`, in the namespace `netns`, and waits until
    /// it has our images and answers.
    ///
    /// # Errors
    ///
    /// If containerd is not installed or does not come up.
    pub async fn start(dir: &Path, netns: &str) -> Result<Self> {
        ensure!(Path::new(CONTAINERD).exists(), "{CONTAINERD} is missing: run `make deps`");
        let socket = Self::socket(dir);
        ensure!(socket.as_os_str().len() <= MAX_SOCKET_PATH, "{} is too long", socket.display());
        for part in [Self::cni_bin(dir), Self::cni_conf(dir)] {
            std::fs::create_dir_all(&part).with_context(|| format!("make {}", part.display()))?;
        }
        let places = Places {
            root: dir.join("root"),
            state: dir.join("state"),
            socket: socket.clone(),
            bin: Self::cni_bin(dir),
            conf: Self::cni_conf(dir),
        };
        std::fs::write(dir.join(CONFIGURATION), configuration(&places))
            .context("write containerd's configuration")?;
        let (process, client) = launch(dir, netns).await?;
        let (dir, netns) = (dir.to_owned(), netns.to_owned());
        let runtime = Self { dir, netns, process, client };
        runtime.import_images().await?;
        Ok(runtime)
    }

    async fn import_images(&self) -> Result<()> {
        let tar = self.dir.join("images.tar");
        image::write(&tar)?;
        output(self.ctr().args(["images", "import"]).arg(&tar)).await?;
        Ok(())
    }

    /// Its own tool, which goes past the CRI.
    fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(Self::socket(&self.dir)).args(["--namespace", "k8s.io"]);
        ctr
    }

    /// Makes it forget a sandbox, as if its store had lost it: there is no DEL, and namespace and
    /// link stay. It restarts; the other pods run on.
    ///
    /// # Errors
    ///
    /// If it does not forget it.
    pub async fn forget(&mut self, sandbox: &Sandbox) -> Result<()> {
        output(self.ctr().args(["tasks", "kill", "--signal", "KILL", &sandbox.id])).await?;
        eventually("end of the sandbox's store", PATIENCE, async || {
            // As long as it has not taken down the task that has ended, the container stays.
            output(self.ctr().args(["containers", "delete", &sandbox.id])).await.map(|_| ())
        })
        .await?;
        self.process.stop().await?;
        (self.process, self.client) = launch(&self.dir, &self.netns).await?;
        ensure!(!self.sandboxes().await?.contains(&sandbox.id), "it remembers {}", sandbox.name);
        Ok(())
    }

    /// Whether the runtime has a network; its own words if not.
    ///
    /// # Errors
    ///
    /// If it has none yet or does not answer.
    pub async fn network_ready(&self) -> Result<()> {
        let reply = self
            .client
            .clone()
            .status(cri::StatusRequest {})
            .await
            .context("ask for its status")?;
        let conditions = reply.into_inner().status.unwrap_or_default().conditions;
        let network = conditions.into_iter().find(|c| c.r#type == "NetworkReady");
        let network = network.context("the runtime reports no NetworkReady condition")?;
        ensure!(network.status, "{}: {}", network.reason, network.message);
        Ok(())
    }

    /// Starts a pod's sandbox, which runs our plugin's ADD.
    ///
    /// # Errors
    ///
    /// The runtime's error, which carries the plugin's.
    pub async fn run(&self, namespace: &str, name: &str) -> Result<Sandbox> {
        self.run_with(namespace, name, &Wishes::default()).await
    }

    /// As [`Self::run`], for a pod that asks for more.
    ///
    /// # Errors
    ///
    /// The runtime's error, which carries the plugin's.
    pub async fn run_with(&self, namespace: &str, name: &str, wishes: &Wishes) -> Result<Sandbox> {
        let mapping = |&(host_port, container_port): &(u16, u16)| cri::PortMapping {
            protocol: cri::Protocol::Tcp.into(),
            container_port: container_port.into(),
            host_port: host_port.into(),
            host_ip: String::new(),
        };
        let annotation = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        let config = cri::PodSandboxConfig {
            port_mappings: wishes.host_ports.iter().map(mapping).collect(),
            annotations: wishes.annotations.iter().map(annotation).collect(),
            ..sandbox_config(namespace, name, &self.dir)
        };
        let mut request = tonic::Request::new(cri::RunPodSandboxRequest { config: Some(config) });
        request.set_timeout(REQUEST_TIMEOUT);
        let reply = self.client.clone().run_pod_sandbox(request).await;
        let id = reply.map_err(|status| anyhow::anyhow!("run {name}: {}", status.message()))?;
        self.inspect(&id.into_inner().pod_sandbox_id, name).await
    }

    /// Reads a sandbox's address and namespace.
    ///
    /// # Errors
    ///
    /// If it is gone or has none.
    pub async fn inspect(&self, id: &str, name: &str) -> Result<Sandbox> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let reply =
            self.client.clone().pod_sandbox_status(request).await.context("ask for the sandbox")?;
        let reply = reply.into_inner();
        let ip = reply.status.and_then(|s| s.network).map(|n| n.ip).unwrap_or_default();
        let info: serde_json::Value =
            serde_json::from_str(reply.info.get("info").context("no info")?)
                .context("read the sandbox's info")?;
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array();
        let netns = namespaces
            .and_then(|all| all.iter().find(|one| one["type"] == "network"))
            .and_then(|one| one["path"].as_str())
            .with_context(|| format!("sandbox {id} has no network namespace"))?;
        Ok(Sandbox { id: id.to_owned(), name: name.to_owned(), ip, netns: netns.to_owned() })
    }

    /// Stops a sandbox, which runs our plugin's DEL; may be repeated.
    ///
    /// # Errors
    ///
    /// The runtime's error, which carries the plugin's.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let reply = self.client.clone().stop_pod_sandbox(request).await;
        reply.map_err(|status| anyhow::anyhow!("stop {id}: {}", status.message()))?;
        Ok(())
    }

    /// Removes a stopped sandbox, which runs our plugin's DEL again, without a namespace.
    ///
    /// # Errors
    ///
    /// The runtime's error, which carries the plugin's.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let reply = self.client.clone().remove_pod_sandbox(request).await;
        reply.map_err(|status| anyhow::anyhow!("remove {id}: {}", status.message()))?;
        Ok(())
    }

    /// Ids of all sandboxes.
    ///
    /// # Errors
    ///
    /// If the runtime does not answer.
    pub async fn sandboxes(&self) -> Result<Vec<String>> {
        let reply = self.client.clone().list_pod_sandbox(cri::ListPodSandboxRequest {}).await;
        Ok(reply
            .context("list the sandboxes")?
            .into_inner()
            .items
            .into_iter()
            .map(|s| s.id)
            .collect())
    }

    /// Runs a command in a fresh container of a sandbox; gives what it printed.
    ///
    /// # Errors
    ///
    /// If the container cannot be run or the command fails.
    pub async fn exec(&self, sandbox: &Sandbox, command: &[&str]) -> Result<String> {
        let mut client = self.client.clone();
        let create = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(cri::ContainerConfig {
                metadata: Some(cri::ContainerMetadata { name: "exec".to_owned() }),
                image: Some(cri::ImageSpec { image: image::BUSYBOX.to_owned() }),
                command: vec!["/bin/sleep".to_owned(), "2147483647".to_owned()],
            }),
            sandbox_config: Some(sandbox_config("default", &sandbox.name, &self.dir)),
        };
        let container_id = client.create_container(create).await.context("create a container")?;
        let container_id = container_id.into_inner().container_id;
        let start = cri::StartContainerRequest { container_id: container_id.clone() };
        client.start_container(start).await.context("start the container")?;
        let exec = cri::ExecSyncRequest {
            container_id: container_id.clone(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 30,
        };
        let reply = client.exec_sync(exec).await;
        client
            .remove_container(cri::RemoveContainerRequest { container_id })
            .await
            .context("remove the container")?;
        let reply = reply.context("run the command")?.into_inner();
        let printed = String::from_utf8_lossy(&reply.stdout).into_owned();
        if reply.exit_code != 0 {
            bail!(
                "{command:?} ended with {}: {printed}{}",
                reply.exit_code,
                String::from_utf8_lossy(&reply.stderr)
            );
        }
        Ok(printed)
    }

    /// Removes every sandbox and ends the runtime. Goes on after a failure and reports the first.
    ///
    /// # Errors
    ///
    /// If a sandbox cannot be removed or the runtime does not end.
    pub async fn down(mut self) -> Result<()> {
        let mut outcome = Ok(());
        for id in self.sandboxes().await.unwrap_or_default() {
            let removed = async {
                self.stop_sandbox(&id).await?;
                self.remove_sandbox(&id).await
            };
            outcome = outcome.and(removed.await);
        }
        outcome.and(self.process.stop().await.map(|_| ()))
    }
}

impl Runtime for Containerd {
    async fn start(dir: &Path, netns: &str) -> Result<Self> {
        Containerd::start(dir, netns).await
    }

    async fn network_ready(&self) -> Result<()> {
        Containerd::network_ready(self).await
    }

    async fn down(self) -> Result<()> {
        Containerd::down(self).await
    }
}

/// Starts what `dir` is configured for, and waits until it answers.
async fn launch(dir: &Path, netns: &str) -> Result<(Process, RuntimeServiceClient<Channel>)> {
    // A clean environment, as under systemd: plugins inherit it.
    let mut command = in_netns(netns, CONTAINERD);
    command
        .arg("--config")
        .arg(dir.join(CONFIGURATION))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let mut process = Process::start("containerd", &mut command, &dir.join("containerd.log"))?;
    let socket = Containerd::socket(dir);
    let client = process.wait_until("its CRI answers", || connect(&socket)).await?;
    Ok((process, client))
}

async fn connect(socket: &Path) -> Result<RuntimeServiceClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    let channel = endpoint.connect().await.context("connect")?;
    let mut client = RuntimeServiceClient::new(channel);
    client
        .version(cri::VersionRequest { version: "v1".to_owned() })
        .await
        .context("ask for its version")?;
    Ok(client)
}

fn sandbox_config(namespace: &str, name: &str, dir: &Path) -> cri::PodSandboxConfig {
    let uid = format!("uid-{namespace}-{name}");
    let labels = [
        ("io.kubernetes.pod.name", name),
        ("io.kubernetes.pod.namespace", namespace),
        ("io.kubernetes.pod.uid", uid.as_str()),
    ];
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.clone(),
            namespace: namespace.to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: dir.join("logs").join(name).display().to_string(),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..cri::PodSandboxConfig::default()
    }
}

/// The configuration file of containerd 1.6.
pub(crate) fn configuration(places: &Places) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{bin}"
    conf_dir = "{conf}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#,
        root = places.root.display(),
        state = places.state.display(),
        socket = places.socket.display(),
        pause = image::PAUSE,
        bin = places.bin.display(),
        conf = places.conf.display(),
    )
}
