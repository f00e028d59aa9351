//! Tidepool comes onto the cluster as the documents say, by kubectl.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::k8s::{Kubernetes, PATIENCE};
use tests::process::{eventually, output};
use tests::sim::EC2_IN_FABRIC;
use tests::story::Story;
use tokio::process::Command;

use crate::changes::rolled_out;

/// The manifest that users apply.
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/aws-node.yaml");
/// Where EC2 is, and times that make the pool shrink while one waits. The defaults are 30 s, 30 s and 60 s.
pub(crate) const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ENDPOINT_URL_EC2", EC2_IN_FABRIC),
    ("IP_COOLDOWN_PERIOD", "5"),
    ("TIDEPOOL_SHRINK_DELAY", "2s"),
    ("TIDEPOOL_MIN_ENI_AGE", "2s"),
];

/// This checkout's Tidepool, by kubectl.
pub(crate) async fn this(k8s: &Kubernetes, story: &Story) -> Result<()> {
    nodes_wait(k8s, story).await?;
    let image = apply_with(k8s, &[]).await?;
    nodes_serve(k8s, story, &image).await?;
    nothing_blocks(k8s).await
}

/// Applies this checkout's manifest with further settings, and gives its image.
pub(crate) async fn apply_with(k8s: &Kubernetes, settings: &[(&str, &str)]) -> Result<String> {
    let image = load(k8s, &archive()?).await?;
    apply(k8s, Path::new(MANIFEST), &image, settings).await?;
    Ok(image)
}

/// The earlier build in the folder that `TIDEPOOL_EARLIER` names, by its own manifest.
pub(crate) async fn earlier(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let folder = std::env::var("TIDEPOOL_EARLIER");
    let folder = folder.context("TIDEPOOL_EARLIER names no folder: run `make test-k8s`")?;
    nodes_wait(k8s, story).await?;
    let image = load(k8s, &Path::new(&folder).join("image.tar")).await?;
    apply(k8s, &Path::new(&folder).join("aws-node.yaml"), &image, &[]).await?;
    nodes_serve(k8s, story, &image).await?;
    nothing_blocks(k8s).await
}

/// The image of this checkout.
pub(crate) fn archive() -> Result<PathBuf> {
    let archive = std::env::var_os("TIDEPOOL_IMAGE");
    archive.map(PathBuf::from).context("TIDEPOOL_IMAGE names no archive: run `make test-k8s`")
}

/// Gives the nodes an image, and its name.
pub(crate) async fn load(k8s: &Kubernetes, archive: &Path) -> Result<String> {
    let image = reference(archive).await?;
    for node in &k8s.cluster.nodes {
        node.runtime.import(archive).await?;
    }
    Ok(image)
}

/// Nothing makes the nodes ready yet.
pub(crate) async fn nodes_wait(k8s: &Kubernetes, story: &Story) -> Result<()> {
    eventually("nodes without a network", PATIENCE, || nodes_are(k8s, "False")).await?;
    story.good("both nodes have registered, and are not ready");
    Ok(())
}

async fn apply(
    k8s: &Kubernetes,
    manifest: &Path,
    image: &str,
    settings: &[(&str, &str)],
) -> Result<()> {
    let folder = k8s.file("install");
    std::fs::create_dir_all(&folder).context("make a folder for the manifest")?;
    // kustomize reads nothing from above its folder.
    std::fs::copy(manifest, folder.join("aws-node.yaml")).context("copy the manifest")?;
    std::fs::write(folder.join("kustomization.yaml"), kustomization(image, settings).to_string())
        .context("write the changes to the manifest")?;
    k8s.kubectl(&["apply", "--kustomize", &folder.display().to_string()]).await.map(|_| ())
}

/// The DaemonSet has come up on both nodes, and made them ready.
pub(crate) async fn nodes_serve(k8s: &Kubernetes, story: &Story, image: &str) -> Result<()> {
    rolled_out(k8s).await?;
    eventually("ready nodes", PATIENCE, || nodes_are(k8s, "True")).await?;
    story.good(&format!("{image} is rolled out, and both nodes are ready"));
    Ok(())
}

/// No daemon has anything that it cannot do.
pub(crate) async fn nothing_blocks(k8s: &Kubernetes) -> Result<()> {
    for node in &k8s.cluster.nodes {
        let blocked = node.view().await?.blocked;
        ensure!(blocked.is_empty(), "{}: {blocked:?}", node.runtime.name);
    }
    Ok(())
}

/// The name of the image in an archive.
async fn reference(archive: &Path) -> Result<String> {
    let index = output(Command::new("tar").arg("-xOf").arg(archive).arg("index.json")).await?;
    let index: Value = serde_json::from_str(&index).context("read the image's index")?;
    let name = &index["manifests"][0]["annotations"]["io.containerd.image.name"];
    Ok(name.as_str().context("the image has no name")?.to_owned())
}

/// What the simulation changes of the manifest. No registry has the image, so the nodes have it already.
fn kustomization(image: &str, settings: &[(&str, &str)]) -> Value {
    let environment = ENVIRONMENT.iter().chain(settings);
    let environment = environment.map(|(name, value)| json!({"name": name, "value": value}));
    let container = |name: &str| json!({"name": name, "image": image, "imagePullPolicy": "Never"});
    let mut daemon = container("aws-node");
    daemon["env"] = environment.collect();
    let patch = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "aws-node", "namespace": "kube-system"},
        "spec": {"template": {"spec": {
            "containers": [daemon], "initContainers": [container("aws-vpc-cni-init")],
        }}},
    });
    json!({"resources": ["aws-node.yaml"], "patches": [{"patch": patch.to_string()}]})
}

/// Whether every node has registered, and has `status` as its condition `Ready`.
pub(crate) async fn nodes_are(k8s: &Kubernetes, status: &str) -> Result<()> {
    let nodes = k8s.api.list("/api/v1/nodes").await?;
    ensure!(nodes.len() == k8s.cluster.nodes.len(), "{} nodes have registered", nodes.len());
    for node in nodes {
        let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.find(|one| one["type"] == "Ready");
        let ready =
            ready.with_context(|| format!("{} has no condition", node["metadata"]["name"]))?;
        ensure!(ready["status"] == status, "{}: {ready}", node["metadata"]["name"]);
    }
    Ok(())
}
