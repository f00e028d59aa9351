//! Who reaches whom: pods of each ENI, nodes, the metadata service, the outside and a peered VPC, by each protocol and
//! with the largest frames, in each family and in both. Nothing is dropped on the way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use proto::v1::PodView;
use tests::cluster::Spec;
use tests::exec::ExecCluster;
use tests::peers::{self, PEERS};
use tests::sim::OUTSIDE_V6;

use crate::counters::{Drops, drops, grown};
use crate::probe::{Answer, PORT, Protocol, Size, ask, ask_imds, inside, ping};
use crate::{ENOUGH, End, filter_reverse_paths, is_empty, netns_path, pod_on_each_eni};

const IMDS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
const IMDS_V6: &str = "fd00:ec2::254";
/// To the first of [`PEERS`] pods keep their addresses.
const EXCLUDED: (&str, &str) = ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "10.1.1.0/24");

/// One way of the matrix: `from` reaches `to` at `at`, which sees the address `seen`.
#[derive(Clone)]
struct Way<'a> {
    from: &'a End,
    to: &'a End,
    at: IpAddr,
    seen: IpAddr,
}

impl Way<'_> {
    /// Every fault of the way.
    fn faults(&self) -> Vec<String> {
        let wanted = Answer { by: self.to.name.clone(), seen: self.seen };
        let mut outcomes = vec![];
        for size in [Size::Small, Size::Jumbo] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let to = SocketAddr::new(self.at, PORT);
                let asked = ask(&self.from.netns, protocol, to, size).and_then(|answer| {
                    ensure!(answer == wanted, "{protocol:?}: {answer:?}, not {wanted:?}");
                    Ok(())
                });
                outcomes.push(asked);
            }
            outcomes.push(ping(&self.from.netns, self.at, size));
        }
        let faults = outcomes.into_iter().filter_map(Result::err);
        faults.map(|fault| format!("{} to {}: {fault:#}", self.from.name, self.to.name)).collect()
    }
}

/// To its own address, seen with its own address.
fn plain<'a>(from: &'a End, to: &'a End) -> Way<'a> {
    Way { from, to, at: to.address, seen: from.address }
}

/// Every way between two of `ends`.
fn among(ends: &[End]) -> impl Iterator<Item = Way<'_>> {
    let pairs = ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to)));
    pairs.filter(|(from, to)| from.name != to.name).map(|(from, to)| plain(from, to))
}

/// Tries all ways, and each of `to_imds` to the metadata service at `imds`. No end has dropped anything afterwards.
fn all_pass(ways: &[Way], to_imds: &[&End], imds: IpAddr) -> Result<()> {
    let before = counts(ways)?;
    let mut faults: Vec<_> = ways.iter().flat_map(Way::faults).take(ENOUGH).collect();
    for end in to_imds {
        if let Err(fault) = ask_imds(&end.netns, imds) {
            faults.push(format!("{} to the metadata service: {fault:#}", end.name));
        }
    }
    is_empty(&faults, &format!("of {} ways some do not pass", ways.len()))?;
    let after = counts(ways)?;
    let dropped = before.iter().zip(&after).flat_map(|((name, before), (_, after))| {
        grown(before, after).into_iter().map(move |counter| format!("{name}: {counter}"))
    });
    is_empty(&dropped.collect::<Vec<_>>(), "packets were dropped")
}

/// The drops of each end from which a way begins.
fn counts(ways: &[Way]) -> Result<Vec<(String, Drops)>> {
    let mut all: Vec<(String, Drops)> = vec![];
    for Way { from, .. } in ways {
        if all.iter().all(|(name, _)| *name != from.name) {
            all.push((from.name.clone(), drops(&from.netns)?));
        }
    }
    Ok(all)
}

/// The ends of a cluster with [`EXCLUDED`] ranges and peers, in IPv4.
struct Ends {
    /// Of each node the two pods of [`pod_on_each_eni`], then the node itself.
    near: Vec<End>,
    /// The nodes' public addresses.
    public: Vec<IpAddr>,
    outside: End,
    excluded: End,
    peered: End,
}

/// How many of [`Ends::near`] a node has.
const OF_NODE: usize = 3;

impl Ends {
    /// Starts the pods, on nodes that filter reverse paths.
    async fn start(cluster: &mut ExecCluster, of: &Spec) -> Result<Self> {
        let mut near = vec![];
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            filter_reverse_paths(node).await?;
            let [primary, secondary] = pod_on_each_eni(node, &format!("p{index}")).await?;
            near.push(End::pod(&format!("pod-of-primary-{index}"), &primary)?);
            near.push(End::pod(&format!("pod-of-secondary-{index}"), &secondary)?);
            near.push(End::node(&format!("node-{index}"), node)?);
        }
        let public = (0..cluster.nodes.len()).map(|index| {
            of.public_address(index).map(IpAddr::V4).context("a node without a public address")
        });
        let peer = |index: usize, name| {
            let netns = netns_path(&peers::netns(&of.name, index));
            End::start(name, &netns, PEERS[index].into())
        };
        Ok(Self {
            near,
            public: public.collect::<Result<_>>()?,
            outside: End::outside(of, &cluster.nodes[0])?,
            excluded: peer(0, "excluded")?,
            peered: peer(1, "peered")?,
        })
    }

    fn ways(&self) -> Vec<Way<'_>> {
        let Self { near, public, outside, excluded, peered } = self;
        let mut ways: Vec<_> = among(near).collect();
        for (of_node, public) in near.chunks(OF_NODE).zip(public) {
            let node = &of_node[OF_NODE - 1];
            for end in of_node {
                ways.push(plain(end, excluded));
                ways.push(Way { seen: node.address, ..plain(end, peered) });
                ways.push(Way { seen: *public, ..plain(end, outside) });
                ways.push(plain(excluded, end));
                ways.push(plain(peered, end));
            }
            ways.push(Way { at: *public, ..plain(outside, node) });
        }
        ways
    }
}

/// Every way between ends of IPv6, and between each and `outside`. Nothing is translated.
fn ways_of_ipv6<'a>(ends: &'a [End], outside: &'a End) -> Vec<Way<'a>> {
    let beyond = ends.iter().flat_map(|end| [plain(end, outside), plain(outside, end)]);
    among(ends).chain(beyond).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_ipv4_passes_and_nothing_is_dropped() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), EXCLUDED];
    let spec =
        Spec { outside: true, peered: true, ..Spec::new("dmatrix", "t3.small", 2, &settings) };
    let of = spec.clone();
    ExecCluster::with(spec, async |cluster| {
        let ends = Ends::start(cluster, &of).await?;
        let to_imds: Vec<_> = ends.near.iter().collect();
        tokio::task::block_in_place(|| all_pass(&ends.ways(), &to_imds, IMDS))?;

        // The same pods, now that something else translates them.
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        node.configure(&[("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true")]);
        node.start_ipamd().await?;
        let ends_of_node = &ends.near[..OF_NODE];
        let ways: Vec<_> = ends_of_node.iter().map(|end| plain(end, &ends.peered)).collect();
        tokio::task::block_in_place(|| all_pass(&ways, &[], IMDS))?;
        counters_show_a_martian(&ends.near[0], &ends.near[2])
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_ipv6_passes_and_nothing_is_dropped() -> Result<()> {
    let spec = Spec::ipv6("dmatrix6", "t3.small", 2, &[]);
    let spec = Spec { outside: true, ipv6_only: true, ..spec };
    let of = spec.clone();
    ExecCluster::with(spec, async |cluster| {
        let mut ends = vec![];
        for (index, node) in cluster.nodes.iter().enumerate() {
            let pods = node.runtime.run_all(&format!("p{index}"), 2).await?;
            for (pod, name) in pods.iter().zip(["pod", "neighbour"]) {
                ends.push(End::pod(&format!("{name}-{index}"), pod)?);
            }
            ends.push(End::node(&format!("node-{index}"), node)?);
        }
        let outside = End::outside(&of, &cluster.nodes[0])?;
        let to_imds: Vec<_> = ends.iter().collect();
        let imds = IMDS_V6.parse()?;
        tokio::task::block_in_place(|| all_pass(&ways_of_ipv6(&ends, &outside), &to_imds, imds))
    })
    .await
}

/// One pod, one link, and in each family the ways of a pod that has it alone.
#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_both_families_passes_and_nothing_is_dropped() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), EXCLUDED];
    let spec = Spec::dual("dmatrixd", "t3.small", 2, &settings);
    let spec = Spec { outside: true, peered: true, ..spec };
    let of = spec.clone();
    ExecCluster::with(spec, async |cluster| {
        let ends = Ends::start(cluster, &of).await?;
        let mut in_ipv6 = vec![];
        for (node, of_node) in cluster.nodes.iter().zip(ends.near.chunks(OF_NODE)) {
            let pods = node.view().await?.pods;
            for end in &of_node[..OF_NODE - 1] {
                in_ipv6.push(end.at(second_address(&pods, end)?));
            }
            let node = node.ipv6_address.context("a node without IPv6")?;
            in_ipv6.push(of_node[OF_NODE - 1].at(node.into()));
        }
        let outside = ends.outside.at(OUTSIDE_V6);
        let ways = [ends.ways(), ways_of_ipv6(&in_ipv6, &outside)].concat();
        let to_imds: Vec<_> = ends.near.iter().collect();
        tokio::task::block_in_place(|| all_pass(&ways, &to_imds, IMDS))
    })
    .await
}

/// The IPv6 address of a pod that its IPv4 address identifies.
fn second_address(pods: &[PodView], end: &End) -> Result<IpAddr> {
    let ipv4 = end.address.to_string();
    let is_its = |pod: &&PodView| pod.address.as_ref().is_some_and(|it| it.address == ipv4);
    let pod = pods.iter().find(is_its).with_context(|| format!("no pod has {ipv4}"))?;
    let second = pod.second_address.as_ref().context("a pod without a second address")?;
    let second: IpAddr = second.address.parse()?;
    ensure!(second.is_ipv6(), "{ipv4} and {second} are of one family");
    Ok(second)
}

/// A packet with a source that the node would not answer there is dropped and counted. So the counters can fail.
fn counters_show_a_martian(pod: &End, node: &End) -> Result<()> {
    let before = drops(&node.netns)?;
    let address = "198.18.0.1";
    inside(&pod.netns, || {
        let added = Command::new("ip").args(["address", "add", address, "dev", "eth0"]).status()?;
        ensure!(added.success(), "the address was not added");
        let to = node.address.to_string();
        let ping = Command::new("ping").args(["-c1", "-W1", "-I", address, &to]).output()?;
        ensure!(!ping.status.success(), "{address} was answered");
        Ok(())
    })?;
    let grown = grown(&before, &drops(&node.netns)?);
    ensure!(grown.iter().any(|name| name.contains("IPReversePathFilter")), "{grown:?}");
    Ok(())
}
