//! Pods of other sets than Deployments: Jobs, StatefulSets, DaemonSets; and pods that use the host's network.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::image::BUSYBOX;
use tests::k8s::{Kubernetes, PATIENCE, Pod};
use tests::process::{eventually, output};
use tests::story::Story;

use crate::reach::{all_reach_all, failed_sandboxes};
use crate::workload::{PORT, ask, daemon_set, deployment, gone, idle, spec, web};

/// Pods of the Job, and how many run at a time.
const JOBS: (u64, u64) = (60, 20);
const REPLICAS: usize = 4;
const HOST_PORT: u16 = 31_080;

/// Many short pods.
pub(crate) async fn jobs(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let before = failed_sandboxes(k8s).await?;
    let container = json!({"name": "short", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["/bin/true"]});
    all_succeed(k8s, "storm", JOBS, json!({"containers": [container]})).await?;
    k8s.cluster.books_agree(&[]).await?;
    let n_failed = failed_sandboxes(k8s).await?.saturating_sub(before);
    story.good(&format!("{} pods succeeded; {n_failed} sandboxes failed at first", JOBS.0));
    Ok(())
}

/// A Job named `app`, of so many pods and so many at a time: each succeeds at the first try.
pub(crate) async fn all_succeed(
    k8s: &Kubernetes,
    app: &str,
    (count, at_once): (u64, u64),
    mut pod: Value,
) -> Result<()> {
    pod["restartPolicy"] = "Never".into();
    pod["automountServiceAccountToken"] = false.into();
    k8s.apply(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": app},
        "spec": {
            "completions": count, "parallelism": at_once, "backoffLimit": 0,
            "template": {"metadata": {"labels": {"app": app}}, "spec": pod},
        },
    }))
    .await?;
    let path = format!("/apis/batch/v1/namespaces/default/jobs/{app}");
    let job = eventually("end of the Job", PATIENCE, async || {
        let job = k8s.api.get(&path).await?;
        let conditions = job["status"]["conditions"].as_array();
        let has_ended = |one: &Value| one["type"] == "Complete" || one["type"] == "Failed";
        ensure!(conditions.into_iter().flatten().any(has_ended), "{app}: {}", job["status"]);
        Ok(job)
    });
    let status = &job.await?["status"];
    ensure!(status["succeeded"] == count && status["failed"].is_null(), "{app}: {status}");
    k8s.kubectl(&["delete", "job", app]).await?;
    gone(k8s, app).await
}

/// Pods with names that stay.
pub(crate) async fn stateful_set(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let mut spec = spec("stateful", REPLICAS, idle());
    spec["serviceName"] = "stateful".into();
    let kind = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "stateful"}, "spec": spec});
    k8s.apply(&kind).await?;
    let before = k8s.ready("stateful", REPLICAS).await?;
    k8s.kubectl(&["rollout", "restart", "statefulset/stateful"]).await?;
    k8s.kubectl(&["rollout", "status", "statefulset/stateful", "--timeout=180s"]).await?;
    let after = k8s.ready("stateful", REPLICAS).await?;
    let uids = |pods: &[Pod]| pods.iter().map(|pod| pod.uid().to_owned()).collect::<BTreeSet<_>>();
    ensure!(uids(&before).is_disjoint(&uids(&after)), "a pod was not replaced");
    let names = |pods: &[Pod]| pods.iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>();
    ensure!(names(&before) == names(&after), "{:?} became {:?}", names(&before), names(&after));
    let n_ways = all_reach_all(k8s, &after).await?;
    k8s.kubectl(&["delete", "statefulset", "stateful"]).await?;
    gone(k8s, "stateful").await?;
    story.good(&format!(
        "{REPLICAS} pods were replaced one after the other; {n_ways} ways between them answer"
    ));
    Ok(())
}

/// Pods on the host's network, and one with a port of its host.
pub(crate) async fn host_network(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let mut hosts = daemon_set("hosts", idle());
    hosts["spec"]["template"]["spec"]["hostNetwork"] = true.into();
    k8s.apply(&hosts).await?;
    let mut ported = deployment("ported", 2, web());
    ported["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": PORT, "hostPort": HOST_PORT}]);
    k8s.apply(&ported).await?;
    let hosts = k8s.ready("hosts", k8s.cluster.nodes.len()).await?;
    let ported = k8s.ready("ported", 2).await?;
    for pod in &hosts {
        let address = k8s.node(pod.node())?.address.to_string();
        ensure!(pod.ip() == address, "{} has {}, its host {address}", pod.name(), pod.ip());
    }
    let all = [hosts, ported.clone()].concat();
    let n_ways = all_reach_all(k8s, &all).await?;
    for pod in &ported {
        let request = ask(&k8s.node(pod.node())?.address.to_string(), HOST_PORT);
        let answer = eventually("answer by the host's port", PATIENCE, async || {
            output(k8s.outside("sh").args(["-c", &request])).await
        });
        ensure!(answer.await?.trim() == pod.name(), "{request} does not reach {}", pod.name());
    }
    for (kind, app) in [("daemonset", "hosts"), ("deployment", "ported")] {
        k8s.kubectl(&["delete", kind, app]).await?;
        gone(k8s, app).await?;
    }
    story.good(&format!("{n_ways} ways between pods and hosts answer; port {HOST_PORT} of each host leads to its pod"));
    Ok(())
}
