//! The API server by TLS: a certificate that has expired, one of an unknown authority, a token that is rotated. ADD and DEL go
//! on, and status and log name what is wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::k8s::certificates::Authority;
use tests::kube::{ApiServer, NODE_NAME, NODES, SECURED};
use tests::process::{PATIENCE, eventually};

/// Token and certificates are read again after a minute.
const REREAD: Duration = Duration::from_secs(120);

/// The server's certificates, each by its name, and the service account.
struct Files {
    issued: PathBuf,
    served: PathBuf,
    account: PathBuf,
}

impl Files {
    async fn make(directory: &Path) -> Result<Self> {
        let ours = Authority::make(directory.join("ours")).await?;
        let other = Authority::make(directory.join("other")).await?;
        let (issued, served) = (directory.join("issued"), directory.join("served"));
        let account = directory.join("account");
        for directory in [&issued, &served, &account] {
            std::fs::create_dir_all(directory)?;
        }
        ours.issue("good", "/CN=api", "IP:127.0.0.1").await?;
        ours.issue_expired("expired", "/CN=api", "IP:127.0.0.1").await?;
        other.issue("unknown", "/CN=api", "IP:127.0.0.1").await?;
        for (authority, name) in [(&ours, "good"), (&ours, "expired"), (&other, "unknown")] {
            for end in ["crt", "key"] {
                let file = format!("{name}.{end}");
                std::fs::copy(authority.file(&file), issued.join(&file))?;
            }
        }
        std::fs::copy(ours.file("ca.crt"), account.join("ca.crt"))?;
        std::fs::write(account.join("token"), "first")?;
        Ok(Self { issued, served, account })
    }

    /// A new server, with this certificate.
    async fn start(&self, node: &ExecNode, name: &str) -> Result<ApiServer> {
        for end in ["crt", "key"] {
            let from = self.issued.join(format!("{name}.{end}"));
            std::fs::copy(from, self.served.join(format!("tls.{end}")))?;
        }
        let api = ApiServer::start_by_tls(node, &self.served).await?;
        let this = json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": NODE_NAME } });
        api.put(NODES, &this).await?;
        Ok(api)
    }
}

/// Waits until the line of the status about this node has `text`, or is gone.
async fn until_said(node: &ExecNode, text: Option<&str>, patience: Duration) -> Result<()> {
    eventually("line of the status about the API server", patience, async || {
        let blocked = node.view().await?.blocked;
        let line = blocked.iter().find(|line| line.starts_with("this Node: "));
        let is_met = match (line, text) {
            (Some(line), Some(text)) => line.contains(text),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        ensure!(is_met, "{text:?} is expected: {blocked:?}");
        Ok(())
    })
    .await
}

/// A pod comes and goes.
async fn pod_is_served(node: &ExecNode, name: &str) -> Result<()> {
    let pod = node.runtime.run(name).await.with_context(|| format!("ADD of {name}"))?;
    node.runtime.remove(&pod).await.with_context(|| format!("DEL of {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_served_whatever_is_wrong_with_certificates() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("ftls", "m5.large", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let files = Files::make(&node.state_directory().join("api")).await?;
        let api = files.start(node, "expired").await?;
        node.stop_ipamd().await?;
        let account = files.account.display().to_string();
        node.configure(&[
            ("CLUSTER_ENDPOINT", SECURED),
            ("MY_NODE_NAME", NODE_NAME),
            ("TIDEPOOL_SERVICE_ACCOUNT", &account),
        ]);
        node.start_ipamd().await?;
        until_said(node, Some("has expired"), PATIENCE).await?;
        pod_is_served(node, "expired").await?;
        api.kill().await?;

        let api = files.start(node, "unknown").await?;
        until_said(node, Some("has not issued"), PATIENCE).await?;
        pod_is_served(node, "unknown").await?;
        api.kill().await?;

        let api = files.start(node, "good").await?;
        until_said(node, None, PATIENCE).await?;
        api.accept_token("second").await?;
        // What runs goes on, so the server's end makes the daemon ask anew.
        api.behave("forgetful").await?;
        until_said(node, Some("does not accept the token"), REREAD).await?;
        pod_is_served(node, "token").await?;
        std::fs::write(files.account.join("token"), "second").context("rotate the token")?;
        until_said(node, None, REREAD).await?;
        pod_is_served(node, "rotated").await?;

        let log = std::fs::read_to_string(node.log()).context("read the log")?;
        for text in ["has expired", "has not issued", "does not accept the token"] {
            let is_it =
                |line: &&str| line.contains("no answer from the API server") && line.contains(text);
            ensure!(log.lines().any(|line| is_it(&line)), "the log has no {text:?}");
        }
        cluster.books_agree(&[]).await
    })
    .await
}
