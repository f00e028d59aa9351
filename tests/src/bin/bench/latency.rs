//! ADD and DEL from exec to exit: one at a time on a node with few and with many pods, many at once, and both at
//! once for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually};

use crate::caller::{Caller, inside, names, namespaces};
use crate::floor;
use crate::memory;
use crate::repair;
use crate::spread::{Report, ms};

const TYPE: &str = "m5.4xlarge";
const AT_ONCE: usize = 16;
/// More than the instance type's usual bound.
const MAX_PODS: (&str, &str) = ("TIDEPOOL_MAX_PODS", "800");
/// All addresses that the type has with two ENIs, before the first pod.
const MANY: [(&str, &str); 5] = [
    ("ENABLE_PREFIX_DELEGATION", "true"),
    MAX_PODS,
    ("MINIMUM_IP_TARGET", "740"),
    ("WARM_IP_TARGET", "40"),
    ("IP_COOLDOWN_PERIOD", "0"),
];
/// The last word is the number of a table other than that of the primary ENI.
const MAIN_TABLE: u32 = 254;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) calls: usize,
    pub(crate) churn: Duration,
    /// Of each transfer.
    pub(crate) transfer: Duration,
}

impl Size {
    /// `BENCH_CALLS` and `BENCH_SECONDS` make a run shorter.
    pub(crate) fn from_environment() -> Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
            Err(_) => Ok(default),
        };
        let calls = usize::try_from(number("BENCH_CALLS", 500)?)?;
        ensure!(calls > 0, "BENCH_CALLS is 0");
        let seconds = number("BENCH_SECONDS", 60)?;
        let (churn, transfer) = (Duration::from_secs(seconds), Duration::from_secs(seconds / 12));
        Ok(Self { calls, churn, transfer })
    }
}

pub(crate) async fn measure(size: Size) -> Result<()> {
    let mut report = Report::default();
    floor::measure(&mut report, &std::env::temp_dir(), size.calls)?;
    let few = [("WARM_IP_TARGET", "60"), ("IP_COOLDOWN_PERIOD", "0")];
    ExecCluster::with(Spec::new("benchs", TYPE, 1, &few), async |cluster| {
        let mut load = Load::new(&cluster.nodes[0], size, "IPv4")?;
        // The primary ENI has 29 addresses, so these 50 pods are on it and on a secondary one.
        for n_pods in [1, 50] {
            load.grow(n_pods)?;
            load.one_at_a_time(&mut report, &cluster.nodes[0]).await?;
        }
        load.end()
    })
    .await?;
    ExecCluster::with(Spec::new("benchp", TYPE, 1, &MANY), async |cluster| {
        until_free(&cluster.nodes[0], 740).await?;
        crowd(&mut report, cluster, size, "IPv4").await
    })
    .await?;
    repairs(&mut report, size).await?;
    let alone = [("IP_COOLDOWN_PERIOD", "0"), ("ENABLE_V4_EGRESS", "false"), MAX_PODS];
    ExecCluster::with(Spec::ipv6("bench6", TYPE, 1, &alone), async |cluster| {
        crowd(&mut report, cluster, size, "IPv6").await
    })
    .await?;
    let rested = [("IP_COOLDOWN_PERIOD", "0")];
    for (family, spec) in [
        ("IPv6 with egress", Spec::ipv6("benche", TYPE, 1, &rested)),
        ("dual stack", Spec::dual("benchd", TYPE, 1, &rested)),
    ] {
        ExecCluster::with(spec, async |cluster| {
            let mut load = Load::new(&cluster.nodes[0], size, family)?;
            load.grow(1)?;
            load.one_at_a_time(&mut report, &cluster.nodes[0]).await?;
            load.end()
        })
        .await?;
    }
    report.chart();
    Ok(())
}

/// Repairs alone.
pub(crate) async fn repairs(report: &mut Report, size: Size) -> Result<()> {
    let (ranges, n_pods) = (repair::ranges(), 250);
    let with_ranges =
        [&MANY[..], &[("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", ranges.as_str())]].concat();
    ExecCluster::with(Spec::new("benchr", TYPE, 1, &with_ranges), async |cluster| {
        until_free(&cluster.nodes[0], 740).await?;
        let mut load = Load::new(&cluster.nodes[0], size, "IPv4")?;
        load.grow(n_pods)?;
        repair::measure(report, &cluster.nodes[0], n_pods).await?;
        load.end()
    })
    .await
}

async fn until_free(node: &ExecNode, n: u64) -> Result<()> {
    eventually("free addresses", PATIENCE * 2, async || {
        let free = node.view().await?.counts.unwrap_or_default().free;
        ensure!(free >= n, "{free} free addresses, not {n}");
        Ok(())
    })
    .await
}

async fn crowd(
    report: &mut Report,
    cluster: &mut ExecCluster,
    size: Size,
    family: &str,
) -> Result<()> {
    let node = &cluster.nodes[0];
    let rss = |node: &ExecNode, n: usize| {
        println!("memory of ipamd, {family}: {} MiB at {n} pods", memory(node)?);
        anyhow::Ok(())
    };
    rss(node, 0)?;
    let mut load = Load::new(node, size, family)?;
    load.grow(1)?;
    load.one_at_a_time(report, node).await?;
    let (took, adds) = load.grow(250)?;
    println!("250 pods, {AT_ONCE} at once, {family}: {:.0} pods/s", 249.0 / took.as_secs_f64());
    report.line(&format!("ADD, {family}, {AT_ONCE} at once"), adds);
    rss(node, 250)?;
    load.one_at_a_time(report, node).await?;
    restart(&mut cluster.nodes[0], &load).await?;
    let node = &cluster.nodes[0];
    load.grow(700)?;
    rss(node, 700)?;
    load.one_at_a_time(report, node).await?;
    load.adds_beside_dels(report)?;
    load.churn(report, size.churn)?;
    let (took, dels) = load.shrink(0)?;
    println!(
        "450 pods, {AT_ONCE} DELs at once, {family}: {:.0} pods/s",
        450.0 / took.as_secs_f64()
    );
    report.line(&format!("DEL, {family}, {AT_ONCE} at once"), dels);
    load.end()
}

/// From the start of a daemon with these pods on record to the end of an ADD that has waited for it.
async fn restart(node: &mut ExecNode, load: &Load) -> Result<()> {
    let pod = names("r", 1);
    namespaces("add", &pod)?;
    node.kill_ipamd().await?;
    let (caller, name, start) = (load.caller.clone(), pod[0].clone(), Instant::now());
    let adding = inside(&load.caller.netns, move || {
        caller.call("ADD", &name)?;
        let took = start.elapsed();
        caller.call("DEL", &name)?;
        Ok(took)
    })?;
    node.start_ipamd().await?;
    let took = tokio::task::spawn_blocking(|| adding.join()).await??;
    println!("start with 250 pods on record to the first served ADD: {} ms", ms(took));
    namespaces("delete", &pod)
}

/// The pods of a node, and how they are made.
struct Load {
    caller: Caller,
    pods: Vec<String>,
    size: Size,
    family: String,
    /// Pods that were made, for their names.
    made: usize,
}

impl Load {
    fn new(node: &ExecNode, size: Size, family: &str) -> Result<Self> {
        let list: Value = serde_json::from_str(&std::fs::read_to_string(node.conflist())?)?;
        let mut config = list["plugins"][0].clone();
        config["cniVersion"] = "1.0.0".into();
        config["name"] = list["name"].clone();
        // The log, with the times of its parts, goes to stderr.
        config["pluginLogFile"] = Value::Null;
        config["pluginLogLevel"] = "info".into();
        let path = node.plugin().parent().context("the plugin's folder")?.to_owned();
        let caller = Caller { netns: node.netns.clone(), plugin: node.plugin(), path, config };
        Ok(Self { caller, pods: Vec::new(), size, family: family.to_owned(), made: 0 })
    }

    fn fresh(&mut self, count: usize) -> Result<Vec<String>> {
        self.made += 1;
        let pods = names(&format!("{}-", self.made), count);
        namespaces("add", &pods)?;
        Ok(pods)
    }

    fn grow(&mut self, n_pods: usize) -> Result<(Duration, Vec<Duration>)> {
        let pods = self.fresh(n_pods.saturating_sub(self.pods.len()))?;
        let measured = self.caller.call_all("ADD", &pods, AT_ONCE)?;
        self.pods.extend(pods);
        Ok(measured)
    }

    /// DELs, and then the namespaces go, as with a runtime.
    fn shrink(&mut self, n_pods: usize) -> Result<(Duration, Vec<Duration>)> {
        let pods = self.pods.split_off(n_pods.min(self.pods.len()));
        let measured = self.caller.call_all("DEL", &pods, AT_ONCE)?;
        namespaces("delete", &pods)?;
        Ok(measured)
    }

    fn end(&mut self) -> Result<()> {
        self.shrink(0).map(drop)
    }

    /// ADD and DEL by turns, beside the pods that there are.
    async fn one_at_a_time(&mut self, report: &mut Report, node: &ExecNode) -> Result<()> {
        let pods = self.fresh(self.size.calls)?;
        let (caller, names) = (self.caller.clone(), pods.clone());
        let measuring = inside(&self.caller.netns, move || {
            let (mut adds, mut dels, mut parts) = (Vec::new(), Vec::new(), Parts::default());
            for pod in &names {
                let add = caller.call("ADD", pod)?;
                parts.add(&add.stderr, add.took)?;
                adds.push(add.took);
                dels.push(caller.call("DEL", pod)?.took);
            }
            Ok((adds, dels, parts))
        })?;
        let (adds, dels, parts) = tokio::task::spawn_blocking(|| measuring.join()).await??;
        let eni = self.next_eni(node).await?;
        let at = format!("{}, {} pods, {eni}", self.family, self.pods.len());
        report.line(&format!("ADD, {at}"), adds);
        report.line(&format!("DEL, {at}"), dels);
        parts.print();
        namespaces("delete", &pods)
    }

    /// On which ENI the pods are that come next: on that of a pod that comes now.
    async fn next_eni(&mut self, node: &ExecNode) -> Result<&'static str> {
        self.grow(self.pods.len() + 1)?;
        let name = self.pods.last().cloned().unwrap_or_default();
        let pods = node.view().await?.pods;
        let is_it = |of: &Option<_>| {
            of.as_ref().is_some_and(|of: &proto::v1::Attachment| of.container_id == name)
        };
        let pod = pods.into_iter().find(|pod| is_it(&pod.attachment)).context("the newest pod")?;
        self.shrink(self.pods.len() - 1)?;
        let table = pod.address.unwrap_or_default().table;
        Ok(if table == MAIN_TABLE { "primary ENI" } else { "secondary ENI" })
    }

    /// One ADD at a time while 16 DELs at a time remove 250 pods.
    fn adds_beside_dels(&mut self, report: &mut Report) -> Result<()> {
        let victims = self.pods.split_off(self.pods.len().saturating_sub(250));
        let pods = self.fresh(self.size.calls)?;
        let (caller, names, stop) =
            (self.caller.clone(), pods.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let adding = inside(&self.caller.netns, move || {
            let running = names.iter().take_while(|_| !stopped.load(Ordering::Relaxed));
            running.map(|pod| Ok(caller.call("ADD", pod)?.took)).collect::<Result<Vec<_>>>()
        })?;
        let deleted = self.caller.call_all("DEL", &victims, AT_ONCE);
        stop.store(true, Ordering::Relaxed);
        let adds = adding.join()?;
        let (done, rest) = pods.split_at(adds.len());
        report.line(&format!("ADD, {}, beside {AT_ONCE} DELs", self.family), adds);
        report.line(&format!("DEL, {}, {AT_ONCE} at once, beside ADDs", self.family), deleted?.1);
        self.pods.extend(done.to_vec());
        namespaces("delete", rest)?;
        namespaces("delete", &victims)
    }

    /// 16 threads, each with pods that come and go, namespaces too.
    fn churn(&self, report: &mut Report, span: Duration) -> Result<()> {
        let until = Instant::now() + span;
        let threads = (0..AT_ONCE).map(|thread| {
            let caller = self.caller.clone();
            inside(&self.caller.netns, move || {
                let (mut adds, mut dels) = (Vec::new(), Vec::new());
                for round in 0.. {
                    if Instant::now() >= until {
                        break;
                    }
                    let pod = names(&format!("c{thread}-{round}-"), 1);
                    namespaces("add", &pod)?;
                    adds.push(caller.call("ADD", &pod[0])?.took);
                    dels.push(caller.call("DEL", &pod[0])?.took);
                    namespaces("delete", &pod)?;
                }
                Ok((adds, dels))
            })
        });
        let threads = threads.collect::<Result<Vec<_>>>()?;
        let (mut adds, mut dels) = (Vec::new(), Vec::new());
        for thread in threads {
            let (more_adds, more_dels) = thread.join()?;
            adds.extend(more_adds);
            dels.extend(more_dels);
        }
        let n = u32::try_from(adds.len())?;
        println!("churn, {}: {:.0} pods/s", self.family, f64::from(n) / span.as_secs_f64());
        report.line(&format!("churn, {}: ADD", self.family), adds);
        report.line(&format!("churn, {}: DEL", self.family), dels);
        Ok(())
    }
}

/// The times of an ADD's parts, by the plugin's log.
#[derive(Debug, Default)]
struct Parts(BTreeMap<&'static str, Vec<Duration>>);

/// The keys in the log, in the order of an ADD.
const PARTS: [(&str, &str); 4] = [
    ("connect_us", "connect"),
    ("daemon_us", "daemon and disk"),
    ("link_us", "netlink"),
    ("confirm_us", "confirm"),
];

impl Parts {
    fn add(&mut self, log: &[u8], took: Duration) -> Result<()> {
        let mut lines = log
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let line = lines.rfind(|line| line["message"] == "pod connected").context("no log line")?;
        let mut rest = took;
        for (key, part) in PARTS {
            let span =
                Duration::from_micros(line[key].as_u64().with_context(|| format!("no {key}"))?);
            rest = rest.saturating_sub(span);
            self.0.entry(part).or_default().push(span);
        }
        self.0.entry("exec, log, exit").or_default().push(rest);
        Ok(())
    }

    fn print(mut self) {
        let medians = self.0.iter_mut().map(|(part, times)| {
            times.sort_unstable();
            format!("{part} {}", ms(times[times.len() / 2]))
        });
        println!("    medians of its parts in ms: {}", medians.collect::<Vec<_>>().join(", "));
    }
}
