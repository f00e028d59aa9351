//! Changes and crashes of what runs on the nodes. Pods are pinged all the while, and none of the pings may be lost.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::k8s::{Kubernetes, PATIENCE};
use tests::pings::Pings;
use tests::process::eventually;
use tests::story::Story;

use crate::reach::failed_sandboxes;
use crate::workload::{Churn, deployment, gone, idle};

/// The pods that are pinged.
const PINGED: &str = "pinged";
const N_PINGED: usize = 8;
/// How many of them start together.
const STEP: usize = 40;
/// Pods that come and go after each change.
const FEW: usize = 4;

/// Pods that stay, and their pings.
pub(crate) struct Pinged {
    pings: Vec<Pings>,
    addresses: BTreeSet<String>,
}

impl Pinged {
    pub(crate) async fn start(k8s: &Kubernetes) -> Result<Self> {
        Self::start_many(k8s, N_PINGED).await
    }

    /// So many, in steps that each come up in time.
    pub(crate) async fn start_many(k8s: &Kubernetes, count: usize) -> Result<Self> {
        let mut pods = vec![];
        for step in (0..count).step_by(STEP) {
            let until = count.min(step + STEP);
            k8s.apply(&deployment(PINGED, until, idle())).await?;
            pods = k8s.ready(PINGED, until).await?;
        }
        let mut pings = vec![];
        for node in &k8s.cluster.nodes {
            let here = pods.iter().filter(|pod| pod.node() == node.runtime.name).cloned();
            let here = k8s.namespaces(&here.collect::<Vec<_>>()).await?;
            pings.push(Pings::start(node, &here).await?);
        }
        let addresses = pods.iter().map(|pod| pod.ip().to_owned()).collect();
        Ok(Self { pings, addresses })
    }

    /// The pods' addresses.
    pub(crate) fn addresses(&self) -> &BTreeSet<String> {
        &self.addresses
    }

    /// Ends the pings and the pods, which no kubelet may have started again. Gives the number of answers.
    pub(crate) async fn none_is_lost(self, k8s: &Kubernetes) -> Result<usize> {
        let mut n_answered = 0;
        for pings in self.pings {
            n_answered += pings.none_is_lost().await?;
        }
        let pods = k8s.pods.of(PINGED);
        let n_restarts: u64 = pods.iter().map(tests::k8s::Pod::restarts).sum();
        ensure!(n_restarts == 0, "{n_restarts} containers have been started again");
        let addresses: BTreeSet<_> = pods.iter().map(|pod| pod.ip().to_owned()).collect();
        ensure!(addresses == self.addresses, "other pods have taken the place of some");
        k8s.kubectl(&["delete", "deployment", PINGED]).await?;
        gone(k8s, PINGED).await?;
        Ok(n_answered)
    }
}

/// What people do to tune it.
pub(crate) async fn settings(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let pinged = Pinged::start(k8s).await?;
    set_env(k8s, &["WARM_IP_TARGET=2"]).await?;
    has_free(k8s, 2).await.context("WARM_IP_TARGET=2")?;
    story.good("rolled out, and each node holds 2 free addresses");
    k8s.apply(&deployment("more", N_PINGED, idle())).await?;
    k8s.ready("more", N_PINGED).await?;
    k8s.kubectl(&["delete", "deployment", "more"]).await?;
    gone(k8s, "more").await?;
    set_env(k8s, &["WARM_IP_TARGET-"]).await?;
    let n_pings = pinged.none_is_lost(k8s).await?;
    story.good(&format!(
        "{N_PINGED} new pods, and the setting taken back: {n_pings} pings, none lost"
    ));
    Ok(())
}

/// What people do to tune it without a roll-out.
pub(crate) async fn config_map(k8s: &Kubernetes, story: &Story) -> Result<()> {
    const MAP: &str = "configmap/tidepool-settings";
    let kube_system =
        async |words: &[&str]| k8s.kubectl(&[&["--namespace=kube-system"], words].concat()).await;
    let set = async |value: &str| {
        let patch = format!(r#"{{"data": {{"WARM_IP_TARGET": "{value}"}}}}"#);
        kube_system(&["patch", MAP, "--patch", &patch]).await
    };
    let daemons = ["get", "pods", "--selector=k8s-app=aws-node", "--output=name"];
    let before = kube_system(&daemons).await?;
    kube_system(&["create", "configmap", "tidepool-settings", "--from-literal=WARM_IP_TARGET=3"])
        .await?;
    has_free(k8s, 3).await.context("a ConfigMap with WARM_IP_TARGET=3")?;
    set("4").await?;
    has_free(k8s, 4).await.context("a ConfigMap with WARM_IP_TARGET=4")?;
    story.good("each node holds 3 free addresses, and then 4");
    set("many").await?;
    let refused = "--field-selector=reason=SETTINGS_REFUSED";
    eventually("an event of the refused value", PATIENCE, async || {
        let events = k8s.kubectl(&["get", "events", "--all-namespaces", refused]).await?;
        ensure!(events.contains("WARM_IP_TARGET"), "{events}");
        Ok(())
    })
    .await?;
    has_free(k8s, 4).await.context("a ConfigMap with a bad value")?;
    kube_system(&["delete", MAP]).await?;
    ensure!(kube_system(&daemons).await? == before, "the daemons have been replaced");
    story.good("a bad value changes nothing and is an event; no daemon was restarted");
    Ok(())
}

/// `kubectl set env`, and the roll-out that follows.
pub(crate) async fn set_env(k8s: &Kubernetes, settings: &[&str]) -> Result<()> {
    let words =
        [&["--namespace=kube-system", "set", "env", "daemonset/aws-node"][..], settings].concat();
    k8s.kubectl(&words).await?;
    rolled_out(k8s).await
}

/// Waits until every node has the DaemonSet's newest pod, ready.
pub(crate) async fn rolled_out(k8s: &Kubernetes) -> Result<()> {
    let words =
        ["--namespace=kube-system", "rollout", "status", "daemonset/aws-node", "--timeout=180s"];
    k8s.kubectl(&words).await.map(|_| ())
}

/// Waits until each node has so many free addresses.
pub(crate) async fn has_free(k8s: &Kubernetes, wanted: u64) -> Result<()> {
    for node in &k8s.cluster.nodes {
        eventually("so many free addresses", PATIENCE, async || {
            let counts = node.view().await?.counts.context("no counts")?;
            ensure!(counts.free == wanted && counts.cooling == 0, "{counts:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// What a person does to the DaemonSet.
pub(crate) async fn restarts(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let (before, pinged) = (failed_sandboxes(k8s).await?, Pinged::start(k8s).await?);
    let churn = Churn::start(k8s).await?;
    churn.goes_on(FEW).await?;
    k8s.kubectl(&["--namespace=kube-system", "rollout", "restart", "daemonset/aws-node"]).await?;
    rolled_out(k8s).await?;
    churn.goes_on(FEW).await?;
    k8s.kubectl(&["--namespace=kube-system", "delete", "pods", "--selector=k8s-app=aws-node"])
        .await?;
    rolled_out(k8s).await?;
    churn.goes_on(FEW).await?;
    finish(k8s, story, churn, pinged, before).await
}

/// What the kernel or a bug does to programs of a node.
pub(crate) async fn crashes(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let (before, pinged) = (failed_sandboxes(k8s).await?, Pinged::start(k8s).await?);
    let churn = Churn::start(k8s).await?;
    for node in &k8s.cluster.nodes {
        // Probes are processes of its program too.
        let is_daemon = |folder: &Path| {
            let line = std::fs::read_to_string(folder.join("cmdline"));
            line.is_ok_and(|line| line.starts_with("/app/ipamd\0run\0"))
        };
        let daemons = node.runtime.processes(is_daemon)?;
        ensure!(daemons.len() == 1, "daemons on {}: {daemons:?}", node.runtime.name);
        node.runtime.kill(&daemons[0]).await.context("kill -9 of ipamd")?;
        churn.goes_on(FEW).await.context("after kill -9 of ipamd")?;
        for service in ["containerd", "kubelet"] {
            node.runtime.crash(service).await?;
            churn.goes_on(FEW).await.with_context(|| format!("after kill -9 of {service}"))?;
        }
    }
    rolled_out(k8s).await?;
    finish(k8s, story, churn, pinged, before).await
}

/// All is well in the end, and says at what price.
pub(crate) async fn finish(
    k8s: &Kubernetes,
    story: &Story,
    churn: Churn,
    pinged: Pinged,
    before: u64,
) -> Result<()> {
    let n_deleted = churn.end(k8s).await?;
    let n_pings = pinged.none_is_lost(k8s).await?;
    k8s.cluster.books_agree(&[]).await?;
    let n_failed = failed_sandboxes(k8s).await?.saturating_sub(before);
    story.good(&format!(
        "{n_deleted} pods went and came; {n_failed} sandboxes failed at first, all came up; {n_pings} pings, none lost"
    ));
    Ok(())
}
