//! What the rules and tables cost the packets: iperf3 between pods and to the outside, with them and without.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually, in_netns, output};
use tests::sim::OUTSIDE;

use crate::caller::{names, namespaces};

/// Each way is measured so many times with the rules, and as often without, by turns.
const ROUNDS: usize = 3;
/// What iperf3 is told beside the address.
const LOADS: [(&str, &[&str]); 2] =
    [("TCP", &[]), ("UDP of 64 bytes", &["--udp", "--bitrate", "0", "--length", "64"])];

/// A way that packets take.
struct Way {
    name: &'static str,
    client: String,
    server: String,
    address: String,
}

/// Measures each way for about `span`.
pub(crate) async fn measure(span: Duration) -> Result<()> {
    plain(span).await?;
    let settings = [("WARM_IP_TARGET", "2")];
    let spec = Spec { outside: true, ..Spec::new("bencht", "m5.4xlarge", 2, &settings) };
    let outside = format!("{}-outside", spec.name);
    ExecCluster::with(spec, async |cluster| {
        let pods = [
            cluster.nodes[0].runtime.run("a").await?,
            cluster.nodes[0].runtime.run("b").await?,
            cluster.nodes[1].runtime.run("c").await?,
        ];
        let netns = |path: &str| path.trim_start_matches("/run/netns/").to_owned();
        let way = |name, client, server: &tests::exec::Pod| Way {
            name,
            client,
            server: netns(&server.netns),
            address: server.ip.clone(),
        };
        let first = netns(&pods[0].netns);
        let to_outside = |name, client| Way {
            name,
            client,
            server: outside.clone(),
            address: OUTSIDE.to_string(),
        };
        let inside = [
            way("pod to pod, one node", first.clone(), &pods[1]),
            way("pod to pod, two nodes", first.clone(), &pods[2]),
        ];
        for _ in 0..ROUNDS {
            for way in &inside {
                way.measure("with our rules", span).await?;
            }
            to_outside("pod to the outside", first.clone())
                .measure("with our rules, SNAT", span)
                .await?;
            for node in &mut cluster.nodes {
                bare(node).await?;
            }
            for way in &inside {
                way.measure("without any rule", span).await?;
            }
            to_outside("node to the outside", cluster.nodes[0].netns.clone())
                .measure("without any rule", span)
                .await?;
            for node in &mut cluster.nodes {
                node.start_ipamd().await?;
                eventually("table of the daemon", PATIENCE, async || {
                    output(in_netns(&node.netns, "nft").args(["list", "table", "ip", "tidepool"]))
                        .await
                })
                .await?;
            }
        }
        for (node, pods) in cluster.nodes.iter().zip([&pods[..2], &pods[2..]]) {
            node.runtime.remove_all(pods).await?;
        }
        Ok(())
    })
    .await
}

/// Ends the daemon and takes away what it has set up beside the pods' routes. These pods are on the primary ENI, so the
/// kernel's main table is enough for them.
async fn bare(node: &mut ExecNode) -> Result<()> {
    node.stop_ipamd().await?;
    output(in_netns(&node.netns, "nft").args(["flush", "ruleset"])).await?;
    let rules = output(in_netns(&node.netns, "ip").args(["rule", "show"])).await?;
    for rule in rules.lines() {
        let priority = rule.split(':').next().unwrap_or_default();
        if !["0", "32766", "32767"].contains(&priority) {
            let delete = ["rule", "delete", "priority", priority];
            output(in_netns(&node.netns, "ip").args(delete)).await?;
        }
    }
    Ok(())
}

/// Two namespaces and a router between them, with nothing of ours: what the machine itself can do.
async fn plain(span: Duration) -> Result<()> {
    let all = names("t", 3);
    let [client, router, server] = &all[..] else { return Ok(()) };
    namespaces("add", &all)?;
    let lines = [
        format!(
            "link add veth0 mtu 9001 netns {router} type veth peer name eth0 mtu 9001 netns {client}"
        ),
        format!(
            "link add veth1 mtu 9001 netns {router} type veth peer name eth0 mtu 9001 netns {server}"
        ),
    ];
    let measured = async {
        batch(None, &lines.join("\n"))?;
        batch(
            Some(router),
            "link set veth0 up\nlink set veth1 up\naddr add 10.0.1.1/24 dev veth0\naddr add 10.0.2.1/24 dev veth1\n",
        )?;
        for (netns, subnet) in [(client, 1), (server, 2)] {
            batch(
                Some(netns),
                &format!(
                    "link set eth0 up\naddr add 10.0.{subnet}.2/24 dev eth0\nroute add default via 10.0.{subnet}.1\n"
                ),
            )?;
        }
        output(in_netns(router, "sysctl").args(["-q", "-w", "net.ipv4.ip_forward=1"])).await?;
        let way = Way {
            name: "plain veth",
            client: client.clone(),
            server: server.clone(),
            address: "10.0.2.2".to_owned(),
        };
        for _ in 0..ROUNDS {
            way.measure("without any rule", span).await?;
        }
        Ok(())
    };
    let measured = measured.await;
    namespaces("delete", &all)?;
    measured
}

fn batch(netns: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    crate::caller::timed(command.args(["-batch", "-"]), lines.as_bytes()).map(drop)
}

impl Way {
    /// Prints what the server has received.
    async fn measure(&self, rules: &str, span: Duration) -> Result<()> {
        for (load, arguments) in LOADS {
            let server = Server::start(&self.server)?;
            let seconds = span.as_secs().max(1).to_string();
            let figures = eventually("answer of iperf3", PATIENCE, async || {
                let mut command = in_netns(&self.client, "iperf3");
                command.args(["--client", &self.address, "--json", "--time", &seconds]);
                let report = output(command.args(arguments)).await?;
                let report: Value = serde_json::from_str(&report).context("read the report")?;
                figures(&report).with_context(|| format!("{}: {}", self.name, report["error"]))
            })
            .await?;
            drop(server);
            println!("{:<24} {rules:<22} {load:<16} {figures}", self.name);
        }
        Ok(())
    }
}

/// Bits a second of TCP; of UDP the datagrams that arrive.
fn figures(report: &Value) -> Result<String> {
    let end = &report["end"];
    let received =
        |key: &str| end["sum_received"][key].as_f64().with_context(|| format!("no {key}"));
    let seconds = received("seconds")?;
    ensure!(seconds > 0.0, "iperf3 measured nothing");
    if let (Some(packets), Some(lost)) =
        (end["sum"]["packets"].as_f64(), end["sum"]["lost_packets"].as_f64())
    {
        let percent = 100.0 * lost / packets.max(1.0);
        return Ok(format!("{:>9.0} datagrams/s, {percent:.1} % lost", (packets - lost) / seconds));
    }
    Ok(format!("{:>9.2} Gbit/s", received("bits_per_second")? / 1e9))
}

/// An iperf3 that serves until it is dropped. By itself it may wait for ever after a client of UDP.
struct Server(Child);

impl Server {
    fn start(netns: &str) -> Result<Self> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{netns}")).args(["--", "iperf3"]);
        command.arg("--server").stdout(Stdio::null());
        Ok(Self(command.spawn().context("start iperf3")?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
