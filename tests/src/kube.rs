//! An API server of Kubernetes on a node: `kube-sim`, which serves from memory and can misbehave.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::{NodeOf, Runtime};
use crate::process::{PATIENCE, Process, eventually, in_netns, output, program};

const ADDRESS: &str = "127.0.0.1:8001";
/// The name of the node at the API server.
pub const NODE_NAME: &str = "n1";
/// The list of all nodes.
pub const NODES: &str = "/api/v1/nodes";
/// The list of all ENIConfigs.
pub const ENI_CONFIGS: &str = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs";

/// The list of the events on pods of the namespace `default`, and on nodes.
pub const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// The list of the `ConfigMap`s beside the daemon's.
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";

/// The pods of the namespace `default`.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// The settings that lead a daemon to the server on its node.
pub const SETTINGS: [(&str, &str); 2] =
    [("CLUSTER_ENDPOINT", "http://127.0.0.1:8001"), ("MY_NODE_NAME", NODE_NAME)];

/// Where a server also listens by TLS.
pub const SECURED: &str = "https://127.0.0.1:8443";
const SECURED_ADDRESS: &str = "127.0.0.1:8443";

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct ApiServer {
    process: Process,
    netns: String,
}

impl ApiServer {
    /// Starts a server on `node`, which other nodes do not reach.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn start<R: Runtime>(node: &NodeOf<R>) -> Result<Self> {
        Self::start_with(node, &[]).await
    }

    /// As [`start`](Self::start), and at [`SECURED`] with the certificate `tls.crt` and `tls.key` in a directory.
    ///
    /// # Errors
    ///
    /// As there, or if the directory's name is no text.
    pub async fn start_by_tls<R: Runtime>(node: &NodeOf<R>, directory: &Path) -> Result<Self> {
        let directory = directory.to_str().context("the directory's name is no text")?;
        Self::start_with(node, &["tls", SECURED_ADDRESS, directory]).await
    }

    async fn start_with<R: Runtime>(node: &NodeOf<R>, arguments: &[&str]) -> Result<Self> {
        let log = node.state_directory().join("kube-sim.log");
        let mut command = in_netns(&node.netns, program("kube-sim")?);
        let process = Process::start("kube-sim", command.arg(ADDRESS).args(arguments), &log)?;
        let server = Self { process, netns: node.netns.clone() };
        eventually("API server", PATIENCE, async || server.get(NODES).await).await?;
        Ok(server)
    }

    /// Creates or replaces an object.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn put(&self, collection: &str, object: &Value) -> Result<()> {
        let path = format!("/_sim/object?collection={collection}");
        self.ask(&["PUT", &path, &object.to_string()]).await.map(|_| ())
    }

    /// Makes the server behave like this from now on: see `kube_sim::Mood`.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn behave(&self, mood: &str) -> Result<()> {
        self.ask(&["PUT", "/_sim/mood", mood]).await.map(|_| ())
    }

    /// From now on the server accepts this token alone.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn accept_token(&self, token: &str) -> Result<()> {
        self.ask(&["PUT", "/_sim/token", token]).await.map(|_| ())
    }

    /// From now on paths that begin with `path` are refused for want of permission; an empty one stands for none.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn forbid(&self, path: &str) -> Result<()> {
        self.ask(&["PUT", "/_sim/forbidden", path]).await.map(|_| ())
    }

    /// A list or an object.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn get(&self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.ask(&["GET", path]).await?)
            .context("read the API server's answer")
    }

    /// Ends it, as if its machine were gone.
    ///
    /// # Errors
    ///
    /// If it cannot be ended.
    pub async fn kill(self) -> Result<()> {
        self.process.kill().await
    }

    async fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = in_netns(&self.netns, program("kube-sim")?);
        output(command.arg(ADDRESS).args(arguments)).await
    }
}
