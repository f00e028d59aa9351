//! The objects that the checks apply, and pods that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::image::BUSYBOX;
use tests::k8s::{Api, Kubernetes, Pods};
use tests::process::eventually;

/// Where [`web`] serves.
pub(crate) const PORT: u16 = 8080;

/// A container that says its pod's name to whoever asks by HTTP.
const SERVE: &str =
    "mkdir -p /www; hostname >/www/index.html; echo serving; exec httpd -f -p 8080 -h /www";

/// A container that serves its pod's name.
pub(crate) fn web() -> Value {
    json!({
        "name": "web", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", SERVE],
        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
    })
}

/// A shell's command that asks a [`web`] for its name. busybox's wget looks its port up by name, for which a static
/// program without the machine's libraries ends by a signal.
pub(crate) fn ask(address: &str, port: u16) -> String {
    let request = r"printf 'GET / HTTP/1.0\r\n\r\n'";
    format!(
        "{request} | /bin/busybox nc -w 5 {address} {port} | /bin/busybox tail -n 1 | /bin/busybox grep ."
    )
}

/// A container that does nothing.
pub(crate) fn idle() -> Value {
    // A shell ends at SIGTERM even as PID 1, if it is told to.
    let command = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"];
    json!({"name": "idle", "image": BUSYBOX, "imagePullPolicy": "Never", "command": command})
}

/// What Deployments and other sets of pods have in common: `count` pods, spread over the nodes. No pod needs the API
/// server, so none has a token.
pub(crate) fn spec(app: &str, count: usize, container: Value) -> Value {
    let labels = json!({"app": app});
    json!({
        "replicas": count, "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                "containers": [container],
                "topologySpreadConstraints": [{
                    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": labels},
                }],
            },
        },
    })
}

/// A Deployment.
pub(crate) fn deployment(app: &str, count: usize, container: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app},
        "spec": spec(app, count, container),
    })
}

/// A DaemonSet.
pub(crate) fn daemon_set(app: &str, container: Value) -> Value {
    let mut spec = spec(app, 0, container);
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("replicas");
    }
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": app}, "spec": spec})
}

/// Scales a Deployment.
pub(crate) async fn scale(k8s: &Kubernetes, app: &str, count: usize) -> Result<()> {
    k8s.kubectl(&["scale", "deployment", app, &format!("--replicas={count}")]).await.map(|_| ())
}

/// Pods that are deleted one after the other, by a Deployment that replaces them. Dropping it ends that.
pub(crate) struct Churn {
    n_deleted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

/// The pods of [`Churn`].
const CHURNING: usize = 6;
/// How long a new pod may take before the next one is deleted all the same.
const TURN: Duration = Duration::from_secs(10);

impl Churn {
    /// Starts the Deployment, and once its pods are ready, its end and its renewal.
    pub(crate) async fn start(k8s: &Kubernetes) -> Result<Self> {
        k8s.apply(&deployment("churn", CHURNING, idle())).await?;
        k8s.ready("churn", CHURNING).await?;
        let n_deleted = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(churn(k8s.api.clone(), k8s.pods.clone(), Arc::clone(&n_deleted)));
        Ok(Self { n_deleted, task })
    }

    /// Waits until `count` further pods have been deleted.
    pub(crate) async fn goes_on(&self, count: usize) -> Result<()> {
        let wanted = self.n_deleted.load(Ordering::Relaxed) + count;
        eventually("further churn", tests::k8s::PATIENCE, async || {
            let n = self.n_deleted.load(Ordering::Relaxed);
            anyhow::ensure!(n >= wanted, "{n} pods were deleted, not {wanted}");
            Ok(())
        })
        .await
    }

    /// Ends it: all its pods become ready. Gives how many were deleted.
    pub(crate) async fn end(self, k8s: &Kubernetes) -> Result<usize> {
        self.task.abort();
        let last = k8s.ready("churn", CHURNING).await;
        last.context("a pod that was replaced did not come up")?;
        k8s.kubectl(&["delete", "deployment", "churn"]).await?;
        gone(k8s, "churn").await?;
        Ok(self.n_deleted.load(Ordering::Relaxed))
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn churn(api: Api, pods: Pods, n_deleted: Arc<AtomicUsize>) {
    loop {
        // While the API server is away, nobody can delete anything.
        let ready = eventually("renewed pod", TURN, async || pods.ready("churn", CHURNING)).await;
        let victim = match ready {
            Ok(mut ready) => ready.swap_remove(n_deleted.load(Ordering::Relaxed) % CHURNING),
            Err(_) => match pods.of("churn").into_iter().find(tests::k8s::Pod::is_ready) {
                Some(pod) => pod,
                None => continue,
            },
        };
        if api.delete(&victim.path()).await.is_ok() {
            n_deleted.fetch_add(1, Ordering::Relaxed);
            // The watch says that it goes before the next one is chosen.
            let goes = async || {
                let of = pods.of("churn");
                let stays = of.iter().any(|pod| pod.uid() == victim.uid() && pod.is_ready());
                anyhow::ensure!(!stays, "{} is still ready", victim.name());
                Ok(())
            };
            eventually("its end", TURN, goes).await.ok();
        }
    }
}

/// Waits until no pod of `app` is left.
pub(crate) async fn gone(k8s: &Kubernetes, app: &str) -> Result<()> {
    eventually("end of all pods", tests::k8s::PATIENCE, async || k8s.pods.ready(app, 0)).await?;
    Ok(())
}
