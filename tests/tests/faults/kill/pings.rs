//! Pings without a pause, none of which may be lost.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::exec::{ExecNode, Pod};
use tokio::process::{Child, Command};

/// The VPC's router, for which the fabric answers.
const ROUTER: &str = "10.0.0.1";

/// Running pings, each with a word on it. Dropping them ends them.
pub(super) struct Pings(Vec<(String, Child)>);

impl Pings {
    /// From the node to each of `pods`, and from each to the router, by way of its ENI.
    pub(super) fn start(node: &ExecNode, pods: &[Pod]) -> Result<Self> {
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

    /// Ends the pings. The last of each may still have been on its way.
    pub(super) async fn none_is_lost(self) -> Result<()> {
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
        }
        Ok(())
    }
}

/// The number of the ping that this line is the answer to.
fn answered(line: &str) -> Option<usize> {
    let (from, rest) = line.split_once(" icmp_seq=")?;
    from.contains("bytes from").then_some(())?;
    rest.split_once(' ')?.0.parse().ok()
}
