//! Starts plugins as a runtime does, in a node's network namespace, and takes the time from exec to exit.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// A plugin with its configuration, in one network namespace.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) netns: String,
    pub(crate) plugin: PathBuf,
    /// Where the plugin finds others.
    pub(crate) path: PathBuf,
    pub(crate) config: Value,
}

/// A verb that has succeeded.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) took: Duration,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Caller {
    /// Runs one verb for the pod's `eth0`. The calling thread must be in the node's namespace, see [`inside`].
    pub(crate) fn call(&self, verb: &str, pod: &str) -> Result<Call> {
        let mut command = Command::new(&self.plugin);
        command.env_clear().env("CNI_COMMAND", verb).env("CNI_CONTAINERID", pod);
        command.env("CNI_NETNS", format!("/run/netns/{pod}")).env("CNI_IFNAME", "eth0");
        command.env("CNI_PATH", &self.path).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}");
        command.env("CNI_ARGS", args);
        timed(&mut command, self.config.to_string().as_bytes())
            .with_context(|| format!("{verb} of {pod}"))
    }

    /// As [`Caller::call`], for many pods, by this many threads. Gives the time of all, and of each.
    pub(crate) fn call_all(
        &self,
        verb: &'static str,
        pods: &[String],
        at_once: usize,
    ) -> Result<(Duration, Vec<Duration>)> {
        let start = Instant::now();
        let threads = (0..at_once).map(|first| {
            let (caller, pods) = (self.clone(), every(pods, first, at_once));
            inside(&self.netns, move || {
                pods.iter().map(|pod| Ok(caller.call(verb, pod)?.took)).collect::<Result<Vec<_>>>()
            })
        });
        let threads = threads.collect::<Result<Vec<_>>>()?;
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join()?);
        }
        Ok((start.elapsed(), all))
    }
}

/// Every `step`-th of `items`, beginning with `first`.
fn every(items: &[String], first: usize, step: usize) -> Vec<String> {
    items.iter().skip(first).step_by(step).cloned().collect()
}

/// A thread in a network namespace.
#[must_use]
pub(crate) struct Inside<T>(std::thread::JoinHandle<Result<T>>);

impl<T> Inside<T> {
    pub(crate) fn join(self) -> Result<T> {
        self.0.join().map_err(|_| anyhow!("a measuring thread panicked"))?
    }
}

/// Runs `work` in a thread of its own: to enter the namespace must not touch other threads.
pub(crate) fn inside<T: Send + 'static>(
    netns: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<Inside<T>> {
    let netns = File::open(Path::new("/run/netns").join(netns))?;
    Ok(Inside(std::thread::spawn(move || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    })))
}

/// Runs a program with this stdin; fails if the program does.
pub(crate) fn timed(command: &mut Command, stdin: &[u8]) -> Result<Call> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let mut input = child.stdin.take().context("no stdin")?;
    // A program that reads nothing may have ended.
    let written = input.write_all(stdin);
    drop(input);
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    let took = start.elapsed();
    let said = || [&*stdout, &*stderr].map(String::from_utf8_lossy).concat();
    ensure!(status.success() && (written.is_ok() || stdin.is_empty()), "{status}: {}", said());
    Ok(Call { took, stdout, stderr })
}

/// Makes network namespaces, or removes them, all by one `ip`.
pub(crate) fn namespaces(verb: &str, names: &[String]) -> Result<()> {
    let lines: Vec<_> = names.iter().map(|name| format!("netns {verb} {name}\n")).collect();
    timed(Command::new("ip").args(["-batch", "-"]), lines.concat().as_bytes()).map(drop)
}

/// Names for `count` pods that nobody else has.
pub(crate) fn names(kind: &str, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("tpb-{}-{kind}{index}", std::process::id())).collect()
}
