//! A cluster goes from an earlier build to this one and back, by the image of its DaemonSet.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use tests::k8s::Kubernetes;
use tests::story::Story;

use crate::changes::{Pinged, rolled_out};
use crate::install::{archive, load, nothing_blocks};
use crate::reach::{failed_sandboxes, nothing_is_left};
use crate::workload::{Churn, deployment, gone, idle, scale};

/// Pods that stay, and pods that each build takes down of the other's.
const STAYING: usize = 160;
const MOVING: usize = 34;
/// Pods that come and go after each change, besides.
const FEW: usize = 6;
const APP: &str = "moving";

/// There and back under 200 pods: those two kinds, and the six of the churn.
pub(crate) async fn upgrade(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let (before, old) = (failed_sandboxes(k8s).await?, image(k8s).await?);
    let new = load(k8s, &archive()?).await?;
    ensure!(old != new, "both builds are named {old}");
    let pinged = Pinged::start_many(k8s, STAYING).await?;
    k8s.apply(&deployment(APP, MOVING, idle())).await?;
    let mut used: BTreeSet<_> = pinged.addresses().clone();
    used.extend(replaced(k8s, &BTreeSet::new()).await?.1);
    let churn = Churn::start(k8s).await?;
    story.good(&format!("{} pods run, made by {old}", STAYING + MOVING + FEW));
    for image in [&new, &old] {
        churn.goes_on(FEW).await?;
        set_image(k8s, image).await?;
        churn.goes_on(FEW).await.with_context(|| format!("after the change to {image}"))?;
        nothing_blocks(k8s).await?;
        k8s.cluster.books_agree(&[]).await.with_context(|| image.to_string())?;
        // Pods of the build before end, and others start.
        let (uids, _) = replaced(k8s, &BTreeSet::new()).await?;
        k8s.kubectl(&["rollout", "restart", &format!("deployment/{APP}")]).await?;
        let rollout = format!("deployment/{APP}");
        k8s.kubectl(&["rollout", "status", &rollout, "--timeout=180s"]).await?;
        used.extend(replaced(k8s, &uids).await?.1);
        story.good(&format!("{image} is rolled out, and has replaced {MOVING} pods of the other"));
    }
    let n_deleted = churn.end(k8s).await?;
    let n_pings = pinged.none_is_lost(k8s).await?;
    scale(k8s, APP, 0).await?;
    gone(k8s, APP).await?;
    nothing_is_left(k8s, &used).await?;
    let n_failed = failed_sandboxes(k8s).await?.saturating_sub(before);
    story.good(&format!(
        "{n_deleted} more pods went and came; {n_failed} sandboxes failed at first, all came up; {n_pings} pings, none lost, nothing left"
    ));
    Ok(())
}

/// The uids and the addresses of the pods of [`APP`], all ready, with none of the uids `former`.
async fn replaced(
    k8s: &Kubernetes,
    former: &BTreeSet<String>,
) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let pods = k8s.ready(APP, MOVING).await?;
    let uids: BTreeSet<_> = pods.iter().map(|pod| pod.uid().to_owned()).collect();
    ensure!(uids.is_disjoint(former), "some pods have not been replaced");
    Ok((uids, pods.iter().map(|pod| pod.ip().to_owned()).collect()))
}

/// The daemon's image by the DaemonSet.
async fn image(k8s: &Kubernetes) -> Result<String> {
    let path = "/apis/apps/v1/namespaces/kube-system/daemonsets/aws-node";
    let daemon_set = k8s.api.get(path).await?;
    let image = &daemon_set["spec"]["template"]["spec"]["containers"][0]["image"];
    Ok(image.as_str().context("a DaemonSet without an image")?.to_owned())
}

/// As a user does it, and the roll-out that follows.
async fn set_image(k8s: &Kubernetes, image: &str) -> Result<()> {
    let containers = ["aws-node", "aws-vpc-cni-init"].map(|name| format!("{name}={image}"));
    let words = ["--namespace=kube-system", "set", "image", "daemonset/aws-node"];
    k8s.kubectl(&[&words[..], &[&containers[0], &containers[1]]].concat()).await?;
    rolled_out(k8s).await
}
