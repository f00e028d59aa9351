//! Who reaches whom.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, Pod};
use tests::process::{PATIENCE, in_netns, output};

use crate::{connect, connect_on, ip, ipvlan, refused};

const IMDS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
/// Bytes of an echo request that fills a frame of 9001 bytes, without its headers.
const JUMBO: usize = 9001 - 28;

/// One echo request that fills a frame, from the namespace at `netns`.
async fn pings(netns: &str, to: &str) -> Result<()> {
    let mut command = in_netns(netns.trim_start_matches("/run/netns/"), "ping");
    let sent = output(command.args(["-c1", "-W10", "-s", &JUMBO.to_string(), to])).await;
    sent.map(drop).with_context(|| format!("{netns} to {to}"))
}

/// Whether no echo request is answered within two seconds.
async fn misses(netns: &str, to: &str) -> Result<()> {
    let mut command = in_netns(netns.trim_start_matches("/run/netns/"), "ping");
    let sent = output(command.args(["-c1", "-W2", to])).await;
    ensure!(sent.is_err(), "{netns} reaches {to}");
    Ok(())
}

/// A TCP connection from the namespace at `netns`.
fn connects(netns: &str, to: SocketAddr) -> Result<()> {
    let file = File::open(netns).with_context(|| format!("open {netns}"))?;
    let connect = || -> Result<()> {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpStream::connect_timeout(&to, PATIENCE)?;
        Ok(())
    };
    // A thread of its own, which ends in that namespace.
    let connected = std::thread::scope(|scope| scope.spawn(connect).join());
    let connected = connected.map_err(|_| anyhow::anyhow!("a thread in {netns} has panicked"))?;
    connected.with_context(|| format!("{netns} to {to}"))
}

/// Each reaches each other.
async fn all_reach(pods: &[&Pod]) -> Result<()> {
    for from in pods {
        for to in pods.iter().filter(|to| to.ip != from.ip) {
            pings(&from.netns, &to.ip).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with ipvlan: make test-guest"]
async fn pods_on_layer_2_reach_what_others_reach() -> Result<()> {
    let spec = Spec::new("ivl", "t3.small", 2, &[("WARM_IP_TARGET", "1")]);
    ExecCluster::with(spec, async |cluster| {
        let [node, other] = &cluster.nodes[..] else { anyhow::bail!("not two nodes") };
        let conf = ipvlan(None)?;
        let (first, _) = connect(node, "first", &conf).await?;
        let (beside, _) = connect(node, "beside", &conf).await?;
        let secondary = connect_on(node, "second", &conf, false).await?;
        let (next, _) = connect(node, "next", &conf).await?;
        let afar = other.runtime.run("afar").await?;
        all_reach(&[&first, &beside, &secondary, &next, &afar]).await?;
        for pod in [&first, &secondary] {
            pings(&pod.netns, "10.0.0.1").await?;
            pings(&pod.netns, &other.address.to_string()).await?;
            pings(&other.netns, &pod.ip).await?;
            connects(&pod.netns, IMDS)?;
        }
        // A pod on a pair, on another ENI than the first pods.
        let pair = node.runtime.run("pair").await?;
        ensure!(!ip(&first, "link").await?.contains("veth"), "no pair");
        all_reach(&[&first, &pair, &afar]).await?;
        // The kernel keeps a device and its children apart.
        misses(&node.netns, &first.ip).await?;
        misses(&first.netns, &node.address.to_string()).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with ipvlan: make test-guest"]
async fn pods_on_layer_3_are_on_the_primary() -> Result<()> {
    let spec = Spec::new("iv3", "t3.small", 2, &[("WARM_IP_TARGET", "1")]);
    ExecCluster::with(spec, async |cluster| {
        let [node, other] = &cluster.nodes[..] else { anyhow::bail!("not two nodes") };
        let conf = ipvlan(Some("l3s"))?;
        let (first, result) = connect(node, "first", &conf).await?;
        let (beside, _) = connect(node, "beside", &conf).await?;
        let afar = other.runtime.run("afar").await?;
        all_reach(&[&first, &beside, &afar]).await?;
        misses(&node.netns, &first.ip).await?;
        let mut check = conf.clone();
        check["prevResult"] = result;
        node.runtime.call("CHECK", Some(&first), check.clone()).await?;
        check["ipvlanMode"] = json!("l2");
        let checked = node.runtime.call("CHECK", Some(&first), check).await;
        refused(checked, 153, "in mode l3s, not l2")?;
        // The kernel would change the mode of all children of the device.
        let pod = node.runtime.pod("other").await?;
        let call = node.runtime.call("ADD", Some(&pod), ipvlan(None)?).await;
        refused(call, 158, "in mode l3s: one in mode l2 would change it")?;
        all_reach(&[&first, &beside, &afar]).await?;
        // The primary ENI has at most one address left: that of the refused ADD may still rest.
        for n in 0..3 {
            let held = node.held().await?;
            let pod = node.runtime.pod(&format!("more{n}")).await?;
            let call = node.runtime.call("ADD", Some(&pod), conf.clone()).await;
            if call.is_err() {
                refused(call, 158, "needs one of the primary")?;
                ensure!(node.held().await? == held, "the address was not given back");
                ensure!(!ip(&pod, "link").await?.contains("eth0"), "a child is left");
                return Ok(());
            }
        }
        anyhow::bail!("no pod came to a secondary ENI")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with ipvlan: make test-guest"]
async fn of_two_modes_at_once_one_is_refused() -> Result<()> {
    let settings = [("MAX_ENI", "1"), ("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "0")];
    ExecCluster::with(Spec::new("ivm", "t3.small", 1, &settings), async |cluster| {
        let node = &cluster.nodes[0];
        for n in 0..5 {
            let [layer_2, layer_3] = [format!("a{n}"), format!("b{n}")];
            let [layer_2, layer_3] =
                [node.runtime.pod(&layer_2).await?, node.runtime.pod(&layer_3).await?];
            let outcomes = tokio::join!(
                node.runtime.call("ADD", Some(&layer_2), ipvlan(None)?),
                node.runtime.call("ADD", Some(&layer_3), ipvlan(Some("l3s"))?),
            );
            match outcomes {
                (Ok(_), refusal) => {
                    refused(refusal, 158, "in mode l2: one in mode l3s would change it")?
                }
                (refusal, Ok(_)) => {
                    refused(refusal, 158, "in mode l3s: one in mode l2 would change it")?
                }
                (Err(one), Err(other)) => anyhow::bail!("neither is connected: {one:#}; {other:#}"),
            }
            for pod in [&layer_2, &layer_3] {
                node.runtime.remove(pod).await?;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a kernel with ipvlan: make test-guest"]
async fn child_has_both_families_on_one_eni() -> Result<()> {
    let spec = Spec::dual("ivd", "t3.small", 2, &[("MAX_ENI", "1"), ("WARM_IP_TARGET", "1")]);
    ExecCluster::with(spec, async |cluster| {
        let [node, other] = &cluster.nodes[..] else { anyhow::bail!("not two nodes") };
        let mut pods = vec![];
        for (node, name) in [(node, "first"), (node, "beside"), (other, "afar")] {
            let (pod, result) = connect(node, name, &ipvlan(None)?).await?;
            let second = result["ips"][1]["address"].as_str().context("no second address")?;
            let second = second.split('/').next().context("no address")?;
            pods.push((pod.clone(), second.to_owned()));
            let mut check = ipvlan(None)?;
            check["prevResult"] = result;
            node.runtime.call("CHECK", Some(&pod), check).await?;
        }
        for (from, _) in &pods {
            for (to, ipv6) in pods.iter().filter(|(to, _)| to.ip != from.ip) {
                pings(&from.netns, &to.ip).await?;
                let mut command = in_netns(from.netns.trim_start_matches("/run/netns/"), "ping");
                let sent = output(command.args(["-6", "-c1", "-W10", ipv6])).await;
                sent.with_context(|| format!("{} to {ipv6}", from.netns))?;
            }
        }
        Ok(())
    })
    .await
}
