//! A real Kubernetes on the simulated VPC: a control plane in an instance of its own, and nodes with kubelet, kube-proxy
//! and containerd. Tidepool comes onto it as a user installs it, by kubectl.

mod api;
pub mod certificates;
mod cgroups;
mod control_plane;
pub mod enclosure;
mod machine;
mod pods;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{ClusterOf, NodeOf};
use crate::exec;
use crate::image;
use crate::process::{Process, eventually, in_netns, output};
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
/// Last number of the addresses of the control plane's instance.
const CONTROL_PLANE: u8 = 5;
/// Where the API server is reached. Instances have IPv4 in clusters of both families.
const SERVER: &str = "https://10.0.0.5:6443";
/// Subnets for pods alone, by id: nodes use them where an ENIConfig says so.
pub const POD_SUBNETS: [(&str, &str); 2] =
    [("subnet-0aaaaaaaaaaaaaaaa", "100.64.0.0/20"), ("subnet-0bbbbbbbbbbbbbbbb", "100.64.16.0/20")];
/// Last numbers of the nodes' addresses.
const NODES: [u8; 2] = [10, 11];

/// What pods and Services have addresses of. Instances have IPv4 in each case, and IPv6 beside it where pods do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// As clusters of EKS are by default.
    Ipv4,
    /// As those that are made for IPv6.
    Ipv6,
}

impl Family {
    /// The cluster's addresses of Services, and among them those of the API server and of DNS.
    const fn services(self) -> [&'static str; 3] {
        match self {
            Self::Ipv4 => ["172.20.0.0/16", "172.20.0.1", "172.20.0.10"],
            Self::Ipv6 => ["fd00:172:20::/108", "fd00:172:20::1", "fd00:172:20::a"],
        }
    }

    /// The address of an instance.
    fn address(self, last: u8) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, 0, 0, last).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2600, 0x1f13, 0xabc, 0xde00, 0, 0, 0, last.into()).into(),
        }
    }
}

/// What the nodes of a cluster are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Their EC2 instance type.
    pub instance_type: &'static str,
    /// The most pods that a kubelet takes.
    pub max_pods: u32,
    /// How kube-proxy works: `iptables` or `nftables`.
    pub proxy_mode: &'static str,
    /// Of pods and Services.
    pub family: Family,
}

impl Shape {
    /// Three ENIs with nine secondary addresses each. EKS sets so many pods for that type: one for each secondary address,
    /// and two on the host's network.
    pub const SMALL: Self = Self {
        instance_type: "m5.large",
        max_pods: 29,
        proxy_mode: "iptables",
        family: Family::Ipv4,
    };
    /// Eight ENIs with 29 secondary addresses each. The kubelet takes half as many pods.
    pub const LARGE: Self = Self { instance_type: "m5.4xlarge", max_pods: 130, ..Self::SMALL };
    /// [`Self::SMALL`] with kube-proxy's newer mode.
    pub const NFTABLES: Self = Self { proxy_mode: "nftables", ..Self::SMALL };
    /// [`Self::SMALL`] on IPv6.
    pub const IPV6: Self = Self { family: Family::Ipv6, ..Self::SMALL };
}

/// A running cluster.
#[derive(Debug)]
pub struct Kubernetes {
    /// The name of its enclosure.
    name: String,
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
    pub async fn up(name: &str, kubernetes: &Path, shape: Shape) -> Result<Self> {
        let dir = enclosure::furnish(name).await?;
        let topology = dir.join("topology.json");
        std::fs::write(&topology, self::topology(name, shape).to_string())
            .context("write the topology")?;
        let sim = Sim::start(&topology, &dir).await?;
        // AWS's router answers no ping. Pods here need something beyond their ENI that does.
        output(in_netns(name, "sysctl").args(["-q", "-w", "net.ipv4.icmp_echo_ignore_all=0"]))
            .await?;
        let plane_dir = dir.join("control-plane");
        let authority = Authority::make(plane_dir.clone()).await?;
        let netns = format!("{name}-cp");
        let plane = ControlPlane::start(kubernetes, &netns, &plane_dir, &authority, shape.family);
        let control_plane = plane.await?;
        let images = dir.join("images.tar");
        image::write(&images)?;
        let mut nodes = vec![];
        for (index, last) in NODES.into_iter().enumerate() {
            let (netns, address) = (netns_of(name, index), shape.family.address(last));
            let spec = MachineSpec {
                netns: &netns,
                name: &format!("ip-10-0-0-{last}.ec2.internal"),
                address,
                dir: dir.join(format!("n{index}")),
                kubernetes,
                shape,
            };
            let machine = Machine::start(&spec, &authority).await?;
            machine.import(&images).await?;
            let state = machine.path("/run/aws-node");
            nodes.push(NodeOf::beside(netns, machine, address, state));
        }
        let (api, pods) = (control_plane.api().clone(), Pods::default());
        tokio::spawn(pods.clone().follow(api.clone()));
        let cluster = ClusterOf { sim, nodes, dir };
        Ok(Self { name: name.to_owned(), cluster, control_plane, api, pods })
    }

    /// Runs kubectl and gives what it prints.
    ///
    /// # Errors
    ///
    /// If it fails; the error carries its output.
    pub async fn kubectl(&self, words: &[&str]) -> Result<String> {
        output(self.control_plane.kubectl().args(words)).await
    }

    /// Runs helm, which `TIDEPOOL_HELM` names, on the namespace of the DaemonSet, and gives what it prints.
    ///
    /// # Errors
    ///
    /// If it fails; the error carries its output.
    pub async fn helm(&self, words: &[&str]) -> Result<String> {
        let helm = std::env::var("TIDEPOOL_HELM");
        let helm = helm.context("TIDEPOOL_HELM names no program: run `make test-k8s`")?;
        let mut command = self.control_plane.as_administrator(Path::new(&helm));
        output(command.arg("--namespace=kube-system").args(words)).await
    }

    /// A program on another instance of the VPC, the control plane's.
    #[must_use]
    pub fn outside(&self, program: &str) -> tokio::process::Command {
        self.control_plane.on_its_instance(program)
    }

    /// Starts a program on the host of the outside, with its output in a file of the run.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start_outside(&self, program: &Path, arguments: &[&str], log: &str) -> Result<Process> {
        let netns = format!("{}-outside", self.name);
        let mut command = in_netns(&netns, program);
        Process::start(log, command.args(arguments), &self.file(log))
    }

    /// The addresses by which the outside knows the nodes.
    #[must_use]
    pub fn public_addresses(&self) -> [Ipv4Addr; 2] {
        NODES.map(public_address)
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

/// The address of the pod whose network namespace this is.
async fn address_in(netns: &str) -> Result<String> {
    let mut command = tokio::process::Command::new("nsenter");
    command
        .arg(format!("--net={netns}"))
        .args(["--", "ip", "-j", "address", "show", "dev", "eth0", "scope", "global"]);
    let links: Value = serde_json::from_str(&output(&mut command).await?)?;
    let address = links[0]["addr_info"][0]["local"].as_str();
    Ok(address.context("no address yet")?.to_owned())
}

/// The address by which the outside knows an instance.
const fn public_address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last)
}

/// One VPC with one subnet for instances, the control plane's instance and the nodes. They reach the outside. EC2 is as slow
/// as it is in fact.
fn topology(name: &str, shape: Shape) -> Value {
    let ipv6 = |value: Value| if shape.family == Family::Ipv6 { value } else { Value::Null };
    let instance = |netns: String, last: u8| {
        json!({
            "type": shape.instance_type, "subnet": "nodes", "netns": netns,
            "address": Family::Ipv4.address(last), "ipv6_address": ipv6(json!(Family::Ipv6.address(last))),
            "public_address": public_address(last),
        })
    };
    let mut instances = vec![instance(format!("{name}-cp"), CONTROL_PLANE)];
    let nodes = NODES.into_iter().enumerate();
    instances.extend(nodes.map(|(index, last)| instance(netns_of(name, index), last)));
    let mut subnets = vec![json!({
        "name": "nodes", "az": "us-east-1a", "cidr": "10.0.0.0/20",
        "ipv6_cidr": ipv6(json!("2600:1f13:abc:de00::/64")), "routes": {"0.0.0.0/0": "internet-gateway"},
    })];
    subnets.extend(
        POD_SUBNETS
            .map(|(id, cidr)| json!({"name": id, "id": id, "az": "us-east-1a", "cidr": cidr})),
    );
    let ipv6_cidrs: &[&str] =
        if shape.family == Family::Ipv6 { &["2600:1f13:abc:de00::/56"] } else { &[] };
    json!({
        "region": "us-east-1", "account": "111122223333", "iam_role": "node", "fabric_netns": name,
        "switches": {"throttling": "documented", "latency": "realistic", "consistency": "realistic"},
        "vpcs": [{
            "cidrs": ["10.0.0.0/16", "100.64.0.0/16"], "ipv6_cidrs": ipv6_cidrs, "subnets": subnets,
        }],
        "instances": instances,
    })
}
