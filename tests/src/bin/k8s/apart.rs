//! Nodes without the API server: pods that run go on, and a sandbox that dies gets a new one, with an address.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::cluster::NodeOf;
use tests::k8s::{Kubernetes, Machine, PATIENCE, Pod};
use tests::process::eventually;
use tests::story::Story;
use tokio::time::Instant;

use crate::changes::{Pinged, finish};
use crate::reach::failed_sandboxes;
use crate::workload::{Churn, deployment, gone, idle};

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);
/// Pods whose sandboxes die meanwhile.
const DYING: usize = 4;

/// For a minute.
pub(crate) async fn api_server_away(k8s: &mut Kubernetes, story: &Story) -> Result<()> {
    let (before, pinged) = (failed_sandboxes(k8s).await?, Pinged::start(k8s).await?);
    k8s.apply(&deployment("dying", DYING, idle())).await?;
    let dying = k8s.ready("dying", DYING).await?;
    let churn = Churn::start(k8s).await?;
    let end = Instant::now() + AWAY;
    k8s.control_plane.kill_api_server().await?;
    for pod in &dying {
        let node = k8s.node(pod.node())?;
        end_sandbox(k8s, node, pod)
            .await
            .with_context(|| format!("without API server, {}", pod.name()))?;
    }
    story.good(&format!("{DYING} sandboxes died and got addresses again without the API server"));
    tokio::time::sleep_until(end).await;
    k8s.control_plane.start_api_server().await?;
    churn.goes_on(DYING).await.context("after the API server's return")?;
    k8s.ready("dying", DYING).await?;
    k8s.kubectl(&["delete", "deployment", "dying"]).await?;
    gone(k8s, "dying").await?;
    finish(k8s, story, churn, pinged, before).await
}

/// Kills the process that holds a pod's sandbox, and waits until the daemon has given the pod's next sandbox an address.
async fn end_sandbox(k8s: &Kubernetes, node: &NodeOf<Machine>, pod: &Pod) -> Result<()> {
    let container = async || {
        let pods = node.view().await?.pods.into_iter();
        let mut of = pods.filter(|one| one.pod.as_ref().is_some_and(|one| one.name == pod.name()));
        let of = of.next().context("the daemon does not know the pod")?;
        anyhow::Ok(of.attachment.context("no attachment")?.container_id)
    };
    let before = container().await?;
    let netns = &k8s.namespaces(std::slice::from_ref(pod)).await?[0].netns;
    let netns = std::fs::metadata(netns).context("find the pod's namespace")?;
    let holds_it = |folder: &Path| {
        use std::os::unix::fs::MetadataExt as _;
        let is_pause = std::fs::read(folder.join("cmdline")).is_ok_and(|line| line == PAUSE);
        let there = std::fs::metadata(folder.join("ns/net"));
        is_pause && there.is_ok_and(|there| there.ino() == netns.ino())
    };
    let holders = node.runtime.processes(holds_it)?;
    ensure!(holders.len() == 1, "{} processes hold the sandbox of {}", holders.len(), pod.name());
    node.runtime.kill(&holders[0]).await?;
    eventually("address of the next sandbox", PATIENCE, async || {
        let now = container().await?;
        ensure!(now != before, "still {before}");
        Ok(())
    })
    .await
}

/// What the process of a sandbox is started as, with the separators of /proc.
const PAUSE: &[u8] = b"/bin/sleep\x002147483647\x00";
