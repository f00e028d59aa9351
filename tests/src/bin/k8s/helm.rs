//! Tidepool by Helm: a release takes over what kubectl has applied, and is changed, removed and installed again.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::k8s::{Kubernetes, PATIENCE};
use tests::process::eventually;
use tests::story::Story;

use crate::changes::{Pinged, has_free, rolled_out};
use crate::install::{ENVIRONMENT, archive, load};
use crate::reach::all_reach_all;
use crate::workload::{deployment, gone, idle};

/// The chart that users install.
pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/chart");
/// The name of the release, as EKS has it.
pub(crate) const RELEASE: &str = "aws-vpc-cni";
const DAEMON_SET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/aws-node";
const CRD: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/eniconfigs.crd.k8s.amazonaws.com";
/// Pods that start under each release.
const FEW: usize = 4;

/// A life with Helm, under pods that are pinged.
pub(crate) async fn helm(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let values = values(k8s).await?.display().to_string();
    let pinged = Pinged::start(k8s).await?;

    let adopt = ["upgrade", "--install", RELEASE, CHART, "--values", &values];
    let adopt = [&adopt[..], &["--set", "originalMatchLabels=true"]].concat();
    let refused = k8s.helm(&adopt).await.err().context("helm took what is not its own")?;
    ensure!(format!("{refused:#}").contains("invalid ownership metadata"), "{refused:#}");
    k8s.helm(&[&adopt[..], &["--take-ownership"]].concat()).await?;
    rolled_out(k8s).await?;
    let annotations = k8s.api.get(DAEMON_SET).await?["metadata"]["annotations"].take();
    ensure!(annotations["meta.helm.sh/release-name"] == RELEASE, "{annotations}");
    pods_start(k8s).await.context("after helm has taken over")?;
    story.good("helm has taken over what kubectl had applied");

    let set = ["upgrade", RELEASE, CHART, "--reuse-values", "--set", "env.WARM_IP_TARGET=2"];
    k8s.helm(&set).await?;
    rolled_out(k8s).await?;
    has_free(k8s, 2).await.context("helm upgrade --set env.WARM_IP_TARGET=2")?;
    story.good("helm upgrade --set env.WARM_IP_TARGET=2: each node holds 2 free addresses");

    k8s.helm(&["uninstall", RELEASE, "--wait"]).await?;
    eventually("end of the daemons", PATIENCE, || is_uninstalled(k8s)).await?;
    k8s.api.get(CRD).await.context("the ENIConfigs have gone with the release")?;
    k8s.helm(&["install", RELEASE, CHART, "--values", &values]).await?;
    rolled_out(k8s).await?;
    pods_start(k8s).await.context("after helm install")?;
    let n_pings = pinged.none_is_lost(k8s).await?;
    k8s.cluster.books_agree(&[]).await?;
    story.good(&format!(
        "helm uninstall, and helm install: new pods start; {n_pings} pings of the others, none lost"
    ));
    Ok(())
}

/// A file with the values that the simulation needs.
async fn values(k8s: &Kubernetes) -> Result<PathBuf> {
    let file = k8s.file("values.json");
    let values = values_of(&load(k8s, &archive()?).await?)?;
    std::fs::write(&file, values.to_string()).context("write the values")?;
    Ok(file)
}

/// Where the image and EC2 are. No registry has the image, so the nodes have it already.
pub(crate) fn values_of(image: &str) -> Result<Value> {
    let (repository, tag) = image.rsplit_once(':').context("an image without a tag")?;
    let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), Value::from(value)));
    Ok(json!({
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "env": serde_json::Map::from_iter(environment),
    }))
}

/// New pods come up and reach each other.
pub(crate) async fn pods_start(k8s: &Kubernetes) -> Result<()> {
    k8s.apply(&deployment("new", FEW, idle())).await?;
    all_reach_all(k8s, &k8s.ready("new", FEW).await?).await?;
    k8s.kubectl(&["delete", "deployment", "new"]).await?;
    gone(k8s, "new").await
}

async fn is_uninstalled(k8s: &Kubernetes) -> Result<()> {
    let daemons = "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Daws-node";
    let left = k8s.api.list(daemons).await?.len();
    ensure!(left == 0, "{left} daemons are left");
    ensure!(k8s.api.get(DAEMON_SET).await.is_err(), "the DaemonSet is left");
    Ok(())
}
