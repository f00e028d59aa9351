//! `upgrade FOLDER [PODS]`: a node goes from the build in FOLDER to this one, back, and here again, while
//! its pods are pinged. No ping may be lost; each build's programs take down what the other's have made.
//!
//! `make test` has one build, and that it gets on with itself proves nothing. There the record of another
//! version is held by `log_of_first_version_is_read_and_upgraded` and
//! `record_of_a_later_version_keeps_pods_addresses`.

#![expect(clippy::print_stdout, reason = "it tells how far it has come")]

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::books::kernel;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::install::Build;
use tests::pings::Pings;
use tests::process::{eventually, interrupted};

const PODS: usize = 200;
const FEWEST: usize = 40;
/// The pool shrinks while one waits, and not before a pod could have used an address again.
const SETTINGS: [(&str, &str); 5] = [
    ("WARM_IP_TARGET", "5"),
    ("TIDEPOOL_MAX_PODS", "234"),
    ("IP_COOLDOWN_PERIOD", "1"),
    ("TIDEPOOL_SHRINK_DELAY", "5s"),
    ("TIDEPOOL_MIN_ENI_AGE", "0s"),
];
/// A daemon that cannot read its predecessor's record goes by the kernel, which it asks every minute; and what
/// an outdated record has let rest is not given to a pod that runs there for 150 s.
const PATIENCE: Duration = Duration::from_secs(240);

/// Which build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Old,
    New,
}

/// Whose programs are at work on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hands {
    plugin: Age,
    daemon: Age,
}

const OLD: Hands = Hands { plugin: Age::Old, daemon: Age::Old };
const NEW: Hands = Hands { plugin: Age::New, daemon: Age::New };
/// An installer replaces the plugin first, on the way there and on the way back.
const ARRIVING: Hands = Hands { plugin: Age::New, daemon: Age::Old };
const LEAVING: Hands = Hands { plugin: Age::Old, daemon: Age::New };

/// There and back, step by step.
const FIRST_ROUND: [Hands; 4] = [OLD, ARRIVING, NEW, LEAVING];
/// Again at once, so that the old daemon comes back where the new one has started only once.
const SECOND_ROUND: [Hands; 4] = [OLD, NEW, ARRIVING, LEAVING];

impl fmt::Display for Hands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |age| if age == Age::Old { "old" } else { "new" };
        write!(f, "{} plugin, {} daemon", word(self.plugin), word(self.daemon))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("upgrade: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("which folder has the other build?")?);
    let n_pods = arguments.next().map_or(Ok(PODS), |pods| pods.parse()).context("how many pods")?;
    ensure!(n_pods >= FEWEST, "at least {FEWEST} pods, or not all hands have some to take down");
    let old = Build { ipamd: folder.join("ipamd"), plugin: folder.join("aws-cni") };
    let new = Build::this()?;
    for (what, prefixes) in [("addresses", "false"), ("prefixes", "true")] {
        println!("with {what}:");
        let settings = [&SETTINGS[..], &[("ENABLE_PREFIX_DELEGATION", prefixes)]].concat();
        // Eight ENIs; single addresses for 200 pods take seven.
        let mut spec = Spec::new("upg", "m5.4xlarge", 1, &settings);
        spec.nodes[0].build = Some(old.clone());
        let upgrade = async |cluster: &mut ExecCluster| {
            let upgrade = Upgrade::new(cluster, old.clone(), new.clone());
            tokio::select! {
                done = upgrade.run(n_pods) => done,
                interrupted = interrupted() => interrupted,
            }
        };
        ExecCluster::with(spec, upgrade).await.with_context(|| format!("with {what}"))?;
    }
    Ok(())
}

/// A pod that runs, who has made it, and its pings.
struct Live {
    pod: Pod,
    maker: Hands,
    pings: Pings,
}

struct Upgrade<'a> {
    cluster: &'a mut ExecCluster,
    old: Build,
    new: Build,
    hands: Hands,
    /// The oldest first.
    live: Vec<Live>,
    /// Addresses that pods have had.
    used: BTreeSet<String>,
    n_made: usize,
    n_pings: usize,
}

impl<'a> Upgrade<'a> {
    fn new(cluster: &'a mut ExecCluster, old: Build, new: Build) -> Self {
        let (live, used) = (vec![], BTreeSet::new());
        Self { cluster, old, new, hands: OLD, live, used, n_made: 0, n_pings: 0 }
    }

    /// In the first round all hands make pods; in the second each takes down some that each has made,
    /// itself included, and makes others instead.
    async fn run(mut self, n_pods: usize) -> Result<()> {
        let share = n_pods / FIRST_ROUND.len();
        for (index, hands) in FIRST_ROUND.into_iter().enumerate() {
            self.pass_to(hands).await?;
            self.make(share * (index + 1)).await?;
            self.all_is_well().await?;
        }
        for hands in SECOND_ROUND {
            self.pass_to(hands).await?;
            for maker in FIRST_ROUND {
                let n = self.take_down(share / 6, |live| live.maker == maker).await?;
                ensure!(n == share / 6, "no pods made by {maker} are left");
            }
            self.until_rested().await?;
            self.make(n_pods).await?;
            self.all_is_well().await?;
        }
        self.pass_to(NEW).await?;
        self.take_down(n_pods, |_| true).await?;
        self.nothing_is_left().await?;
        let (n_pods, n_used, n_pings) = (self.n_made, self.used.len(), self.n_pings);
        ensure!(n_used < n_pods, "no address was used again");
        println!("  {n_pods} pods at {n_used} addresses, {n_pings} pings, none lost, nothing left");
        Ok(())
    }

    fn node(&self) -> &ExecNode {
        &self.cluster.nodes[0]
    }

    /// Restarts the daemon with other programs. Meanwhile the plugin before leaves a DEL on disk, and so
    /// does the one after, both of pods that the hands before have made.
    async fn pass_to(&mut self, hands: Hands) -> Result<()> {
        let build = |age| if age == Age::Old { self.old.clone() } else { self.new.clone() };
        let (plugin, daemon) = (build(hands.plugin), build(hands.daemon));
        let before = self.hands;
        self.cluster.nodes[0].stop_ipamd().await?;
        self.take_down(1, |live| live.maker == before).await?;
        self.node().install_plugin(&plugin)?;
        self.take_down(1, |live| live.maker == before).await?;
        let node = &mut self.cluster.nodes[0];
        node.install_ipamd(&daemon);
        node.start_ipamd().await.with_context(|| hands.to_string())?;
        self.hands = hands;
        self.all_is_well().await.context("after the start")
    }

    /// New pods, until there are `n_pods`.
    async fn make(&mut self, n_pods: usize) -> Result<()> {
        let n = n_pods.saturating_sub(self.live.len());
        let made = self.node().runtime.run_all(&format!("p{}x", self.n_made), n).await;
        for pod in made.with_context(|| self.hands.to_string())? {
            let pings = Pings::start(self.node(), std::slice::from_ref(&pod)).await?;
            self.used.insert(pod.ip.clone());
            self.live.push(Live { pod, maker: self.hands, pings });
        }
        self.n_made += n;
        Ok(())
    }

    /// The oldest `n` of those that are `chosen`, or as many as there are; gives their number.
    async fn take_down(&mut self, n: usize, chosen: impl Fn(&Live) -> bool) -> Result<usize> {
        let mut places = 0..n;
        let gone = self.live.extract_if(.., |live| chosen(live) && places.next().is_some());
        let mut pods = vec![];
        for Live { pod, maker, pings } in gone.collect::<Vec<_>>() {
            let who = || format!("made by {maker}; now {}", self.hands);
            self.n_pings += pings.none_is_lost().await.with_context(who)?;
            pods.push(pod);
        }
        let removed = self.node().runtime.remove_all(&pods).await;
        removed.with_context(|| self.hands.to_string())?;
        Ok(pods.len())
    }

    async fn until_rested(&self) -> Result<()> {
        eventually("end of the rests", PATIENCE, async || {
            let counts = self.node().view().await?.counts.context("no counts")?;
            ensure!(counts.cooling == 0, "{counts:?}");
            Ok(())
        })
        .await
    }

    /// No two pods have one address, a GC that names all takes none, and no address of theirs is free; by
    /// this checkout's daemon all are on record and in agreement in the end.
    async fn all_is_well(&self) -> Result<()> {
        let pods: Vec<_> = self.live.iter().map(|live| live.pod.clone()).collect();
        let ips: BTreeSet<_> = pods.iter().map(|pod| &pod.ip).collect();
        ensure!(ips.len() == pods.len(), "an address is given twice: {pods:?}");
        self.node().runtime.gc(&pods).await.with_context(|| self.hands.to_string())?;
        let kept = eventually("accord of daemon and pods", PATIENCE, || self.kept(&pods)).await;
        let (n_recorded, n_withheld) = kept.with_context(|| self.hands.to_string())?;
        println!("  {}: {n_recorded} pods on record, {n_withheld} in quarantine", self.hands);
        match self.hands.daemon {
            Age::Old => Ok(()),
            Age::New => self.all_is_known(&pods).await.with_context(|| self.hands.to_string()),
        }
    }

    /// How many addresses are on record, and how many in quarantine: together those of the pods. A daemon
    /// that cannot read the record has an outdated one at first, in which former pods have some.
    async fn kept(&self, pods: &[Pod]) -> Result<(u64, u64)> {
        let ips: BTreeSet<_> = pods.iter().map(|pod| &pod.ip).collect();
        let held = self.node().held().await?;
        let strange: Vec<_> = held.iter().filter(|(_, ip)| !ips.contains(ip)).collect();
        ensure!(strange.is_empty(), "on record, and no pod's: {strange:?}");
        let counts = self.node().view().await?.counts.context("no counts")?;
        ensure!(counts.assigned + counts.quarantined == pods.len() as u64, "{counts:?}");
        Ok((counts.assigned, counts.quarantined))
    }

    async fn all_is_known(&self, pods: &[Pod]) -> Result<()> {
        let running: BTreeSet<_> =
            pods.iter().map(|pod| (pod.name.clone(), pod.ip.clone())).collect();
        eventually("record of all pods", PATIENCE, async || {
            let held = self.node().held().await?;
            let missing: Vec<_> = running.difference(&held).collect();
            ensure!(held == running, "{} on record; not: {missing:?}", held.len());
            Ok(())
        })
        .await?;
        for pod in pods {
            self.node().runtime.check(pod).await.with_context(|| format!("CHECK of {pod:?}"))?;
        }
        self.cluster.books_agree(&[]).await
    }

    /// The pool goes back to one ENI, and neither disk nor kernel know of a pod.
    async fn nothing_is_left(&self) -> Result<()> {
        eventually("return to one ENI", PATIENCE, async || {
            let view = self.node().view().await?;
            let calm = view.enis.len() == 1 && view.in_flight.is_empty();
            ensure!(calm, "{:?} {:?}", view.enis, view.in_flight);
            Ok(())
        })
        .await?;
        self.all_is_well().await?;
        let notes = self.node().pending_dels()?;
        ensure!(notes.is_empty(), "DELs on disk: {notes:?}");
        let kernel = kernel(&format!("/run/netns/{}", self.node().netns)).await?;
        let words: BTreeSet<_> = kernel.split([' ', '/', '\n']).collect();
        let left: Vec<_> = self.used.iter().filter(|ip| words.contains(ip.as_str())).collect();
        ensure!(left.is_empty(), "left of pods: {left:?} in\n{kernel}");
        Ok(())
    }
}
