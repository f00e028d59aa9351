//! Packets of pods on a real kernel: which ends reach which, as whom, beside the rules of kube-proxy, and what stays in
//! the kernel after settings have changed. Real daemons and plugins, on nodes of the simulator's fabric.

mod counters;
mod kube_proxy;
mod lock;
mod matrix;
mod probe;
mod services;
mod toggles;

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecNode, Pod};
use tests::process::{in_netns, output};
use tests::sim::{OUTSIDE, OUTSIDE_V6};

use crate::probe::Server;

/// So many faults are shown. Each may be a minute's wait for an answer.
const ENOUGH: usize = 3;

/// An end of connections: a network namespace with a server.
#[derive(Debug)]
struct End {
    name: String,
    /// Path of the network namespace.
    netns: String,
    /// Where the others reach it.
    address: IpAddr,
    server: Arc<Server>,
}

impl End {
    fn start(name: &str, netns: &str, address: IpAddr) -> Result<Self> {
        let server = Arc::new(Server::start(netns, name)?);
        Ok(Self { name: name.to_owned(), netns: netns.to_owned(), address, server })
    }

    /// The same end, which the others reach at another of its addresses.
    fn at(&self, address: IpAddr) -> Self {
        let Self { name, netns, address: _, server } = self;
        Self { name: name.clone(), netns: netns.clone(), address, server: Arc::clone(server) }
    }

    fn pod(name: &str, pod: &Pod) -> Result<Self> {
        Self::start(name, &pod.netns, pod.ip.parse()?)
    }

    fn node(name: &str, node: &ExecNode) -> Result<Self> {
        Self::start(name, &netns_path(&node.netns), node.address)
    }

    /// The host outside, of the family of `node`.
    fn outside(spec: &Spec, node: &ExecNode) -> Result<Self> {
        let address = if node.address.is_ipv4() { OUTSIDE } else { OUTSIDE_V6 };
        Self::start("outside", &netns_path(&format!("{}-outside", spec.name)), address)
    }
}

fn netns_path(netns: &str) -> String {
    format!("/run/netns/{netns}")
}

/// The first pod of the node's primary ENI, and the first of another.
async fn pod_on_each_eni(node: &ExecNode, prefix: &str) -> Result<[Pod; 2]> {
    // A t3.small has three addresses for pods on each ENI.
    let pods = node.runtime.run_all(prefix, 4).await?;
    let rules = output(in_netns(&node.netns, "ip").arg("rule")).await?;
    let is_on_secondary = |pod: &&Pod| rules.contains(&format!("from {} lookup", pod.ip));
    let on_secondary = pods.iter().find(is_on_secondary).context("no pod on a secondary ENI")?;
    let on_primary =
        pods.iter().find(|pod| !is_on_secondary(pod)).context("none on the primary")?;
    Ok([on_primary.clone(), on_secondary.clone()])
}

/// Reverse path filtering as strict as nodes' images have it. The daemon loosens it where it must, at its next start.
async fn filter_reverse_paths(node: &mut ExecNode) -> Result<()> {
    let strict = ["net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1"];
    output(in_netns(&node.netns, "sysctl").args(["-q", "-w"]).args(strict)).await?;
    node.stop_ipamd().await?;
    node.start_ipamd().await
}

/// Runs a script of the shell in the node's network namespace.
async fn shell(netns: &str, script: &str) -> Result<String> {
    let run = output(in_netns(netns, "bash").args(["-euo", "pipefail", "-c", script])).await;
    run.with_context(|| format!("run {script:?}"))
}

fn is_empty(faults: &[String], what: &str) -> Result<()> {
    ensure!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
    Ok(())
}
