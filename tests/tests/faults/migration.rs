//! A node moves over from amazon-vpc-cni-k8s with running pods, and back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use proto::v1::BlockView;
use serde_json::{Value, json};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually, in_netns, output, program};
use tokio::process::Command;

use crate::all_reachable;

/// The names of the links of `default/old-a` and `default/old-b`: `eni` and the first 11 digits of
/// SHA-1 over `default.old-a` and `default.old-b`.
const HOSTS: [&str; 2] = ["eni19a87bfed62", "eni45c7a20aeee"];
/// Nanoseconds since the epoch, in the whole milliseconds that our record keeps.
const SINCE: i64 = 1_718_000_000_123_000_000;

/// An address that EC2 has put on the node, and the route table of its ENI.
#[derive(Debug, Clone)]
struct Spare {
    ip: String,
    table: u32,
}

fn checkpoint(node: &ExecNode) -> PathBuf {
    node.socket().with_file_name("ipam.json")
}

/// The same node before it ever had a daemon of ours, with its ENIs and their addresses.
async fn before_us(node: &mut ExecNode) -> Result<Vec<Spare>> {
    let spares = eventually("addresses on two ENIs", PATIENCE, async || {
        let view = node.view().await?;
        let blocks = view.enis.iter().flat_map(|eni| eni.blocks.iter().map(|b| (eni.table, b)));
        let spare = |(table, block): (u32, &BlockView)| Spare {
            ip: block.cidr.trim_end_matches("/32").to_owned(),
            table,
        };
        let spares: Vec<_> = blocks.map(spare).collect();
        ensure!(spares.len() >= 12 && view.in_flight.is_empty(), "only {spares:?}");
        Ok(spares)
    })
    .await?;
    node.stop_ipamd().await?;
    let directory = node.socket().parent().context("a socket without a directory")?.to_owned();
    for entry in std::fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tidepool")) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(spares)
}

async fn ip(netns: &str, words: &str) -> Result<()> {
    let netns = netns.trim_start_matches("/run/netns/");
    output(in_netns(netns, "ip").args(words.split(' '))).await.map(|_| ())
}

/// Connects a pod as the incumbent does.
async fn connect(node: &ExecNode, name: &str, host: &str, spare: &Spare) -> Result<Pod> {
    let Spare { ip: address, table } = spare;
    let mut pod = node.runtime.pod(name).await?;
    pod.ip.clone_from(address);
    let inside = pod.netns.trim_start_matches("/run/netns/");
    let mac = format!("0e:00:00:00:{table:02x}:01");
    let peer = format!("peer name eth0 netns {inside} mtu 9001");
    ip(&node.netns, &format!("link add {host} mtu 9001 address {mac} type veth {peer}")).await?;
    ip(&node.netns, &format!("link set {host} up")).await?;
    for words in [
        "link set lo up",
        "link set eth0 up",
        "route replace 169.254.1.1/32 dev eth0 scope link",
        "route add default via 169.254.1.1 dev eth0",
        &format!("addr add {address}/32 dev eth0"),
        &format!("neigh replace 169.254.1.1 lladdr {mac} dev eth0 nud permanent"),
    ] {
        ip(inside, words).await?;
    }
    ip(&node.netns, &format!("route replace {address} dev {host} scope link")).await?;
    ip(&node.netns, &format!("rule add to {address} lookup main priority 512")).await?;
    if *table != 254 {
        ip(&node.netns, &format!("rule add from {address} lookup {table} priority 1536")).await?;
    }
    Ok(pod)
}

fn entry(pod: &str, address: &str) -> Value {
    json!({
        "networkName": "aws-cni", "containerID": pod, "ifName": "eth0", "ipv4": address,
        "allocationTimestamp": SINCE,
        "metadata": {"k8sPodNamespace": "default", "k8sPodName": pod, "interfacesCount": 1},
    })
}

fn write(file: &Path, entries: &[Value]) -> Result<()> {
    let text = json!({"version": "vpc-cni-ipam/1", "allocations": entries}).to_string();
    std::fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

/// The allocations of a checkpoint by container, without the times of what `new` names.
fn allocations(text: &str, new: &[&str]) -> Result<BTreeSet<String>> {
    let mut checkpoint: Value = serde_json::from_str(text).context("read a checkpoint")?;
    ensure!(checkpoint["version"] == "vpc-cni-ipam/1", "{checkpoint}");
    let entries = checkpoint["allocations"].as_array_mut().context("no allocations")?;
    let entries = entries.iter_mut().map(|entry| {
        if new.iter().any(|pod| entry["containerID"] == *pod) {
            entry["allocationTimestamp"] = json!(SINCE);
        }
        entry.to_string()
    });
    Ok(entries.collect())
}

/// `ipamd export-checkpoint` on the node.
async fn export(node: &ExecNode, to: &str) -> Result<String> {
    let mut command = Command::new(program("ipamd")?);
    let command = command.args(["export-checkpoint", to]).env_clear();
    output(command.env("AWS_VPC_K8S_CNI_BACKING_STORE", checkpoint(node))).await
}

async fn assigned(node: &ExecNode) -> Result<BTreeSet<String>> {
    let view = node.view().await?;
    let addresses = view.pods.into_iter().filter_map(|pod| pod.address);
    Ok(addresses.map(|address| address.address).collect())
}

/// Checks that the node has no rules for pods' addresses but those of `ours`.
async fn only_rules_of(node: &ExecNode, ours: &[&Pod]) -> Result<()> {
    let rules = output(in_netns(&node.netns, "ip").args(["-4", "rule"])).await?;
    let of_pods =
        rules.lines().filter(|rule| ["512:", "1536:"].iter().any(|p| rule.starts_with(p)));
    let strange: Vec<_> = of_pods
        .filter(|rule| !ours.iter().any(|pod| rule.contains(&format!("{} ", pod.ip))))
        .collect();
    ensure!(strange.is_empty(), "left behind: {strange:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn node_moves_over_with_its_pods_and_back() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "12"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fmove", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let spares = before_us(node).await?;
        let on_primary = spares.iter().find(|spare| spare.table == 254);
        let on_secondary: Vec<_> = spares.iter().filter(|spare| spare.table != 254).collect();
        let on_primary = on_primary.context("no address on the primary ENI")?;
        let [on_secondary, of_gone, ..] = on_secondary[..] else {
            bail!("too few addresses on secondary ENIs: {spares:?}")
        };
        let old_a = connect(node, "old-a", HOSTS[0], on_primary).await?;
        let old_b = connect(node, "old-b", HOSTS[1], on_secondary).await?;
        // Its namespace went and its DEL came while no daemon ran.
        ip(&node.netns, &format!("rule add to {} lookup main priority 512", of_gone.ip)).await?;
        let before = [entry("old-a", &old_a.ip), entry("old-b", &old_b.ip)];
        let file = checkpoint(node);
        write(&file, &[&before[..], &[entry("gone", &of_gone.ip)]].concat())?;
        let left = std::fs::read(&file)?;

        node.start_ipamd().await?;
        ensure!(std::fs::read(&file)? == left, "the incumbent's file was changed");
        let expect = BTreeSet::from([old_a.ip.clone(), old_b.ip.clone()]);
        ensure!(assigned(node).await? == expect, "not {expect:?}");
        only_rules_of(node, &[&old_a, &old_b]).await?;
        let new = node.runtime.run("new").await?;
        ensure!(!expect.contains(&new.ip), "{} is an old pod's", new.ip);
        all_reachable(node, &[old_a.clone(), old_b.clone(), new.clone()]).await?;
        cluster.books_agree(&[]).await.context("with pods old and new")?;

        // Back: the incumbent would read its own pods and the new one.
        let node = &mut cluster.nodes[0];
        let expect = [&before[..], &[entry("new", &new.ip)]].concat();
        let expect: BTreeSet<_> = expect.iter().map(ToString::to_string).collect();
        ensure!(allocations(&export(node, "-").await?, &["new"])? == expect);
        let to = file.to_string_lossy().into_owned();
        ensure!(export(node, &to).await.is_err(), "handed over by a daemon that runs");
        node.stop_ipamd().await?;
        export(node, &to).await?;
        ensure!(allocations(&std::fs::read_to_string(&file)?, &["new"])? == expect);

        // Then back to ipamd.
        node.start_ipamd().await?;
        ensure!(assigned(node).await?.len() == 3);
        cluster.books_agree(&[]).await.context("after the way back")?;
        let node = &cluster.nodes[0];
        node.runtime.remove_all(&[old_a.clone(), old_b.clone()]).await?;
        only_rules_of(node, &[&new]).await?;
        ensure!(assigned(node).await? == BTreeSet::from([new.ip.clone()]));
        cluster.books_agree(&[]).await.context("without the old pods")?;
        become_free(&cluster.nodes[0], &[old_a, old_b]).await
    })
    .await
}

/// Waits until the addresses have rested.
async fn become_free(node: &ExecNode, pods: &[Pod]) -> Result<()> {
    eventually("rest for the old addresses", PATIENCE, async || {
        let view = node.view().await?;
        let blocks = view.enis.iter().flat_map(|eni| &eni.blocks);
        let free: BTreeSet<_> =
            blocks.filter(|block| block.free == 1).map(|block| &*block.cidr).collect();
        for pod in pods {
            ensure!(free.contains(&*format!("{}/32", pod.ip)), "{} is not free", pod.ip);
        }
        Ok(())
    })
    .await
}
