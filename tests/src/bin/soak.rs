//! `soak [PAIRS]`: a real `ipamd` under a day's load, an ADD and a DEL each second, as quickly as it
//! serves them. What the process uses must not grow.

#![expect(clippy::print_stdout, reason = "a table of figures is what it is for")]

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use proto::v1::add_reply::Outcome;
use proto::v1::{AddRequest, Attachment, DelRequest};
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::process::{PATIENCE, eventually, interrupted};
use tests::steady::{Bound, Figure};

/// One a second for a day.
const DAY: usize = 86_400;
/// Pods come and go in waves of an hour; at least one in each quarter of a short run.
const WAVE: usize = 3600;
/// Pods on the node at a wave's foot and at its top, where they take more than one ENI.
const PODS: (usize, usize) = (16, 400);
/// Callers at the same time.
const CALLERS: usize = 8;
/// Every so many pairs one is the real plugin's, with a link in the kernel.
const PLUGIN_EVERY: usize = 100;
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const MIB: u64 = 1 << 20;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let n_pairs = match std::env::args().nth(1) {
        Some(pairs) => pairs.parse().context("the number of pairs")?,
        None => DAY,
    };
    let mut spec = Spec::new("soak", "m5.4xlarge", 1, &[]);
    let log = format!("/run/{}/n0/{LOG}", spec.name);
    // A day has thousands of rests and of surpluses. They are cut as the day is; a delay of 0 is
    // not doubled either when what went back is wanted again, so EC2 is called to the end.
    spec.nodes[0].settings = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("TIDEPOOL_MAX_PODS", "3000"),
        ("IP_COOLDOWN_PERIOD", "1"),
        ("TIDEPOOL_SHRINK_DELAY", "0s"),
        ("TIDEPOOL_MIN_ENI_AGE", "0s"),
        ("AWS_VPC_K8S_CNI_LOG_FILE", &log),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    ExecCluster::with(spec, async |cluster| soak(cluster, n_pairs).await).await
}

async fn soak(cluster: &ExecCluster, n_pairs: usize) -> Result<()> {
    let (start, load) = (Instant::now(), Load::new(&cluster.nodes[0], n_pairs));
    let mut figures = Figures::new();
    let ended = tokio::select! {
        done = load.run() => done,
        failed = figures.watch(cluster, &load) => failed,
        interrupted = interrupted() => interrupted,
    };
    let (done, took) = (load.done(), start.elapsed().as_secs_f64());
    println!("{done} pairs of ADD and DEL in {took:.0} s, peaks by quarter:");
    figures.print();
    ended?;
    cluster.books_agree(&[]).await?;
    figures.verdict()
}

/// Pods that come and go.
struct Load<'a> {
    node: &'a ExecNode,
    n_pairs: usize,
    begun: AtomicUsize,
}

/// A pod, by the program that has asked the daemon for it.
enum Asked {
    /// This program. The kernel has nothing of the pod.
    ByUs(usize),
    ByPlugin(Pod),
}

impl<'a> Load<'a> {
    fn new(node: &'a ExecNode, n_pairs: usize) -> Self {
        Self { node, n_pairs, begun: AtomicUsize::new(0) }
    }

    async fn run(&self) -> Result<()> {
        try_join_all((0..CALLERS).map(|_| self.call())).await.map(|_| ())
    }

    /// One caller's share of the pairs; the oldest pods go first.
    async fn call(&self) -> Result<()> {
        let mut pods = VecDeque::new();
        while let Some(index) = self.next() {
            pods.push_back(self.add(index).await.with_context(|| format!("pair {index}"))?);
            while pods.len() > self.wanted(index) / CALLERS
                && let Some(oldest) = pods.pop_front()
            {
                self.del(oldest).await?;
            }
        }
        for pod in pods {
            self.del(pod).await?;
        }
        Ok(())
    }

    /// Pairs that have been begun.
    fn done(&self) -> usize {
        self.begun.load(Ordering::Relaxed).min(self.n_pairs)
    }

    fn next(&self) -> Option<usize> {
        let index = self.begun.fetch_add(1, Ordering::Relaxed);
        (index < self.n_pairs).then_some(index)
    }

    /// How many pods the node should have: a wave from its lowest to its highest number and back.
    fn wanted(&self, index: usize) -> usize {
        let wave = WAVE.min(self.n_pairs / 4).max(1);
        let from_foot = (index % wave).min(wave - index % wave);
        PODS.0 + (PODS.1 - PODS.0) * from_foot * 2 / wave
    }

    async fn add(&self, index: usize) -> Result<Asked> {
        if index.is_multiple_of(PLUGIN_EVERY) {
            let pod = self.node.runtime.run(&format!("p{index}")).await?;
            return Ok(Asked::ByPlugin(pod));
        }
        // Retries, as a kubelet does.
        eventually("address", PATIENCE, || self.ask(index)).await?;
        Ok(Asked::ByUs(index))
    }

    /// Asks over a connection of its own, as the plugin does.
    async fn ask(&self, index: usize) -> Result<()> {
        let request = AddRequest {
            attachment: Some(attachment(index)),
            pod: Some(pod(index)),
            // A namespace that stays. Otherwise the daemon would take the pod for gone.
            netns: format!("/run/netns/{}", self.node.netns),
            client_version: proto::VERSION.to_owned(),
            takes_node_local: true,
        };
        match self.node.client().await?.add(request).await?.into_inner().outcome {
            Some(Outcome::Granted(_)) => Ok(()),
            other => bail!("no address: {other:?}"),
        }
    }

    async fn del(&self, asked: Asked) -> Result<()> {
        let index = match asked {
            Asked::ByUs(index) => index,
            Asked::ByPlugin(pod) => return self.node.runtime.remove(&pod).await,
        };
        let request = DelRequest {
            attachment: Some(attachment(index)),
            pod: Some(pod(index)),
            client_version: proto::VERSION.to_owned(),
        };
        let reply = self.node.client().await?.del(request).await?.into_inner();
        ensure!(!reply.released.is_empty(), "pair {index} had nothing to release");
        Ok(())
    }
}

fn attachment(index: usize) -> Attachment {
    let (network, container_id) = ("aws-cni".to_owned(), format!("c{index}"));
    Attachment { network, container_id, ifname: "eth0".to_owned() }
}

fn pod(index: usize) -> proto::v1::Pod {
    let (namespace, name) = ("default".to_owned(), format!("pod-{index}"));
    proto::v1::Pod { namespace, name, uid: format!("uid-{index}") }
}

/// The daemon's log file. Older ones have a number at the end.
const LOG: &str = "daemon.log";
/// The prefix of the names of the daemon's record and of its other files.
const STATE: &str = "tidepool";

/// The figures under watch.
struct Figures {
    resident: Figure,
    anonymous: Figure,
    descriptors: Figure,
    threads: Figure,
    tasks: Figure,
    state: Figure,
    log: Figure,
    sim: Figure,
    calls: Figure,
}

impl Figures {
    fn new() -> Self {
        let flat = |percent, plus| Bound::Flat { percent, plus };
        Self {
            resident: Figure::new("resident memory, KiB", flat(10, 2048)),
            // Without what the kernel can read from the program's file again, most of it all.
            anonymous: Figure::new("memory of its own, KiB", flat(10, 1024)),
            // A caller has one connection, and one that is closing; each has a descriptor and a task.
            descriptors: Figure::new("open descriptors", flat(0, 2 * CALLERS as u64)),
            threads: Figure::new("threads", flat(0, 2)),
            tasks: Figure::new("tasks", flat(0, 2 * CALLERS as u64)),
            // A snapshot is due after 4096 changes; the log before it stays.
            state: Figure::new("state directory, bytes", Bound::AtMost(4 * MIB)),
            // Five files of 20 MiB; the line that fills one goes beyond.
            log: Figure::new("log files, bytes", Bound::AtMost(101 * MIB)),
            // It keeps its latest 10,000 calls, and none of the figures above depends on it.
            sim: Figure::new("resident memory of vpc-sim, KiB", flat(10, 4096)),
            calls: Figure::new("EC2 calls that change something", Bound::Rising),
        }
    }

    fn all(&self) -> [&Figure; 9] {
        let Self { resident, anonymous, descriptors, threads, tasks, state, log, sim, calls } =
            self;
        [resident, anonymous, descriptors, threads, tasks, state, log, sim, calls]
    }

    fn print(&self) {
        for figure in self.all() {
            println!("  {figure}");
        }
    }

    /// Every figure that is out of its bound, in one error.
    fn verdict(&self) -> Result<()> {
        let faults = self.all().map(|figure| figure.verdict().err().map(|fault| fault.to_string()));
        let faults: Vec<String> = faults.into_iter().flatten().collect();
        ensure!(faults.is_empty(), "not steady:\n{}", faults.join("\n"));
        Ok(())
    }

    /// Takes samples until one fails.
    async fn watch(&mut self, cluster: &ExecCluster, load: &Load<'_>) -> Result<()> {
        loop {
            self.sample(cluster, load).await.context("take a sample")?;
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    }

    async fn sample(&mut self, cluster: &ExecCluster, load: &Load<'_>) -> Result<()> {
        let (done, all) = (load.done(), load.n_pairs);
        let (node, pid) = (load.node, load.node.ipamd_pid()?);
        self.resident.observe(done, all, of_status(pid, "VmRSS:")?);
        self.anonymous.observe(done, all, of_status(pid, "RssAnon:")?);
        self.threads.observe(done, all, of_status(pid, "Threads:")?);
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).context("list them")?;
        self.descriptors.observe(done, all, descriptors.count() as u64);
        let metrics = node.scrape().await?;
        let tasks = metrics.get("tidepool_tasks").context("no tidepool_tasks")?;
        self.tasks.observe(done, all, tasks.parse().context("read tidepool_tasks")?);
        self.state.observe(done, all, bytes(node.state_directory(), STATE)?);
        self.log.observe(done, all, bytes(node.state_directory(), LOG)?);
        self.sim.observe(done, all, of_status(cluster.sim.pid()?, "VmRSS:")?);
        let calls = cluster.sim.calls().await?;
        let changes = calls.iter().filter(|(action, _)| !action.starts_with("Describe"));
        self.calls.observe(done, all, changes.map(|(_, n)| n).sum());
        Ok(())
    }
}

/// A number of /proc/PID/status; memory is in KiB there.
fn of_status(pid: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("no process")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.with_context(|| format!("no {name} of {pid}"))?;
    value.trim().trim_end_matches(" kB").parse().with_context(|| format!("read {name}{value}"))
}

/// The size of the files in `directory` whose names have a prefix. One may be renamed meanwhile.
fn bytes(directory: &Path, start: &str) -> Result<u64> {
    let entries = std::fs::read_dir(directory).context("list the node's files")?;
    let files = entries.flatten().filter(|at| at.file_name().to_string_lossy().starts_with(start));
    Ok(files.filter_map(|at| at.metadata().ok()).map(|at| at.len()).sum())
}
