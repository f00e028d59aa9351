//! A VPC with nodes: `vpc-sim` with its fabric and, on each instance, `ipamd`, the plugin, our
//! conflist and what starts the plugin: a container runtime, or just us.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use proto::v1::ipam_client::IpamClient;
use proto::v1::{ReadyRequest, ViewReply, ViewRequest};
use serde_json::{Value, json};
use tonic::transport::Endpoint;

use crate::containerd::{Containerd, Sandbox};
use crate::install::{Build, install};
use crate::process::{PATIENCE, Process, eventually, in_netns, output, program};
use crate::sim::{EC2_IN_FABRIC, EC2_IN_FABRIC_V6, IMDS_IN_FABRIC_V6, OUTSIDE_PORT, Sim};

/// What switches pods to IPv6.
pub const IPV6_SETTINGS: [(&str, &str); 3] =
    [("ENABLE_IPv6", "true"), ("ENABLE_IPv4", "false"), ("ENABLE_PREFIX_DELEGATION", "true")];

/// What gives pods addresses of both families.
pub const DUAL_SETTINGS: [(&str, &str); 2] = [("ENABLE_IPv6", "true"), ("ENABLE_IPv4", "true")];

/// Pods that the kubelet starts or ends at a time.
const AT_ONCE: usize = 4;
/// A security group of the VPC beside its default one, which the nodes have.
pub const OTHER_GROUP: &str = "sg-0cccccccccccccccc";

/// One node to be.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Its EC2 instance type.
    pub instance_type: &'static str,
    /// The daemon's settings beside those that place its files.
    pub settings: BTreeMap<&'static str, String>,
    /// What it starts with, instead of this checkout's.
    pub build: Option<Build>,
}

/// A cluster to be.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Short and unique on this machine: it names namespaces and the folder under /run.
    pub name: String,
    /// The VPC's one subnet.
    pub subnet: &'static str,
    /// Whether VPC, subnet and nodes have IPv6 beside IPv4.
    pub ipv6: bool,
    /// With `ipv6`: whether subnet and nodes have no IPv4.
    pub ipv6_only: bool,
    /// Device index of each node's primary ENI.
    pub device_index: u16,
    /// Whether the subnet leads to an internet gateway, and each node has a public address.
    pub outside: bool,
    /// Whether the subnet is peered with a second VPC: see [`crate::peers`].
    pub peered: bool,
    /// Addresses of the subnet that somebody else uses.
    pub used: Vec<String>,
    /// The simulator's switches, by name.
    pub switches: Value,
    /// The nodes.
    pub nodes: Vec<NodeSpec>,
}

/// A running instance that is to be a node.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its network namespace.
    pub netns: String,
    /// The primary ENI's address: IPv4 unless the subnet is IPv6 only.
    pub address: IpAddr,
    /// The primary ENI's IPv6 address, if it has one.
    pub ipv6_address: Option<Ipv6Addr>,
}

/// What starts the plugin on a node.
pub trait Runtime: Sized {
    /// Starts it with all its state in `dir`, in the node's network namespace.
    fn start(dir: &Path, netns: &str) -> impl Future<Output = Result<Self>>;
    /// Fails as long as it would start no pod for want of a network.
    fn network_ready(&self) -> impl Future<Output = Result<()>>;
    /// Removes the pods that are left, and ends it.
    fn down(self) -> impl Future<Output = Result<()>>;
}

/// A running cluster with a container runtime on each node.
pub type Cluster = ClusterOf<Containerd>;

/// A running cluster.
#[derive(Debug)]
pub struct ClusterOf<R> {
    /// EC2 and the VPC.
    pub sim: Sim,
    /// The nodes, in the order of the specification.
    pub nodes: Vec<NodeOf<R>>,
    pub(crate) dir: PathBuf,
}

/// A running node with a container runtime.
pub type Node = NodeOf<Containerd>;

/// A running node.
#[derive(Debug)]
pub struct NodeOf<R> {
    /// The network namespace that is the instance.
    pub netns: String,
    /// What starts the plugin.
    pub runtime: R,
    /// The primary ENI's address: IPv4 unless the subnet is IPv6 only.
    pub address: IpAddr,
    /// The primary ENI's IPv6 address, if the nodes have IPv6.
    pub ipv6_address: Option<Ipv6Addr>,
    ipamd: Option<Process>,
    /// Of the daemons that are started from now on.
    program: PathBuf,
    dir: PathBuf,
    settings: BTreeMap<&'static str, String>,
}

impl Spec {
    /// `count` nodes of one type with the same settings; `name` is made unique by the process id.
    #[must_use]
    pub fn new(
        name: &str,
        instance_type: &'static str,
        count: usize,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let settings = settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let node = NodeSpec { instance_type, settings, build: None };
        let name = format!("{name}{}", std::process::id());
        let nodes = vec![node; count];
        let (used, switches) = (vec![], json!({}));
        Self {
            name,
            subnet: "10.0.0.0/20",
            ipv6: false,
            ipv6_only: false,
            device_index: 0,
            outside: false,
            peered: false,
            used,
            switches,
            nodes,
        }
    }

    /// As [`Spec::new`], with pods on IPv6.
    #[must_use]
    pub fn ipv6(
        name: &str,
        instance_type: &'static str,
        count: usize,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let settings = [&IPV6_SETTINGS, settings].concat();
        Self { ipv6: true, ..Self::new(name, instance_type, count, &settings) }
    }

    /// As [`Spec::new`], with pods on both families.
    #[must_use]
    pub fn dual(
        name: &str,
        instance_type: &'static str,
        count: usize,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let settings = [&DUAL_SETTINGS, settings].concat();
        Self { ipv6: true, ..Self::new(name, instance_type, count, &settings) }
    }

    fn netns(&self, index: usize) -> String {
        format!("{}-n{index}", self.name)
    }

    fn ipv4_address(&self, index: usize) -> Option<Ipv4Addr> {
        let last = u8::try_from(index + 10).unwrap_or(u8::MAX);
        (!self.ipv6_only).then(|| Ipv4Addr::new(10, 0, 0, last))
    }

    fn machine(&self, index: usize) -> Result<Machine> {
        let (ipv4, ipv6_address) = (self.ipv4_address(index), self.ipv6_address(index));
        let address = ipv4.map(IpAddr::V4).or_else(|| ipv6_address.map(IpAddr::V6));
        let address = address.context("a node needs IPv4 or IPv6")?;
        Ok(Machine { netns: self.netns(index), address, ipv6_address })
    }

    /// The public address of a node's primary address.
    ///
    /// `None` if nothing leads outside.
    #[must_use]
    pub fn public_address(&self, index: usize) -> Option<Ipv4Addr> {
        let last = u8::try_from(index + 10).unwrap_or(u8::MAX);
        (self.outside && !self.ipv6_only).then(|| Ipv4Addr::new(203, 0, 113, last))
    }

    fn ipv6_address(&self, index: usize) -> Option<Ipv6Addr> {
        let last = u16::try_from(index + 10).unwrap_or(u16::MAX);
        self.ipv6.then(|| Ipv6Addr::new(0x2600, 0x1f13, 0xabc, 0xde00, 0, 0, 0, last))
    }

    /// The topology file: JSON, which is YAML too.
    fn topology(&self) -> Value {
        let instances = self.nodes.iter().enumerate().map(|(index, node)| {
            json!({
                "type": node.instance_type, "subnet": "nodes", "address": self.ipv4_address(index),
                "ipv6_address": self.ipv6_address(index), "netns": self.netns(index),
                "device_index": self.device_index, "imds_ipv6": self.ipv6_only,
                "public_address": self.public_address(index),
            })
        });
        let ipv6_cidrs: &[&str] = if self.ipv6 { &["2600:1f13:abc:de00::/56"] } else { &[] };
        let ipv6_cidr = self.ipv6.then_some("2600:1f13:abc:de00::/64");
        let cidr = (!self.ipv6_only).then_some(self.subnet);
        let routes = match self.outside {
            true => json!({"0.0.0.0/0": "internet-gateway", "::/0": "internet-gateway"}),
            false => json!({}),
        };
        let mut topology = json!({
            "region": "us-east-1", "account": "111122223333", "iam_role": "node",
            "fabric_netns": self.name, "switches": self.switches,
            "vpcs": [{
                "cidrs": ["10.0.0.0/16"], "ipv6_cidrs": ipv6_cidrs,
                "security_groups": [{ "name": "other", "id": OTHER_GROUP }],
                "subnets": [{
                    "name": "nodes", "az": "us-east-1a", "cidr": cidr, "used": self.used,
                    "ipv6_cidr": ipv6_cidr, "routes": routes,
                }],
            }],
            "instances": instances.collect::<Vec<_>>(),
        });
        if self.peered {
            crate::peers::add(&mut topology, &self.name);
        }
        topology
    }
}

impl<R: Runtime> ClusterOf<R> {
    /// Brings the cluster up, runs `body` on it and takes it down again, also when `body` fails
    /// or panics; the logs stay then.
    ///
    /// # Errors
    ///
    /// The first failure of the three.
    pub async fn with(spec: Spec, body: impl AsyncFnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut cluster = Self::up(&spec).await?;
        let dir = cluster.dir.clone();
        let outcome = AssertUnwindSafe(body(&mut cluster)).catch_unwind().await;
        let ended = cluster.end().await;
        match outcome {
            Ok(result) => result.and(ended).and_then(|()| remove(&dir)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Starts everything and waits until each node would serve an ADD.
    ///
    /// # Errors
    ///
    /// Which part did not come up, with the end of its log.
    pub async fn up(spec: &Spec) -> Result<Self> {
        let mut cluster = Self::without_nodes(&spec.name, &spec.topology()).await?;
        for (index, node) in spec.nodes.iter().enumerate() {
            let added = match spec.machine(index) {
                Ok(machine) => cluster.add_node(machine, node).await,
                Err(error) => Err(error),
            };
            if let Err(error) = added {
                cluster.down().await.ok();
                return Err(error);
            }
        }
        Ok(cluster)
    }

    /// Starts the simulator alone, with its fabric in the namespace `name` and its files in the folder of that
    /// name below /run. The topology must name the namespace.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub async fn without_nodes(name: &str, topology: &Value) -> Result<Self> {
        let dir = PathBuf::from(format!("/run/{name}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let file = dir.join("topology.yaml");
        std::fs::write(&file, topology.to_string()).context("write the topology")?;
        let sim = Sim::start(&file, &dir).await?;
        let cluster = Self { sim, nodes: vec![], dir };
        // Like AWS's, the router answers no ping. Pods here need a target beyond their ENI that does.
        let answer = ["net.ipv4.icmp_echo_ignore_all=0", "net.ipv6.icmp.echo_ignore_all=0"];
        output(in_netns(name, "sysctl").args(["-q", "-w"]).args(answer)).await?;
        Ok(cluster)
    }

    /// Makes a node of an instance that runs, and waits until it would serve an ADD.
    ///
    /// # Errors
    ///
    /// Which part did not come up, with the end of its log.
    pub async fn add_node(&mut self, machine: Machine, node: &NodeSpec) -> Result<()> {
        let dir = self.dir.join(format!("n{}", self.nodes.len()));
        self.nodes.push(NodeOf::up(machine, dir, node).await?);
        Ok(())
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// Removes the pods and ends everything. Goes on after a failure and reports the first;
    /// the logs stay then.
    ///
    /// # Errors
    ///
    /// What did not end as it should.
    pub async fn down(self) -> Result<()> {
        let dir = self.dir.clone();
        self.end().await?;
        remove(&dir)
    }

    async fn end(self) -> Result<()> {
        let mut outcome = Ok(());
        for node in self.nodes {
            outcome = outcome.and(node.down().await);
        }
        outcome.and(self.sim.stop().await)
    }
}

fn remove(dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}

impl<R: Runtime> NodeOf<R> {
    async fn up(machine: Machine, dir: PathBuf, node: &NodeSpec) -> Result<Self> {
        let Machine { netns, address, ipv6_address } = machine;
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let build = node.build.clone().map_or_else(Build::this, Ok)?;
        install(&build, &dir)?;
        let runtime = R::start(&dir, &netns).await?;
        let mut node = Self {
            netns,
            runtime,
            address,
            ipv6_address,
            ipamd: None,
            program: build.ipamd,
            dir,
            settings: node.settings.clone(),
        };
        if node.ipv6_address.is_some() {
            eventually("booted node", PATIENCE, || node.booted()).await?;
        }
        node.start_ipamd().await?;
        eventually("network of the runtime", PATIENCE, || node.runtime.network_ready()).await?;
        Ok(node)
    }

    async fn down(mut self) -> Result<()> {
        let runtime = self.runtime.down().await;
        let daemon = match self.ipamd.take() {
            Some(mut process) => process.stop().await.map(|_| ()),
            None => Ok(()),
        };
        runtime.and(daemon)
    }
}

impl<R> NodeOf<R> {
    /// A node whose daemon something else starts and ends, with its record and its socket in `dir`.
    pub(crate) fn beside(netns: String, runtime: R, address: IpAddr, dir: PathBuf) -> Self {
        let (program, settings) = (PathBuf::new(), BTreeMap::new());
        Self { netns, runtime, address, ipv6_address: None, ipamd: None, program, dir, settings }
    }

    /// Fails as long as the kernel looks for duplicates of the node's own IPv6 addresses: two seconds,
    /// in which it finds no neighbour. Real nodes have no pods that early.
    async fn booted(&self) -> Result<()> {
        let words = ["-6", "address", "show", "tentative"];
        let tentative = output(in_netns(&self.netns, "ip").args(words)).await?;
        ensure!(tentative.is_empty(), "not in use yet: {tentative}");
        Ok(())
    }

    /// The daemons that are started from now on are of `build`.
    pub fn install_ipamd(&mut self, build: &Build) {
        self.program.clone_from(&build.ipamd);
    }

    /// Puts the plugin of `build` in the place of the one there, as an installer does: what runs of that
    /// goes on.
    ///
    /// # Errors
    ///
    /// If it cannot be copied.
    pub fn install_plugin(&self, build: &Build) -> Result<()> {
        crate::install::install_plugin(build, &self.dir)
    }

    /// Removes plugin and conflist. The daemons that are started from now on put them there, as in a container.
    ///
    /// # Errors
    ///
    /// If they cannot be removed.
    pub fn leave_installation_to_ipamd(&mut self) -> Result<()> {
        for file in [self.conflist(), self.plugin(), self.plugin().with_file_name("loopback")] {
            std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        for (setting, directory) in [
            ("HOST_CNI_BIN_PATH", Containerd::cni_bin(&self.dir)),
            ("HOST_CNI_CONFDIR_PATH", Containerd::cni_conf(&self.dir)),
            ("AWS_VPC_K8S_PLUGIN_LOG_FILE", self.dir.join("plugin.log")),
        ] {
            self.settings.insert(setting, directory.display().to_string());
        }
        Ok(())
    }

    /// Changes the settings of the daemons that are started from now on.
    pub fn configure(&mut self, settings: &[(&'static str, &str)]) {
        let settings = settings.iter().map(|(key, value)| (*key, (*value).to_owned()));
        self.settings.extend(settings);
    }

    /// Starts the daemon and waits until it would serve an ADD.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub async fn start_ipamd(&mut self) -> Result<()> {
        let mut process = self.spawn_ipamd()?;
        process.wait_until("it would serve an ADD", || self.ready()).await?;
        self.ipamd = Some(process);
        Ok(())
    }

    /// Starts the daemon and waits until it answers, even if it can serve nobody.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub async fn start_ipamd_unready(&mut self) -> Result<()> {
        let mut process = self.spawn_ipamd()?;
        process.wait_until("it answers", || self.view()).await?;
        self.ipamd = Some(process);
        Ok(())
    }

    /// Starts the daemon and waits until `ipamd status` has an answer, by the socket or without it.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub async fn start_ipamd_introspected(&mut self) -> Result<String> {
        let mut process = self.spawn_ipamd()?;
        let shown = process.wait_until("it is shown", async || {
            let mut command = in_netns(&self.netns, &self.program);
            command.arg("status").env_clear().env("TIDEPOOL_SOCKET", self.socket());
            output(command.envs(&self.settings)).await
        });
        let shown = shown.await?;
        self.ipamd = Some(process);
        Ok(shown)
    }

    /// Starts a second daemon beside the one that runs, and waits until it waits for the end of that one.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn start_successor(&self) -> Result<Process> {
        let mut successor = self.spawn_ipamd()?;
        let socket = proto::socket::of_waiting(&self.socket());
        let waits = async || Ok(tokio::net::UnixStream::connect(&socket).await?);
        successor.wait_until("it waits for the other daemon", waits).await?;
        Ok(successor)
    }

    /// Puts `successor` in the place of the daemon that runs, and returns that one.
    pub fn succeed(&mut self, successor: Process) -> Option<Process> {
        self.ipamd.replace(successor)
    }

    fn spawn_ipamd(&self) -> Result<Process> {
        let mut command = in_netns(&self.netns, &self.program);
        command
            .arg("run")
            .args(self.settings.contains_key("HOST_CNI_BIN_PATH").then_some("--install"))
            .env_clear()
            .envs(services(self.address))
            .env("AWS_VPC_K8S_CNI_BACKING_STORE", self.dir.join("ipam.json"))
            .env("AWS_VPC_K8S_CNI_LOG_FILE", "stdout")
            .env("TIDEPOOL_SOCKET", self.socket())
            // Where there is no container runtime, nobody answers.
            .env("TIDEPOOL_RUNTIME_SOCKET", Containerd::socket(&self.dir))
            .env(failpoint::VARIABLE, self.fail_points())
            .envs(&self.settings);
        Process::start("ipamd", &mut command, &self.log())
    }

    /// Kills or stops the daemon at its next pass through `point`.
    ///
    /// # Errors
    ///
    /// If the point cannot be armed.
    pub fn arm(&self, point: &str, order: failpoint::Order) -> Result<()> {
        failpoint::arm(&self.fail_points(), point, order, 1).with_context(|| format!("arm {point}"))
    }

    fn fail_points(&self) -> PathBuf {
        self.dir.join("fail-points")
    }

    /// Starts a daemon that is to die at a point that is armed, and waits for that.
    ///
    /// # Errors
    ///
    /// If it does not die so.
    pub async fn start_ipamd_to_die(&mut self) -> Result<()> {
        self.ipamd = Some(self.spawn_ipamd()?);
        self.ipamd_dies().await
    }

    /// Waits until the daemon has died at a point that is armed.
    ///
    /// # Errors
    ///
    /// If it lives on, or ends in another way.
    pub async fn ipamd_dies(&mut self) -> Result<()> {
        self.ipamd.take().context("ipamd is not running")?.dies().await
    }

    /// Ends the daemon as Kubernetes would.
    ///
    /// # Errors
    ///
    /// If it does not end cleanly.
    pub async fn stop_ipamd(&mut self) -> Result<()> {
        let status = self.ipamd.take().context("ipamd is not running")?.stop().await?;
        if !status.success() {
            bail!("ipamd ended with {status} after SIGTERM");
        }
        Ok(())
    }

    /// Ends the daemon as a crash would.
    ///
    /// # Errors
    ///
    /// If it is not running.
    pub async fn kill_ipamd(&mut self) -> Result<()> {
        self.ipamd.take().context("ipamd is not running")?.kill().await
    }

    /// The daemon's process id.
    ///
    /// # Errors
    ///
    /// If it is not running.
    pub fn ipamd_pid(&self) -> Result<u32> {
        self.ipamd.as_ref().context("ipamd is not running")?.pid()
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("ipamd.sock")
    }

    /// Where the daemon keeps its record.
    #[must_use]
    pub fn state_directory(&self) -> &Path {
        &self.dir
    }

    /// The log and stderr of this node's daemons.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("ipamd.log")
    }

    /// The runtime's network configuration file.
    #[must_use]
    pub fn conflist(&self) -> PathBuf {
        Containerd::cni_conf(&self.dir).join("10-aws.conflist")
    }

    /// The plugin as the runtime starts it.
    #[must_use]
    pub fn plugin(&self) -> PathBuf {
        Containerd::cni_bin(&self.dir).join("aws-cni")
    }

    /// A connection to the daemon.
    ///
    /// # Errors
    ///
    /// If nobody listens.
    pub async fn client(&self) -> Result<IpamClient<tonic::transport::Channel>> {
        connect(&self.socket()).await
    }

    /// The daemon's view of its pool.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn view(&self) -> Result<ViewReply> {
        Ok(self
            .client()
            .await?
            .view(ViewRequest {})
            .await
            .context("ask for the pool")?
            .into_inner())
    }

    /// The containers that have an address in the daemon's view, with their addresses.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn held(&self) -> Result<BTreeSet<(String, String)>> {
        let held = self.view().await?.pods.into_iter().map(|pod| {
            let container = pod.attachment.unwrap_or_default().container_id;
            (container, pod.address.unwrap_or_default().address)
        });
        Ok(held.collect())
    }

    /// The files of DELs that the plugin could not deliver.
    ///
    /// # Errors
    ///
    /// If they cannot be listed.
    pub fn pending_dels(&self) -> Result<Vec<PathBuf>> {
        let directory = proto::pending::directory(&self.socket());
        let Ok(entries) = std::fs::read_dir(directory) else { return Ok(vec![]) };
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    async fn ready(&self) -> Result<()> {
        let mut client = self.client().await?;
        let request = ReadyRequest { client_version: proto::VERSION.to_owned() };
        match client.ready(request).await.context("ask whether it is ready")?.into_inner().not_ready
        {
            None => Ok(()),
            Some(refused) => bail!("{}: {}", refused.code, refused.message),
        }
    }

    /// What `ipamd status` prints.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer.
    pub async fn status(&self) -> Result<String> {
        let mut command = tokio::process::Command::new(program("ipamd")?);
        output(command.arg("status").arg("--socket").arg(self.socket())).await
    }

    /// Runs `ipamd` with `arguments` against the daemon, in the node's network namespace and with its settings.
    /// Returns its exit code, and what it prints on standard output and standard error.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or if a signal ends it.
    pub async fn ipamd(&self, arguments: &[&str]) -> Result<(i32, String, String)> {
        let mut command = in_netns(&self.netns, &self.program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(services(self.address))
            .env("AWS_VPC_K8S_CNI_BACKING_STORE", self.dir.join("ipam.json"))
            .env("AWS_VPC_K8S_CNI_LOG_FILE", "stdout")
            .env("TIDEPOOL_SOCKET", self.socket())
            .envs(&self.settings);
        let out = command.output().await.with_context(|| format!("run {command:?}"))?;
        let code =
            out.status.code().with_context(|| format!("{command:?} ended with {}", out.status))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((code, text(&out.stdout), text(&out.stderr)))
    }

    /// Sends one ping from a network namespace, given by path.
    ///
    /// # Errors
    ///
    /// If no answer comes within a second.
    pub async fn ping(netns: &str, to: &str) -> Result<()> {
        let mut command = tokio::process::Command::new("nsenter");
        command.arg(format!("--net={netns}")).args(["--", "ping", "-n", "-c1", "-W1", to]);
        output(&mut command).await.map(|_| ())
    }

    /// The address of a network namespace, given by path, as the outside sees it.
    ///
    /// # Errors
    ///
    /// If the outside does not answer within two seconds.
    pub async fn seen_outside(netns: &str, outside: IpAddr) -> Result<IpAddr> {
        let ask = format!("exec cat < /dev/tcp/{outside}/{OUTSIDE_PORT}");
        let mut command = tokio::process::Command::new("nsenter");
        command.arg(format!("--net={netns}")).args(["--", "timeout", "2", "bash", "-c", &ask]);
        let answer = output(&mut command).await.context("ask the outside")?;
        let address = answer.split(' ').next().unwrap_or_default();
        address.parse().with_context(|| format!("read {answer:?} as an address"))
    }
}

impl Node {
    /// Starts `count` pods, a few at a time.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub async fn run_pods(&self, prefix: &str, count: usize) -> Result<Vec<Sandbox>> {
        stream::iter(0..count)
            .map(|index| async move { self.runtime.run("default", &format!("{prefix}-{index}")).await })
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Stops and removes pods, a few at a time.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub async fn remove_pods(&self, pods: &[Sandbox]) -> Result<()> {
        stream::iter(pods)
            .map(|pod| async move {
                self.runtime.stop_sandbox(&pod.id).await?;
                self.runtime.remove_sandbox(&pod.id).await
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }
}

/// Where a node finds EC2 and the metadata service.
fn services(address: IpAddr) -> Vec<(&'static str, &'static str)> {
    match address {
        IpAddr::V4(_) => vec![("AWS_ENDPOINT_URL_EC2", EC2_IN_FABRIC)],
        IpAddr::V6(_) => vec![
            ("AWS_ENDPOINT_URL_EC2", EC2_IN_FABRIC_V6),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", IMDS_IN_FABRIC_V6),
        ],
    }
}

async fn connect(socket: &Path) -> Result<IpamClient<tonic::transport::Channel>> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    let channel = endpoint.timeout(PATIENCE).connect().await;
    Ok(IpamClient::new(channel.with_context(|| format!("connect to {}", socket.display()))?))
}
