//! Pings without a pause. None may be lost.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::cluster::NodeOf;
use crate::exec::Pod;
use crate::process::{in_netns, output};

/// The VPC's router. It answers, since the cluster has told it to.
const ROUTER: &str = "10.0.0.1";

/// Running pings, ten a second each. Dropping them ends them.
#[derive(Debug)]
pub struct Pings(Vec<(String, Child)>);

impl Pings {
    /// Pings each of `pods`, which are on IPv4, from the node, and the router from each pod through its ENI.
    ///
    /// # Errors
    ///
    /// If one cannot be started.
    pub async fn start<R>(node: &NodeOf<R>, pods: &[Pod]) -> Result<Self> {
        // An echo socket gets only its own answers. A raw socket gets a copy of every answer to the node. With
        // hundreds of pings it loses some while its process waits for the CPU.
        let group = "net.ipv4.ping_group_range=0 0";
        output(in_netns(&node.netns, "sysctl").args(["-q", "-w", group])).await?;
        let node_ns = format!("/run/netns/{}", node.netns);
        let mut pings = vec![];
        for pod in pods {
            for (netns, to) in [(&node_ns, pod.ip.as_str()), (&pod.netns, ROUTER)] {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={netns}")).args(["--", "ping", "-n", "-i", "0.1", to]);
                let child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
                pings.push((format!("{} and {to}", pod.name), child));
            }
        }
        Ok(Self(pings))
    }

    /// Ends the pings and returns how many were answered. The last ping of each may still be under way.
    ///
    /// # Errors
    ///
    /// If another has not been answered; the error shows what ping has printed.
    pub async fn none_is_lost(self) -> Result<usize> {
        let mut n_answered = 0;
        for (what, ping) in self.0 {
            let pid = i32::try_from(ping.id().context("a ping has ended")?)?;
            kill_process(Pid::from_raw(pid).context("pid 0")?, Signal::INT)?;
            let text = String::from_utf8(ping.wait_with_output().await?.stdout)?;
            let answered: BTreeSet<usize> = text.lines().filter_map(answered).collect();
            let sent = text.lines().find_map(|line| line.split_once(" packets transmitted"));
            let n_sent: usize = sent.context("no summary")?.0.parse()?;
            let n = answered.len();
            let no_gap = answered.last() == Some(&n) && answered.first() == Some(&1);
            ensure!(n > 0 && no_gap && n + 1 >= n_sent, "{what}: {n} of {n_sent} pings: {text}");
            n_answered += n;
        }
        Ok(n_answered)
    }
}

/// The number of the ping that this line is the answer to.
fn answered(line: &str) -> Option<usize> {
    let (from, rest) = line.split_once(" icmp_seq=")?;
    from.contains("bytes from").then_some(())?;
    rest.split_once(' ')?.0.parse().ok()
}
