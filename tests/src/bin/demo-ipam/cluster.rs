//! Steps 3 and 4: a cluster fills its subnet, and goes on in a range that a planner adds.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use tests::cluster::{Cluster, Machine, Node, NodeSpec};
use tests::containerd::Sandbox;
use tests::process::{PATIENCE, eventually, in_netns, output};
use tests::sim::element;
use tests::story::Story;

use crate::organization::{HOME, Organization, SHOP, Tags};
use crate::plan::Pools;
use crate::space::Vpc;

/// Nodes of the cluster.
const NODES: usize = 2;
/// A small warm pool, so that the nodes share the small subnet evenly.
const SETTINGS: [(&str, &str); 2] = [("WARM_IP_TARGET", "1"), ("MINIMUM_IP_TARGET", "1")];
/// More pods than the subnet has addresses.
const MOST_PODS: usize = 11;
/// The range that the pool gives to the VPC, and the subnet in it.
const RANGE: &str = "10.0.1.0/24";
const SUBNET: &str = "10.0.1.0/25";

/// Starts the instances.
pub(crate) async fn launch(
    organization: &Organization<'_>,
    name: &str,
    vpc: &Vpc,
) -> Result<Vec<Machine>> {
    let story = organization.story;
    story.act("3. two t3.small in the first subnet, an ipamd and a containerd on each");
    let mut machines = vec![];
    for index in 0..NODES {
        let parameters = [
            ("ImageId", "ami-0123456789abcdef0"),
            ("InstanceType", "t3.small"),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("SubnetId", vpc.subnet.as_str()),
            ("IamInstanceProfile.Name", "node"),
        ];
        let tags = Tags { of: "instance", tags: &[("kubernetes.io/cluster/shop", "owned")] };
        let run = organization.call_with(SHOP, HOME, "RunInstances", &parameters, tags).await?;
        let instance = element(&run, "instanceId")?;
        let address: IpAddr = element(&run, "privateIpAddress")?.parse().context("an address")?;
        let netns = format!("{name}-n{index}");
        organization.sim.place(&instance, &netns).await?;
        story.good(&format!("{instance} at {address}"));
        machines.push(Machine { netns, address, ipv6_address: None });
    }
    Ok(machines)
}

/// Makes nodes of the instances.
pub(crate) async fn make_nodes(
    story: &Story,
    cluster: &mut Cluster,
    machines: Vec<Machine>,
) -> Result<()> {
    let settings = SETTINGS.map(|(name, value)| (name, value.to_owned()));
    let settings = BTreeMap::from(settings);
    let spec = NodeSpec { instance_type: "t3.small", settings, build: None };
    for machine in machines {
        cluster.add_node(machine, &spec).await?;
    }
    story.good("both nodes would serve a pod");
    Ok(())
}

/// Starts pods until one is refused, adds a subnet as a planner does, and checks that the pod starts. Gives the number of pods.
pub(crate) async fn fill_and_grow(
    organization: &Organization<'_>,
    pools: &Pools,
    vpc: &Vpc,
    nodes: &[Node],
) -> Result<usize> {
    let story = organization.story;
    story.act("pods, one after the other, until the subnet is full");
    let mut pods: Vec<Sandbox> = vec![];
    let (node, name, refusal) = loop {
        ensure!(pods.len() < MOST_PODS, "the subnet is never full");
        let node = &nodes[pods.len() % nodes.len()];
        let name = format!("web-{}", pods.len());
        match node.runtime.run("default", &name).await {
            Ok(pod) => {
                story.good(&format!("{:<6} {:<10} on {}", pod.name, pod.ip, node.address));
                pods.push(pod);
            }
            Err(refusal) => break (node, name, format!("{refusal:#}")),
        }
    };
    story.bad(&refusal);
    ensure!(refusal.contains("SUBNET_EXHAUSTED"), "it is refused for another reason");
    let pod = format!("default/{name}");
    story.note(&format!("$ ipamd why {pod}"));
    let (_, why, _) = node.ipamd(&["why", &pod]).await?;
    ensure!(why.contains("SUBNET_EXHAUSTED"), "{why}");
    println!("{why}");
    let daemon = node.ipamd_pid()?;
    ensure!(!translation(node).await?.contains(RANGE), "{RANGE} is known before it is there");

    grow(organization, pools, vpc).await?;
    let start = Instant::now();
    // As the kubelet does, which makes a sandbox again and again.
    let started = eventually("address in the new subnet", PATIENCE, async || {
        node.runtime.run("default", &name).await
    });
    let started = started.await?;
    let took = start.elapsed().as_secs_f64();
    let (address, subnet) = (started.ip.parse::<Ipv4Addr>()?, SUBNET.parse::<Ipv4Net>()?);
    ensure!(subnet.contains(&address), "{address} is not of {subnet}");
    ensure!(node.ipamd_pid()? == daemon, "the daemon has been restarted");
    story.good(&format!("{pod} has {address} after {took:.1} s, without a restart"));
    for other in &pods {
        Node::ping(&started.netns, &other.ip).await.with_context(|| other.name.clone())?;
        Node::ping(&other.netns, &started.ip).await.with_context(|| other.name.clone())?;
    }
    story.good(&format!("it and all {} others reach each other, across nodes too", pods.len()));
    story.note("the daemons ask the metadata service for the VPC's ranges twice a minute");
    for node in nodes {
        eventually("new range in the node's translation", PATIENCE, async || {
            let table = translation(node).await?;
            ensure!(table.contains(RANGE), "{table}");
            Ok(())
        })
        .await?;
    }
    story.good(&format!("both nodes leave packets to {RANGE} untranslated, as of their VPC"));
    println!("{}", node.status().await?);
    Ok(pods.len() + 1)
}

/// The table by which the node translates packets out of its VPC.
async fn translation(node: &Node) -> Result<String> {
    output(in_netns(&node.netns, "nft").args(["list", "table", "ip", "tidepool"])).await
}

/// What a planner does: a range from the pool, and a subnet that the daemons look for.
async fn grow(organization: &Organization<'_>, pools: &Pools, vpc: &Vpc) -> Result<()> {
    let story = organization.story;
    story.act("4. growth by hand: a range from the pool, and in it a subnet with the tag that the daemons look for");
    let parameters =
        [("VpcId", vpc.id.as_str()), ("Ipv4IpamPoolId", &pools.home), ("Ipv4NetmaskLength", "24")];
    organization.call(SHOP, HOME, "AssociateVpcCidrBlock", &parameters).await?;
    let described = [("VpcId.1", vpc.id.as_str())];
    let vpcs = organization.call(SHOP, HOME, "DescribeVpcs", &described).await?;
    ensure!(vpcs.contains(RANGE), "{vpcs}");
    story.good(&format!("{} has {RANGE} too", vpc.id));
    let parameters =
        [("VpcId", vpc.id.as_str()), ("AvailabilityZone", "us-east-1a"), ("CidrBlock", SUBNET)];
    let tags = Tags { of: "subnet", tags: &[("kubernetes.io/role/cni", "1")] };
    let made = organization.call_with(SHOP, HOME, "CreateSubnet", &parameters, tags).await?;
    story.good(&format!("{} {SUBNET}", element(&made, "subnetId")?));
    Ok(())
}
