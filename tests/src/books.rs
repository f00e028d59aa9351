//! Checks that the daemon's record, the node's kernel and EC2 agree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use proto::v1::{PodAddress, PodView, ViewReply};
use serde_json::Value;
use tokio::process::Command;

use crate::cluster::{ClusterOf, NodeOf};
use crate::process::{PATIENCE, eventually, in_netns, output};

impl<R> ClusterOf<R> {
    /// Waits until the books agree: each ENI at EC2 is on a node, but for those in `others`; each
    /// node's daemon knows exactly the addresses that EC2 has put on its ENIs; each pod has one of
    /// them, no two the same, and exactly these have a route in the kernel, to a veth of their own.
    ///
    /// # Errors
    ///
    /// The first disagreement that does not pass.
    pub async fn books_agree(&self, others: &[String]) -> Result<()> {
        eventually("agreement of record, kernel and EC2", PATIENCE, || self.compare(others)).await
    }

    async fn compare(&self, others: &[String]) -> Result<()> {
        let network = self.sim.network().await?;
        let instances = network["instances"].as_array().context("a network without instances")?;
        let attached: BTreeSet<_> = instances.iter().flat_map(|i| ids(&i["enis"])).collect();
        let all: BTreeSet<_> =
            self.sim.enis().await?.into_iter().filter(|eni| !others.contains(eni)).collect();
        ensure!(all == attached, "ENIs at EC2: {all:?}, on nodes: {attached:?}");
        let mut addresses = BTreeSet::new();
        for node in &self.nodes {
            let at_ec2 = instances.iter().find(|instance| is(instance, node));
            let view = node.view().await?;
            compare_with_ec2(&view, at_ec2.context("a node that EC2 does not know")?)?;
            for ip in compare_with_kernel(&view, node).await? {
                ensure!(addresses.insert(ip.clone()), "{ip} is two pods'");
            }
        }
        Ok(())
    }
}

fn is<R>(instance: &Value, node: &NodeOf<R>) -> bool {
    let primary = instance["enis"].as_array().into_iter().flatten();
    let address = node.address.to_string();
    primary.filter(|eni| eni["is_primary"] == true).any(|eni| {
        let ipv6 = eni["ipv6_addresses"].as_array().into_iter().flatten();
        eni["primary"] == address || ipv6.into_iter().any(|one| *one == address)
    })
}

fn ids(enis: &Value) -> Vec<String> {
    let ids = enis.as_array().into_iter().flatten().filter_map(|eni| eni["id"].as_str());
    ids.map(str::to_owned).collect()
}

/// The daemon's ENIs with their blocks are EC2's, and each pod's address is on its ENI.
fn compare_with_ec2(view: &ViewReply, instance: &Value) -> Result<()> {
    let ours = view.enis.iter().map(|eni| {
        let blocks = eni.blocks.iter().map(|block| &block.cidr);
        let blocks = blocks.chain(&eni.delegated).cloned();
        (eni.id.clone(), blocks.collect())
    });
    let ours: BTreeMap<String, BTreeSet<String>> = ours.collect();
    let enis = instance["enis"].as_array().context("an instance without ENIs")?;
    let theirs =
        enis.iter().map(|eni| (eni["id"].as_str().unwrap_or_default().to_owned(), blocks(eni)));
    let theirs: BTreeMap<_, _> = theirs.collect();
    ensure!(ours == theirs, "the daemon's ENIs: {ours:?}, EC2's: {theirs:?}");
    for address in view.pods.iter().flat_map(addresses) {
        let blocks = theirs.get(&address.eni).context("a pod on an unknown ENI")?;
        let ip: IpAddr = address.address.parse().context("a pod's address")?;
        let mut blocks = blocks.iter().map(|block| block.parse::<IpNet>());
        let found = blocks.any(|block| block.is_ok_and(|block| block.contains(&ip)));
        ensure!(found, "a pod has {}, which {} has not", address.address, address.eni);
    }
    Ok(())
}

/// The pod's addresses: one, or one of each family.
pub fn addresses(pod: &PodView) -> impl Iterator<Item = &PodAddress> {
    pod.address.iter().chain(&pod.second_address)
}

/// All that is for pods; the ENI's single IPv6 addresses are the node's own.
fn blocks(eni: &Value) -> BTreeSet<String> {
    let of = |key: &str| eni[key].as_array().cloned().unwrap_or_default().into_iter();
    let text = |block: Value| block.as_str().map(str::to_owned);
    let secondaries = of("secondaries").filter_map(text).map(|address| address + "/32");
    secondaries.chain(of("prefixes").chain(of("ipv6_prefixes")).filter_map(text)).collect()
}

/// The pods' addresses of the VPC in the daemon's view. The kernel has routes for exactly these and the node-local ones.
async fn compare_with_kernel<R>(view: &ViewReply, node: &NodeOf<R>) -> Result<BTreeSet<String>> {
    let recorded = view.pods.iter().flat_map(addresses);
    let recorded: Vec<_> = recorded.map(|address| address.address.clone()).collect();
    let mut routes = ip(node, &["-j", "-4", "route", "show", "table", "main"]).await?;
    routes.extend(ip(node, &["-j", "-6", "route", "show", "table", "main"]).await?);
    // The kernel's own is the one to link-local addresses.
    let to_pods =
        routes.iter().filter(|route| is_veth(&route["dev"]) && route["protocol"] != "kernel");
    let routed: Vec<_> = to_pods.filter_map(|route| route["dst"].as_str()).collect();
    let links = ip(node, &["-j", "link", "show", "type", "veth"]).await?;
    let is_pods = |link: &&Value| is_veth(&link["ifname"]) && link["group"] != RETIRED;
    let n_links = links.iter().filter(is_pods).count();
    let unique: BTreeSet<String> = recorded.iter().cloned().collect();
    ensure!(unique.len() == recorded.len(), "an address twice on record: {recorded:?}");
    let local = view.pods.iter().map(|pod| pod.node_local.clone()).filter(|ip| !ip.is_empty());
    let local: Vec<_> = local.collect();
    let all: BTreeSet<String> = unique.iter().chain(&local).cloned().collect();
    ensure!(all.len() == unique.len() + local.len(), "an address twice on record: {local:?}");
    let in_kernel: BTreeSet<String> = routed.iter().map(|&ip| ip.to_owned()).collect();
    ensure!(all == in_kernel, "on record: {all:?}, in the kernel: {in_kernel:?}");
    ensure!(n_links == view.pods.len(), "{n_links} veths for {} pods", view.pods.len());
    Ok(unique)
}

/// The group of links that wait for removal, as `ip` prints it.
pub const RETIRED: &str = "1414087749";

/// The host's end of a pod's link, not the device of an ENI.
fn is_veth(name: &Value) -> bool {
    name.as_str().is_some_and(|name| name.starts_with("eni"))
}

async fn ip<R>(node: &NodeOf<R>, words: &[&str]) -> Result<Vec<Value>> {
    let text = output(in_netns(&node.netns, "ip").args(words)).await?;
    serde_json::from_str(&text).with_context(|| format!("read what ip {words:?} prints"))
}

/// What the kernel of a network namespace, given by path, has for pods: links, addresses, rules, routes
/// and lasting neighbours. Links that wait for removal are left out.
///
/// # Errors
///
/// If it cannot be asked.
pub async fn kernel(netns: &str) -> Result<String> {
    let mut dump = String::new();
    for words in [
        "-o link",
        "-o -4 address",
        "-4 rule",
        "-4 route show table all",
        "neighbour show nud permanent",
    ] {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={netns}")).args(["--", "ip"]).args(words.split(' '));
        let printed = output(&mut command).await?;
        let stays = |line: &&str| !line.contains(&format!(" group {RETIRED} "));
        printed.lines().filter(stays).for_each(|line| dump.extend([line, "\n"]));
    }
    Ok(dump)
}
