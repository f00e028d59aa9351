//! Tidepool comes onto the cluster as the documents say, by kubectl.

use std::path::Path;

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
const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ENDPOINT_URL_EC2", EC2_IN_FABRIC),
    ("IP_COOLDOWN_PERIOD", "5"),
    ("TIDEPOOL_SHRINK_DELAY", "2s"),
    ("TIDEPOOL_MIN_ENI_AGE", "2s"),
];

/// Image and manifest; the nodes become ready by them and not before.
pub(crate) async fn install(k8s: &Kubernetes, story: &Story) -> Result<()> {
    eventually("nodes without a network", PATIENCE, || nodes_are(k8s, "False")).await?;
    story.good("both nodes have registered, and are not ready");
    let archive = std::env::var("TIDEPOOL_IMAGE");
    let archive = archive.context("TIDEPOOL_IMAGE names no archive: run `make test-k8s`")?;
    let image = reference(Path::new(&archive)).await?;
    for node in &k8s.cluster.nodes {
        node.runtime.import(Path::new(&archive)).await?;
    }
    let folder = k8s.file("install");
    std::fs::create_dir_all(&folder).context("make a folder for the manifest")?;
    // kustomize reads nothing from above its folder.
    std::fs::copy(MANIFEST, folder.join("aws-node.yaml")).context("copy the manifest")?;
    std::fs::write(folder.join("kustomization.yaml"), kustomization(&image).to_string())
        .context("write the changes to the manifest")?;
    k8s.kubectl(&["apply", "--kustomize", &folder.display().to_string()]).await?;
    rolled_out(k8s).await?;
    eventually("ready nodes", PATIENCE, || nodes_are(k8s, "True")).await?;
    story.good(&format!("{image} is rolled out, and both nodes are ready"));
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
fn kustomization(image: &str) -> Value {
    let environment = ENVIRONMENT.map(|(name, value)| json!({"name": name, "value": value}));
    let container = |name: &str| json!({"name": name, "image": image, "imagePullPolicy": "Never"});
    let mut daemon = container("aws-node");
    daemon["env"] = json!(environment);
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
async fn nodes_are(k8s: &Kubernetes, status: &str) -> Result<()> {
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
