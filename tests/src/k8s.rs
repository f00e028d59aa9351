//! A real Kubernetes on the simulated VPC: a control plane in an instance of its own, and nodes with kubelet, kube-proxy
//! and containerd. Tidepool comes onto it as a user installs it, by kubectl.

mod api;
mod certificates;
mod cgroups;
mod control_plane;
pub mod enclosure;
mod machine;
mod pods;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{ClusterOf, NodeOf};
use crate::exec;
use crate::image;
use crate::process::{eventually, in_netns, output};
use crate::sim::Sim;

pub use api::Api;
use certificates::Authority;
pub use control_plane::ControlPlane;
pub use machine::Machine;
use machine::MachineSpec;
pub use pods::{Pod, Pods};

/// When something that must happen counts as hung. Longer than elsewhere: the kubelet tries some things again only after
/// a minute, and a control plane shares the machine.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The instance of the control plane.
const ADDRESS: &str = "10.0.0.5";
/// Where the API server is reached.
const SERVER: &str = "https://10.0.0.5:6443";
/// The cluster's addresses of Services.
const SERVICES: &str = "172.20.0.0/16";
/// The nodes' instance type has three ENIs with nine secondary addresses each.
const INSTANCE_TYPE: &str = "m5.large";
/// What EKS sets for that type: a pod for each secondary address, and two on the host's network.
const MAX_PODS: u32 = 29;
/// Last numbers of the nodes' addresses.
const NODES: [u8; 2] = [10, 11];

/// A running cluster.
#[derive(Debug)]
pub struct Kubernetes {
    /// EC2, the VPC and the nodes.
    pub cluster: ClusterOf<Machine>,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The API server.
    pub api: Api,
    /// All pods.
    pub pods: Pods,
}

impl Kubernetes {
    /// Starts a cluster with the name of its enclosure. Its nodes have no network yet.
    ///
    /// # Errors
    ///
    /// Which part did not come up, with the end of its log.
    pub async fn up(name: &str, kubernetes: &Path) -> Result<Self> {
        let dir = enclosure::furnish(name).await?;
        let topology = dir.join("topology.json");
        std::fs::write(&topology, self::topology(name).to_string())
            .context("write the topology")?;
        let sim = Sim::start(&topology, &dir).await?;
        // AWS's router answers no ping. Pods here need something beyond their ENI that does.
        output(in_netns(name, "sysctl").args(["-q", "-w", "net.ipv4.icmp_echo_ignore_all=0"]))
            .await?;
        let plane_dir = dir.join("control-plane");
        let authority = Authority::make(plane_dir.clone()).await?;
        let netns = format!("{name}-cp");
        let control_plane = ControlPlane::start(kubernetes, &netns, &plane_dir, &authority).await?;
        let images = dir.join("images.tar");
        image::write(&images)?;
        let mut nodes = vec![];
        for (index, last) in NODES.into_iter().enumerate() {
            let (netns, address) = (netns_of(name, index), address(last));
            let spec = MachineSpec {
                netns: &netns,
                name: &format!("ip-10-0-0-{last}.ec2.internal"),
                address,
                dir: dir.join(format!("n{index}")),
                kubernetes,
                max_pods: MAX_PODS,
            };
            let machine = Machine::start(&spec, &authority).await?;
            machine.import(&images).await?;
            let state = machine.path("/run/aws-node");
            nodes.push(NodeOf::beside(netns, machine, IpAddr::V4(address), state));
        }
        let (api, pods) = (control_plane.api().clone(), Pods::default());
        tokio::spawn(pods.clone().follow(api.clone()));
        let cluster = ClusterOf { sim, nodes, dir };
        Ok(Self { cluster, control_plane, api, pods })
    }

    /// Runs kubectl and gives what it prints.
    ///
    /// # Errors
    ///
    /// If it fails; the error carries its output.
    pub async fn kubectl(&self, words: &[&str]) -> Result<String> {
        output(self.control_plane.kubectl().args(words)).await
    }

    /// A program on another instance of the VPC, the control plane's.
    #[must_use]
    pub fn outside(&self, program: &str) -> tokio::process::Command {
        self.control_plane.on_its_instance(program)
    }

    /// Applies an object as a user does, from a file.
    ///
    /// # Errors
    ///
    /// If the API server refuses it.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        let name = object["metadata"]["name"].as_str().context("an object without a name")?;
        let file = self.file(&format!("{name}.json"));
        std::fs::write(&file, object.to_string())
            .with_context(|| format!("write {}", file.display()))?;
        self.kubectl(&["apply", "--filename", &file.display().to_string()]).await.map(|_| ())
    }

    /// A file of the run.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.cluster.dir.join(name)
    }

    /// The node with a name.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn node(&self, name: &str) -> Result<&NodeOf<Machine>> {
        let mut nodes = self.cluster.nodes.iter();
        nodes.find(|node| node.runtime.name == name).with_context(|| format!("no node {name:?}"))
    }

    /// The network namespaces of pods, found on their node by their address.
    ///
    /// # Errors
    ///
    /// If a pod has none.
    pub async fn namespaces(&self, pods: &[Pod]) -> Result<Vec<exec::Pod>> {
        let mut found = vec![];
        for node in &self.cluster.nodes {
            let folder = node.runtime.path("/run/netns");
            for entry in std::fs::read_dir(&folder).context("list the namespaces")? {
                let netns = entry?.path().display().to_string();
                let Ok(ip) = address_in(&netns).await else { continue };
                let of = |pod: &&Pod| pod.ip() == ip && pod.node() == node.runtime.name;
                if let Some(pod) = pods.iter().find(of) {
                    found.push(exec::Pod { name: pod.name().to_owned(), netns, ip });
                }
            }
        }
        ensure!(found.len() == pods.len(), "{} namespaces of {} pods", found.len(), pods.len());
        Ok(found)
    }

    /// Waits until there are `count` pods of `app`, all ready.
    ///
    /// # Errors
    ///
    /// If there are not in time; the error describes them.
    pub async fn ready(&self, app: &str, count: usize) -> Result<Vec<Pod>> {
        eventually("readiness of all pods", PATIENCE, async || self.pods.ready(app, count)).await
    }
}

fn netns_of(name: &str, index: usize) -> String {
    format!("{name}-n{index}")
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// The IPv4 address of the pod whose network namespace this is.
async fn address_in(netns: &str) -> Result<String> {
    let mut command = tokio::process::Command::new("nsenter");
    command
        .arg(format!("--net={netns}"))
        .args(["--", "ip", "-j", "-4", "address", "show", "dev", "eth0"]);
    let links: Value = serde_json::from_str(&output(&mut command).await?)?;
    let address = links[0]["addr_info"][0]["local"].as_str();
    Ok(address.context("no address yet")?.to_owned())
}

/// One VPC with one subnet, the control plane's instance and the nodes. EC2 is as slow as it is in fact.
fn topology(name: &str) -> Value {
    let instance = |netns: String, address: String| json!({"type": INSTANCE_TYPE, "subnet": "nodes", "address": address, "netns": netns});
    let mut instances = vec![instance(format!("{name}-cp"), ADDRESS.to_owned())];
    let nodes = NODES.into_iter().enumerate();
    instances.extend(
        nodes.map(|(index, last)| instance(netns_of(name, index), address(last).to_string())),
    );
    json!({
        "region": "us-east-1", "account": "111122223333", "iam_role": "node", "fabric_netns": name,
        "switches": {"throttling": "documented", "latency": "realistic", "consistency": "realistic"},
        "vpcs": [{
            "cidrs": ["10.0.0.0/16"],
            "subnets": [{"name": "nodes", "az": "us-east-1a", "cidr": "10.0.0.0/20"}],
        }],
        "instances": instances,
    })
}
