//! How long pods take from their binding to a node until they are ready.

use std::time::Duration;

use anyhow::{Context, Result};
use tests::k8s::{Kubernetes, Pod};
use tests::story::Story;

use crate::changes::{has_free, set_env};
use crate::workload::{deployment, gone, idle};

/// Pods that start together.
const PODS: usize = 10;
const ROUNDS: usize = 4;

/// With addresses at hand, and with none.
pub(crate) async fn speed(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let at_hand = u64::try_from(PODS).context("a small number")?;
    set_env(k8s, &[&format!("WARM_IP_TARGET={at_hand}")]).await?;
    measure(k8s, story, "addresses at hand", at_hand).await?;
    // A node holds one address at least. A pod that stays has it, and nothing is kept beside it.
    set_env(k8s, &["WARM_IP_TARGET=0", "MINIMUM_IP_TARGET=1"]).await?;
    let n_nodes = k8s.cluster.nodes.len();
    k8s.apply(&deployment("holds", n_nodes, idle())).await?;
    k8s.ready("holds", n_nodes).await?;
    measure(k8s, story, "no address at hand", 0).await?;
    k8s.kubectl(&["delete", "deployment", "holds"]).await?;
    gone(k8s, "holds").await?;
    set_env(k8s, &["WARM_IP_TARGET-", "MINIMUM_IP_TARGET-"]).await
}

async fn measure(k8s: &Kubernetes, story: &Story, what: &str, free: u64) -> Result<()> {
    let mut starts = vec![];
    for _ in 0..ROUNDS {
        has_free(k8s, free).await?;
        k8s.apply(&deployment("fast", PODS, idle())).await?;
        let pods = k8s.ready("fast", PODS).await?;
        starts.extend(pods.iter().filter_map(Pod::start));
        k8s.kubectl(&["delete", "deployment", "fast"]).await?;
        gone(k8s, "fast").await?;
    }
    starts.sort_unstable();
    let at = |percent: usize| starts.get((starts.len() * percent).div_ceil(100).saturating_sub(1));
    let seconds = |percent| at(percent).map_or(f64::NAN, Duration::as_secs_f64);
    let (p50, p99) = (seconds(50), seconds(99));
    story.good(&format!(
        "{what}: {PODS} pods at once, p50 {p50:.2} s, p99 {p99:.2} s ({} starts)",
        starts.len()
    ));
    Ok(())
}
