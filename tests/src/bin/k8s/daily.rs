//! What people do with pods each day, which needs the network between API server, kubelet and pod.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::k8s::{Kubernetes, PATIENCE};
use tests::process::eventually;
use tests::story::Story;

use crate::workload::{PORT, deployment, gone, web};

/// Logs, exec and probes.
pub(crate) async fn daily(k8s: &Kubernetes, story: &Story) -> Result<()> {
    // Alive as long as the page is there. Its container's next start makes the page again.
    let mut container = web();
    container["livenessProbe"] =
        json!({"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1, "failureThreshold": 2});
    k8s.apply(&deployment("daily", 1, container)).await?;
    let pod = k8s.ready("daily", 1).await?.remove(0);
    let logs = k8s.kubectl(&["logs", pod.name()]).await?;
    ensure!(logs == "serving\n", "its log: {logs:?}");
    let name = k8s.kubectl(&["exec", pod.name(), "--", "hostname"]).await?;
    ensure!(name.trim() == pod.name(), "its name: {name:?}");
    story.good("kubectl logs and kubectl exec");

    k8s.kubectl(&["exec", pod.name(), "--", "busybox", "rm", "/www/index.html"]).await?;
    eventually("restart by the liveness probe", PATIENCE, async || {
        let again = k8s.pods.ready("daily", 1)?.remove(0);
        ensure!(again.restarts() == 1, "{} restarts", again.restarts());
        ensure!(
            again.uid() == pod.uid() && again.ip() == pod.ip(),
            "{} became {}",
            pod.ip(),
            again.ip()
        );
        Ok(())
    })
    .await?;
    story.good("the container whose liveness probe failed started again, at the pod's address; its readiness probe passes");
    k8s.kubectl(&["delete", "deployment", "daily"]).await?;
    gone(k8s, "daily").await
}
