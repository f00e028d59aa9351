//! `kill -9` after each durable step and between each two calls of EC2, of the daemon and of the plugin:
//! at every fail point, one after the other. Pods that run are pinged all the while and miss nothing;
//! afterwards record, kernel and EC2 agree, no ENI and no address is left over, and no two pods share one.

mod daemon;
mod groups;
pub(crate) mod plugin;
mod ports;
mod record;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use failpoint::Order;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod};
use tests::pings::Pings;
use tests::process::{eventually, program};

use crate::all_reachable;

/// How long recovery from a crash may take.
const RECOVERY: Duration = Duration::from_secs(60);

/// Short delays, so that the pool shrinks within a test.
const QUICK: [(&str, &str); 4] = [
    ("WARM_IP_TARGET", "1"),
    ("IP_COOLDOWN_PERIOD", "1"),
    ("TIDEPOOL_SHRINK_DELAY", "200ms"),
    ("TIDEPOOL_MIN_ENI_AGE", "0s"),
];

/// One t3.medium, which takes 5 addresses on each of 3 ENIs, or prefixes.
pub(crate) fn quick(name: &str, settings: &[(&'static str, &str)]) -> Spec {
    Spec::new(name, "t3.medium", 1, &[&QUICK, settings].concat())
}

/// How many ENIs the node has, and blocks on them, once the pool neither grows nor shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    n_enis: usize,
    n_blocks: usize,
}

async fn size(node: &ExecNode) -> Result<Size> {
    let view = node.view().await?;
    ensure!(view.in_flight.is_empty(), "calls under way: {:?}", view.in_flight);
    let n_blocks = view.enis.iter().map(|eni| eni.blocks.len()).sum();
    Ok(Size { n_enis: view.enis.len(), n_blocks })
}

async fn until_size(node: &ExecNode, expected: Size) -> Result<()> {
    eventually("return to the pool's size", RECOVERY, async || {
        let size = size(node).await?;
        ensure!(size == expected, "{size:?}, not {expected:?}");
        Ok(())
    })
    .await
}

/// Checks that exactly these pods have an address, each its own, and that all are reached.
pub(crate) async fn all_is_well(cluster: &ExecCluster, pods: &[Pod]) -> Result<()> {
    let node = &cluster.nodes[0];
    let expected: BTreeSet<_> = pods.iter().map(|pod| (pod.name.clone(), pod.ip.clone())).collect();
    let ips: BTreeSet<_> = pods.iter().map(|pod| &pod.ip).collect();
    ensure!(ips.len() == pods.len(), "an address is given twice: {pods:?}");
    eventually("pods on record", RECOVERY, async || {
        let held = node.held().await?;
        ensure!(held == expected, "on record: {held:?}, running: {expected:?}");
        Ok(())
    })
    .await?;
    all_reachable(node, pods).await?;
    cluster.books_agree(&[]).await
}

/// Runs `body` on a node with `n_pods` pods and pings them meanwhile: all from the node, and the last one from
/// outside.
pub(crate) async fn with_pods(
    spec: Spec,
    n_pods: usize,
    body: impl AsyncFnOnce(&mut ExecCluster, &[Pod]) -> Result<()>,
) -> Result<()> {
    ExecCluster::with(spec, async |cluster| {
        let steady = cluster.nodes[0].runtime.run_all("steady", n_pods).await?;
        all_is_well(cluster, &steady).await.context("before")?;
        let pings = Pings::start(&cluster.nodes[0], &steady).await?;
        body(cluster, &steady).await?;
        pings.none_is_lost().await.map(|_| ())
    })
    .await
}

/// `body` at each of `points`, on one node with `n_pods` that are pinged; after each, these are as before.
async fn at_each(
    spec: Spec,
    n_pods: usize,
    points: &[&str],
    body: impl AsyncFn(&mut ExecNode, &[Pod], &str) -> Result<()>,
) -> Result<()> {
    with_pods(spec, n_pods, async |cluster, steady| {
        for point in points {
            body(&mut cluster.nodes[0], steady, point)
                .await
                .with_context(|| format!("at {point}"))?;
            all_is_well(cluster, steady).await.with_context(|| format!("after {point}"))?;
        }
        Ok(())
    })
    .await
}

/// A daemon starts and dies at `point`; the next one lives.
async fn dies_as_it_starts(node: &mut ExecNode, point: &str) -> Result<()> {
    node.arm(point, Order::Kill)?;
    node.start_ipamd_to_die().await?;
    node.start_ipamd().await
}

/// The shipped plugin has neither the points nor their variable, in any environment.
#[test]
fn shipped_plugin_has_no_fail_points() -> Result<()> {
    let has = |plugin: &Path, word: &str| -> Result<bool> {
        let bytes = std::fs::read(plugin).with_context(|| format!("read {}", plugin.display()))?;
        Ok(bytes.windows(word.len()).any(|window| window == word.as_bytes()))
    };
    let words = [failpoint::VARIABLE, "unruled", "furnished"];
    let shipped =
        std::env::var_os("TIDEPOOL_CNI").context("run `make plugin`, set TIDEPOOL_CNI")?;
    let for_tests = program("aws-cni")?;
    for word in words {
        ensure!(has(&for_tests, word)?, "{word:?} is not in {}", for_tests.display());
        ensure!(!has(Path::new(&shipped), word)?, "{word:?} is in the shipped plugin");
    }
    Ok(())
}

#[test]
fn every_fail_point_is_tried() {
    let all = |lists: &[&[&'static str]]| -> BTreeSet<&str> {
        lists.iter().flat_map(|list| list.iter().copied()).collect()
    };
    let daemon = all(&[
        daemon::GROWTH,
        daemon::SHRINKING,
        daemon::START,
        daemon::ASKED,
        record::BOOTED,
        record::RESTING,
        record::DELEGATING,
        record::ASSIGNING,
        groups::SETTING,
    ]);
    assert_eq!(daemon, all(&[failpoint::IPAMD]));
    assert_eq!(
        all(&[plugin::ADD, plugin::CHILD, plugin::DEL, plugin::NOTE, plugin::GC, ports::OPENING,]),
        all(&[failpoint::PLUGIN])
    );
}
