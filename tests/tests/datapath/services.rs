//! Services and node ports beside kube-proxy in each of its modes, whoever starts first, with pods on each ENI.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually};

use crate::kube_proxy::{self, Mode, PODS, Service, forget_all};
use crate::probe::{Protocol, Size, ask};
use crate::{ENOUGH, End, filter_reverse_paths, is_empty, pod_on_each_eni, shell};

/// After so many connections that are spread at random, one of three pods is left out once in 10^17 times.
const MANY: usize = 100;
const REPAIRS: &str = r#"tidepool_host_network_repairs_total{part="nat"}"#;

/// The ends of a cluster with two nodes.
struct Ends {
    /// In the order of [`PODS`].
    pods: [End; 3],
    nodes: [End; 2],
    /// All addresses of each node, those of its secondary ENIs too.
    of_nodes: [BTreeSet<IpAddr>; 2],
    outside: End,
    /// The addresses of the nodes that the outside reaches.
    public: [IpAddr; 2],
}

/// `from` asks at `at` and is answered by a pod, which sees one of the addresses `seen`.
struct Question<'a> {
    from: &'a End,
    at: SocketAddr,
    pod: usize,
    seen: BTreeSet<IpAddr>,
}

impl Question<'_> {
    /// Asks by TCP and by UDP.
    fn faults(&self) -> impl Iterator<Item = String> {
        let Self { from, at, pod, seen } = self;
        [Protocol::Tcp, Protocol::Udp].into_iter().filter_map(move |protocol| {
            let asked = ask(&from.netns, protocol, *at, Size::Small).and_then(|answer| {
                let is_it = answer.by == PODS[*pod] && seen.contains(&answer.seen);
                ensure!(is_it, "{at} {protocol:?}: {answer:?}, not {} {seen:?}", PODS[*pod]);
                Ok(())
            });
            asked.err().map(|fault| format!("{}: {fault:#}", from.name))
        })
    }
}

/// The pod sees the client itself.
fn plain(from: &End, at: SocketAddr, pod: usize) -> Question<'_> {
    Question { from, at, pod, seen: BTreeSet::from([from.address]) }
}

impl Ends {
    fn addresses(&self) -> [IpAddr; 3] {
        [0, 1, 2].map(|pod: usize| self.pods[pod].address)
    }

    /// The node of a pod.
    fn node_of(&self, pod: usize) -> usize {
        pod / 2
    }

    /// To the node ports of each pod, from each end at which they must be answered.
    fn node_ports(&self) -> Vec<Question<'_>> {
        let mut all = vec![];
        for pod in 0..PODS.len() {
            for (index, node) in self.nodes.iter().enumerate() {
                let at = Service::Cluster(pod).node_port(node.address);
                let public = Service::Cluster(pod).node_port(self.public[index]);
                // The node that takes the packet puts in the address of the ENI by which it leaves.
                let seen = &self.of_nodes[index];
                let by_node = |from, at| Question { from, at, pod, seen: seen.clone() };
                all.push(by_node(&self.outside, public));
                let inside = self.nodes.iter().chain(&self.pods);
                all.extend(inside.map(|from| by_node(from, at)));
            }
            let index = self.node_of(pod);
            let at = Service::Local(pod).node_port(self.nodes[index].address);
            let public = Service::Local(pod).node_port(self.public[index]);
            all.push(plain(&self.outside, public, pod));
            let others = [&self.nodes[1 - index], &self.pods[if index == 0 { 2 } else { 0 }]];
            all.extend(others.map(|from| plain(from, at, pod)));
        }
        all
    }

    /// To the cluster address of each pod, from each end of the cluster. A pod that asks itself sees its node.
    fn cluster_addresses(&self) -> Result<Vec<Question<'_>>> {
        let mut all = vec![];
        for pod in 0..PODS.len() {
            let at = Service::Cluster(pod).address(self.pods[pod].address)?;
            for (index, from) in self.pods.iter().enumerate() {
                let mut question = plain(from, at, pod);
                if index == pod {
                    question.seen.clone_from(&self.of_nodes[self.node_of(index)]);
                }
                all.push(question);
            }
            all.extend(self.nodes.iter().map(|from| plain(from, at, pod)));
        }
        Ok(all)
    }

    /// Asks everything.
    fn all_answered(&self) -> Result<()> {
        let mut questions = self.node_ports();
        questions.extend(self.cluster_addresses()?);
        let faults: Vec<_> = questions.iter().flat_map(Question::faults).take(ENOUGH).collect();
        is_empty(&faults, &format!("of {} questions some are not answered", questions.len()))?;
        for from in &self.pods {
            self.spread(from)?;
        }
        Ok(())
    }

    /// A Service leads to each of its pods, with session affinity to one for each client.
    fn spread(&self, from: &End) -> Result<()> {
        let answerers = |service: Service, n: usize| -> Result<BTreeSet<String>> {
            let at = service.address(from.address)?;
            let mut names = BTreeSet::new();
            for _ in 0..n {
                names.insert(ask(&from.netns, Protocol::Tcp, at, Size::Small)?.by);
                if names.len() == PODS.len() {
                    break;
                }
            }
            Ok(names)
        };
        let all = answerers(Service::All, MANY)?;
        ensure!(all.len() == PODS.len(), "{} reaches only {all:?}", from.name);
        let one = answerers(Service::Sticky, 8)?;
        ensure!(one.len() == 1, "{} reaches {one:?} in spite of affinity", from.name);
        Ok(())
    }
}

/// Who starts first on a node.
#[derive(Debug, Clone, Copy)]
enum First {
    KubeProxy,
    Daemon,
}

/// Both start on both nodes, which have no rules of either.
async fn start(
    cluster: &mut ExecCluster,
    mode: Mode,
    first: First,
    pods: &[IpAddr; 3],
) -> Result<()> {
    for (index, node) in cluster.nodes.iter_mut().enumerate() {
        node.stop_ipamd().await?;
        forget_all(node).await?;
        match first {
            First::KubeProxy => {
                kube_proxy::write(node, index, mode, pods).await?;
                node.start_ipamd().await?;
            }
            First::Daemon => {
                node.start_ipamd().await?;
                kube_proxy::write(node, index, mode, pods).await?;
            }
        }
    }
    Ok(())
}

/// Everything is answered in each of `modes`, and again after other programs have replaced or removed rules.
async fn all_modes(cluster: &mut ExecCluster, ends: &Ends, modes: &[Mode]) -> Result<()> {
    let pods = ends.addresses();
    for mode in modes.iter().copied() {
        for first in [First::KubeProxy, First::Daemon] {
            start(cluster, mode, first, &pods).await?;
            let answered = tokio::task::block_in_place(|| ends.all_answered());
            answered.map_err(|fault| fault.context(format!("{mode:?}, first {first:?}")))?;
        }
        for (index, node) in cluster.nodes.iter().enumerate() {
            shell(&node.netns, "nft flush ruleset").await?;
            kube_proxy::write(node, index, mode, &pods).await?;
        }
        let answered = eventually("answers after `nft flush ruleset`", PATIENCE, async || {
            tokio::task::block_in_place(|| ends.all_answered())
        });
        answered.await.map_err(|fault| fault.context(format!("{mode:?}")))?;
    }
    Ok(())
}

/// The addresses of a node that others can answer.
async fn addresses(node: &ExecNode) -> Result<BTreeSet<IpAddr>> {
    let list = shell(&node.netns, "ip -o address show scope global").await?;
    let words = list.lines().filter_map(|line| line.split_whitespace().nth(3));
    let parse = |word: &str| Ok(word.split('/').next().unwrap_or_default().parse()?);
    words.map(parse).collect()
}

fn spec(name: &str) -> Spec {
    let settings = [("WARM_IP_TARGET", "1")];
    Spec { outside: true, ..Spec::new(name, "t3.small", 2, &settings) }
}

async fn ends_of_ipv4(cluster: &mut ExecCluster, of: &Spec) -> Result<Ends> {
    for node in &mut cluster.nodes {
        filter_reverse_paths(node).await?;
    }
    let [here, there] = &cluster.nodes[..] else { anyhow::bail!("not two nodes") };
    let [one, two] = pod_on_each_eni(here, "here").await?;
    let [_, three] = pod_on_each_eni(there, "there").await?;
    let public = [0, 1].map(|index| of.public_address(index).map(IpAddr::V4));
    let [Some(first), Some(second)] = public else { anyhow::bail!("no public addresses") };
    Ok(Ends {
        pods: [End::pod(PODS[0], &one)?, End::pod(PODS[1], &two)?, End::pod(PODS[2], &three)?],
        nodes: [End::node("node-0", here)?, End::node("node-1", there)?],
        of_nodes: [addresses(here).await?, addresses(there).await?],
        outside: End::outside(of, here)?,
        public: [first, second],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn services_answer_beside_kube_proxy_in_nftables_mode() -> Result<()> {
    let spec = spec("dnft");
    let of = spec.clone();
    ExecCluster::with(spec, async |cluster| {
        let ends = ends_of_ipv4(cluster, &of).await?;
        all_modes(cluster, &ends, &[Mode::Nftables, Mode::NftablesBesideLegacy]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_answer_beside_kube_proxy_in_iptables_mode() -> Result<()> {
    let spec = spec("dipt");
    let of = spec.clone();
    ExecCluster::with(spec, async |cluster| {
        let ends = ends_of_ipv4(cluster, &of).await?;
        all_modes(cluster, &ends, &[Mode::IptablesNft, Mode::IptablesLegacy]).await?;
        let before = cluster.nodes[0].scrape().await?.remove(REPAIRS);
        // A program that restores what it had saved takes nothing of ours.
        for command in ["iptables-nft", "iptables-legacy"] {
            for node in &cluster.nodes {
                shell(&node.netns, &format!("{command}-save | {command}-restore -w")).await?;
            }
        }
        tokio::task::block_in_place(|| ends.all_answered())?;
        let after = cluster.nodes[0].scrape().await?.remove(REPAIRS);
        ensure!(before == after, "{before:?} repairs became {after:?}");
        Ok(())
    })
    .await
}

/// The kernel's IPVS asks for a route without the packet's source. The packet of a pod of a secondary ENI leaves by its
/// ENI nevertheless.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with ip_vs: make test-guest"]
async fn services_answer_beside_kube_proxy_in_ipvs_mode() -> Result<()> {
    let spec = spec("dvs");
    let of = spec.clone();
    ExecCluster::with(spec, async |cluster| {
        let ends = ends_of_ipv4(cluster, &of).await?;
        all_modes(cluster, &ends, &[Mode::Ipvs]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_answer_pods_on_ipv6_in_each_mode() -> Result<()> {
    let spec = Spec::ipv6("dsvc6", "t3.small", 2, &[]);
    let spec = Spec { outside: true, ipv6_only: true, ..spec };
    let of = spec.clone();
    ExecCluster::with(spec, async |cluster| {
        let [here, there] = &cluster.nodes[..] else { anyhow::bail!("not two nodes") };
        let (pods, others) = (here.runtime.run_all("h", 2).await?, there.runtime.run("t").await?);
        let ends = Ends {
            pods: [
                End::pod(PODS[0], &pods[0])?,
                End::pod(PODS[1], &pods[1])?,
                End::pod(PODS[2], &others)?,
            ],
            nodes: [End::node("node-0", here)?, End::node("node-1", there)?],
            of_nodes: [addresses(here).await?, addresses(there).await?],
            outside: End::outside(&of, here)?,
            public: [here.address, there.address],
        };
        let modes = [Mode::Nftables, Mode::IptablesNft, Mode::IptablesLegacy];
        all_modes(cluster, &ends, &modes).await
    })
    .await
}
