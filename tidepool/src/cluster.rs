//! `tidepool cluster`: what all nodes of a cluster hold, use and leave idle, and how much is left in their subnets.

mod answer;
mod json;
mod sums;
mod table;

use std::ffi::OsString;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use command_line::{Exit, Failure, Output};

use self::answer::NodeAnswer;
use self::sums::Sums;
use crate::kubectl::{self, Daemon};

/// How many nodes are asked at once.
const AT_ONCE: usize = 8;

/// The arguments of `cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    kubectl: kubectl::Arguments,
    /// How long to wait for each answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Ask twice, so many seconds apart, and say when each subnet is exhausted if it goes on like that.
    #[arg(long, value_name = "SECONDS")]
    over: Option<u64>,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Asks every node and prints the sums.
///
/// # Errors
///
/// [`Exit::NoAnswer`] if a node does not answer. What the others say is printed all the same.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let before = arguments.over.map(|_| poll(arguments)).transpose()?;
    if let Some(over) = arguments.over {
        pause(Duration::from_secs(over));
    }
    let now = poll(arguments)?;
    let sums = Sums::of(&now.nodes);
    let pace = before.map(|before| sums.pace(&Sums::of(&before.nodes), now.at - before.at));
    let pace = pace.unwrap_or_default();
    let text = match arguments.output {
        Output::Table => table::render(&now.nodes, &sums, &pace),
        Output::Json => {
            json::render(&now.nodes, &sums, &pace).context("write the cluster as JSON")?
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the cluster")?;
    match now.nodes.iter().filter(|node| node.pool.is_err()).count() {
        0 => Ok(()),
        n => {
            let message = format!("{n} of {} nodes have not answered", now.nodes.len());
            Err(Failure::new(Exit::NoAnswer, message))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the user asks for two polls so far apart")]
fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// The answers of all nodes, and when they were there.
struct Poll {
    nodes: Vec<NodeAnswer>,
    at: Instant,
}

fn poll(arguments: &Arguments) -> anyhow::Result<Poll> {
    let timeout = Duration::from_secs(arguments.timeout);
    let daemons = arguments.kubectl.daemons(None, timeout)?;
    ensure!(!daemons.is_empty(), "no node has a pod of the daemon; see --namespace and --selector");
    let left = Mutex::new(daemons.into_iter());
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(daemon) = take(&left) {
                    let answer = ask(&arguments.kubectl, daemon, timeout);
                    answers.lock().expect("no thread panics while it holds it").push(answer);
                }
            });
        }
    });
    let mut nodes = answers.into_inner().expect("no thread panics while it holds it");
    nodes.sort_by(|one: &NodeAnswer, other| one.node.cmp(&other.node));
    Ok(Poll { nodes, at: Instant::now() })
}

fn take(left: &Mutex<std::vec::IntoIter<Daemon>>) -> Option<Daemon> {
    left.lock().expect("no thread panics while it holds it").next()
}

fn ask(kubectl: &kubectl::Arguments, daemon: Daemon, timeout: Duration) -> NodeAnswer {
    let question = |command: &str| {
        let words = [command, "--output", "json"].map(OsString::from);
        kubectl::output(&mut kubectl.ipamd(&daemon, &words), timeout)
    };
    let pool = question("status").and_then(|text| answer::status(&text));
    // A daemon of an earlier version knows no subnets. Its pool counts all the same.
    let subnets = question("subnets").and_then(|text| answer::subnets(&text));
    NodeAnswer {
        node: daemon.node,
        pool: pool.map_err(|fault| format!("{fault:#}")),
        subnets: subnets.unwrap_or_default(),
    }
}
