//! A cluster comes from amazon-vpc-cni-k8s and goes back to it, as docs/migration.md says. It is the real one: its programs,
//! its chart, its objects in kernel and EC2.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::image::{INCUMBENT, write_incumbent};
use tests::k8s::{Kubernetes, PATIENCE};
use tests::process::{eventually, output, program};
use tests::sim::EC2_IN_FABRIC;
use tests::story::Story;

use crate::changes::{Pinged, rolled_out};
use crate::helm::{CHART, RELEASE, pods_start, values_of};
use crate::install::{archive, load, nodes_serve, nodes_wait, nothing_blocks};
use crate::reach::{all_reach_all, failed_sandboxes, kernel_has_nothing_of};
use crate::workload::{Churn, deployment, gone, idle, scale};

/// Where the daemon of amazon-vpc-cni-k8s keeps its pods.
const CHECKPOINT: &str = "/run/aws-node/ipam.json";
/// Pods that each side takes down of the other's.
const APP: &str = "moving";
const MOVING: usize = 8;
/// Pods that come and go after each change.
const FEW: usize = 4;

/// amazon-vpc-cni-k8s by its own chart.
pub(crate) async fn install(k8s: &Kubernetes, story: &Story) -> Result<()> {
    nodes_wait(k8s, story).await?;
    let images = k8s.file("incumbent.tar");
    write_incumbent(&images, &programs()?)?;
    for node in &k8s.cluster.nodes {
        node.runtime.import(&images).await?;
        // The machine images of EKS have it so. Our daemon sets it itself.
        let forward = "net.ipv4.ip_forward=1";
        output(node.runtime.command("sysctl").args(["-q", "-w", forward])).await?;
    }
    let values = k8s.file("incumbent.json");
    std::fs::write(&values, incumbent_values().to_string()).context("write the values")?;
    let (chart, values) = (chart()?, values.display().to_string());
    k8s.helm(&["install", RELEASE, &chart, "--values", &values]).await?;
    nodes_serve(k8s, story, INCUMBENT[1]).await
}

/// The folder that `tests/k8s/incumbent/build` fills.
fn programs() -> Result<PathBuf> {
    let folder = std::env::var_os("TIDEPOOL_INCUMBENT");
    folder.map(PathBuf::from).context("TIDEPOOL_INCUMBENT names no folder: run `make test-k8s`")
}

fn chart() -> Result<String> {
    Ok(programs()?.join("chart").display().to_string())
}

/// What a user would have set: the images from another place. The rest is the simulation's: where EC2 is, and a machine's
/// system, which these images are without.
fn incumbent_values() -> Value {
    let image = |name: &str| json!({"override": name, "pullPolicy": "Never"});
    let mounts = ["/usr", "/etc/alternatives"];
    let named = |path: &str| path.trim_start_matches('/').replace('/', "-");
    let volumes = mounts.map(|path| json!({"name": named(path), "hostPath": {"path": path}}));
    let mounts =
        mounts.map(|path| json!({"name": named(path), "mountPath": path, "readOnly": true}));
    json!({
        "image": image(INCUMBENT[1]),
        "init": {"image": image(INCUMBENT[0])},
        "nodeAgent": {"enabled": false},
        "env": {"AWS_ENDPOINT_URL_EC2": EC2_IN_FABRIC},
        "extraVolumes": volumes, "extraVolumeMounts": mounts,
    })
}

/// To Tidepool and back, under pods of both.
pub(crate) async fn incumbent(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let before = failed_sandboxes(k8s).await?;
    let pinged = Pinged::start(k8s).await?;
    let mut used = pinged.addresses().clone();
    used.extend(replace(k8s).await?);
    let churn = Churn::start(k8s).await?;
    story.good("pods run, made by amazon-vpc-cni-k8s; each is in its checkpoint");
    all_are_in_checkpoint(k8s, &used).await?;

    let kept = to_tidepool(k8s).await?;
    churn.goes_on(FEW).await.context("under Tidepool")?;
    takes_over(k8s, &used).await?;
    used.extend(replace(k8s).await?);
    pods_start(k8s).await?;
    nothing_blocks(k8s).await?;
    k8s.cluster.books_agree(&[]).await?;
    story.good("helm upgrade to Tidepool: it has taken the pods over, and replaced some");

    back(k8s, &kept).await?;
    churn.goes_on(FEW).await.context("under amazon-vpc-cni-k8s again")?;
    all_are_in_checkpoint(k8s, &addresses(k8s)).await?;
    remove_nat(k8s).await?;
    used.extend(replace(k8s).await?);
    pods_start(k8s).await?;
    story.good("helm upgrade back: it has the pods, and has replaced some");

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

/// Steps 2 to 4 of "To Tidepool". Gives the file with the values of before.
async fn to_tidepool(k8s: &Kubernetes) -> Result<String> {
    let kept = k8s.file("before.yaml");
    let values = k8s.helm(&["get", "values", RELEASE, "--output", "yaml"]).await?;
    std::fs::write(&kept, values).context("keep the values")?;
    let kept = kept.display().to_string();
    let mut ours = values_of(&load(k8s, &archive()?).await?)?;
    ours["image"]["override"] = Value::Null;
    ours["init"] = json!({"image": {"override": null}});
    let file = k8s.file("tidepool.json");
    std::fs::write(&file, ours.to_string()).context("write the values")?;
    let file = file.display().to_string();
    k8s.helm(&["upgrade", RELEASE, CHART, "--values", &kept, "--values", &file]).await?;
    rolled_out(k8s).await?;
    Ok(kept)
}

/// "Back to amazon-vpc-cni-k8s": the patch, by a post-renderer.
async fn back(k8s: &Kubernetes, kept: &str) -> Result<()> {
    let folder = k8s.file("back");
    std::fs::create_dir_all(&folder).context("make a folder")?;
    let image = load(k8s, &archive()?).await?;
    let patch = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "aws-node", "namespace": "kube-system"},
        "spec": {"template": {"spec": {"initContainers": [{
            "name": "tidepool-hand-over", "image": image, "imagePullPolicy": "Never",
            "command": ["/app/ipamd", "export-checkpoint", "--if-recorded", "/var/run/aws-node/ipam.json"],
            "volumeMounts": [{"name": "run-dir", "mountPath": "/var/run/aws-node"}],
        }]}}},
    });
    let target = json!({"kind": "DaemonSet", "name": "aws-node"});
    let kustomization = json!({
        "resources": ["all.yaml"], "patches": [{"target": target, "patch": patch.to_string()}],
    });
    std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string())?;
    let renderer = folder.join("render");
    let kubernetes = std::env::var("TIDEPOOL_KUBERNETES").context("no TIDEPOOL_KUBERNETES")?;
    let folder = folder.display();
    let script = format!(
        "#!/bin/sh\ncat >{folder}/all.yaml && exec {kubernetes} kubectl kustomize {folder}\n"
    );
    std::fs::write(&renderer, script)?;
    output(tokio::process::Command::new("chmod").arg("+x").arg(&renderer)).await?;
    let (chart, renderer) = (chart()?, renderer.display().to_string());
    k8s.helm(&["upgrade", RELEASE, &chart, "--values", kept, "--post-renderer", &renderer]).await?;
    rolled_out(k8s).await?;
    k8s.helm(&["upgrade", RELEASE, &chart, "--values", kept]).await?;
    rolled_out(k8s).await
}

/// The addresses of the pods of [`APP`] now, and those after all of them have been replaced, which reach each other.
async fn replace(k8s: &Kubernetes) -> Result<BTreeSet<String>> {
    let former: BTreeSet<_> = k8s.pods.of(APP).iter().map(|pod| pod.uid().to_owned()).collect();
    k8s.apply(&deployment(APP, MOVING, idle())).await?;
    if !former.is_empty() {
        let rollout = format!("deployment/{APP}");
        k8s.kubectl(&["rollout", "restart", &rollout]).await?;
        k8s.kubectl(&["rollout", "status", &rollout, "--timeout=180s"]).await?;
    }
    let pods = k8s.ready(APP, MOVING).await?;
    ensure!(!pods.iter().any(|pod| former.contains(pod.uid())), "some have not been replaced");
    all_reach_all(k8s, &pods).await?;
    Ok(pods.iter().map(|pod| pod.ip().to_owned()).collect())
}

/// The addresses of all pods that stay.
fn addresses(k8s: &Kubernetes) -> BTreeSet<String> {
    let apps = ["pinged", APP].map(|app| k8s.pods.of(app));
    apps.iter().flatten().map(|pod| pod.ip().to_owned()).collect()
}

/// Our daemons have the pods with `addresses` on record.
async fn takes_over(k8s: &Kubernetes, addresses: &BTreeSet<String>) -> Result<()> {
    let mut recorded = BTreeSet::new();
    for node in &k8s.cluster.nodes {
        let pods = node.view().await?.pods.into_iter();
        recorded.extend(pods.filter_map(|pod| pod.address).map(|address| address.address));
    }
    let missing: Vec<_> = addresses.difference(&recorded).collect();
    ensure!(missing.is_empty(), "not taken over: {missing:?}");
    Ok(())
}

/// Every address is an allocation of the checkpoint of a node.
async fn all_are_in_checkpoint(k8s: &Kubernetes, addresses: &BTreeSet<String>) -> Result<()> {
    eventually("allocations of all pods", PATIENCE, async || {
        let mut allocated = BTreeSet::new();
        for node in &k8s.cluster.nodes {
            allocated.extend(allocations(&node.runtime.path(CHECKPOINT))?);
        }
        let missing: Vec<_> = addresses.difference(&allocated).collect();
        ensure!(missing.is_empty(), "in no checkpoint: {missing:?}");
        Ok(())
    })
    .await
}

fn allocations(checkpoint: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(checkpoint);
    let text = text.with_context(|| format!("read {}", checkpoint.display()))?;
    let checkpoint: Value = serde_json::from_str(&text).context("read a checkpoint")?;
    let entries = checkpoint["allocations"].as_array().context("no allocations")?;
    Ok(entries.iter().filter_map(|one| one["ipv4"].as_str().map(str::to_owned)).collect())
}

/// `ipamd remove-nat`, on each node.
async fn remove_nat(k8s: &Kubernetes) -> Result<()> {
    let ipamd = program("ipamd")?.display().to_string();
    for node in &k8s.cluster.nodes {
        output(node.runtime.command(&ipamd).arg("remove-nat")).await?;
        let tables = output(node.runtime.command("nft").args(["list", "tables"])).await?;
        ensure!(!tables.contains("tidepool"), "tables of ours are left: {tables}");
    }
    Ok(())
}

/// Neither checkpoint nor kernel nor runtime has anything of a pod.
async fn nothing_is_left(k8s: &Kubernetes, used: &BTreeSet<String>) -> Result<()> {
    for node in &k8s.cluster.nodes {
        eventually("a node without pods", PATIENCE, async || {
            let allocated = allocations(&node.runtime.path(CHECKPOINT))?;
            ensure!(allocated.is_empty(), "in the checkpoint: {allocated:?}");
            kernel_has_nothing_of(node, used).await
        })
        .await?;
    }
    Ok(())
}
