//! Pods reach each other, directly and by Services; and when they are gone, nothing of them is left.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tests::books::{addresses, kernel};
use tests::cluster::NodeOf;
use tests::k8s::{Kubernetes, Machine, PATIENCE, Pod};
use tests::process::{eventually, output};
use tests::story::Story;

use crate::changes::rolled_out;
use crate::workload::{PORT, ask, deployment, gone, scale, web};

/// The Deployment of the first checks.
const WEB: &str = "web";
/// How many pods it has.
const PODS: usize = 20;
/// How many kubectl run at a time.
const AT_ONCE: usize = 4;
/// The table of the primary ENI.
const MAIN_TABLE: u32 = 254;
const NODE_PORT: u16 = 30_080;
/// Requests to a Service from one place.
const REQUESTS: usize = 40;

/// Twenty pods on two nodes.
pub(crate) async fn pods(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let pods = web_is_up(k8s).await?;
    let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
    pods.iter().for_each(|pod| *by_node.entry(pod.node()).or_default() += 1);
    ensure!(
        by_node.values().all(|n| *n >= PODS / 4) && by_node.len() == 2,
        "not spread: {by_node:?}"
    );
    let mut n_secondary = 0;
    for node in &k8s.cluster.nodes {
        let view = node.view().await?;
        n_secondary +=
            view.pods.iter().flat_map(addresses).filter(|one| one.table != MAIN_TABLE).count();
    }
    ensure!(n_secondary > 0, "no pod is on a secondary ENI");
    let n_ways = all_reach_all(k8s, &pods).await?;
    let spread: Vec<_> = by_node.values().map(ToString::to_string).collect();
    story.good(&format!(
        "{} pods ready, {n_secondary} of them on secondary ENIs",
        spread.join(" + ")
    ));
    story.good(&format!("{n_ways} ways from pod to pod answer"));
    k8s.cluster.books_agree(&[]).await
}

/// The Deployment, ready. Each check can be the first.
pub(crate) async fn web_is_up(k8s: &Kubernetes) -> Result<Vec<Pod>> {
    k8s.apply(&deployment(WEB, PODS, web())).await?;
    k8s.ready(WEB, PODS).await
}

/// Each pod pings every other, by `kubectl exec`. Gives the number of pairs.
pub(crate) async fn all_reach_all(k8s: &Kubernetes, pods: &[Pod]) -> Result<usize> {
    let pings = pods.iter().map(async |pod| {
        let others = pods.iter().filter(|other| other.uid() != pod.uid()).map(Pod::ip);
        let others = others.collect::<Vec<_>>().join(" ");
        let ask = format!("for ip in {others}; do ping -c1 -W2 $ip >/dev/null || echo $ip; done");
        let silent = k8s.kubectl(&["exec", pod.name(), "--", "sh", "-c", &ask]).await?;
        ensure!(silent.is_empty(), "{} at {} does not reach {silent}", pod.name(), pod.ip());
        Ok(())
    });
    stream::iter(pings).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(pods.len() * pods.len().saturating_sub(1))
}

/// One Service, from a pod, from outside by each node, and from a node.
pub(crate) async fn services(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let pods = web_is_up(k8s).await?;
    k8s.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": WEB},
        "spec": {
            "type": "NodePort", "selector": {"app": WEB},
            "ports": [{"port": 80, "targetPort": PORT, "nodePort": NODE_PORT}],
        },
    }))
    .await?;
    let service = k8s.api.get("/api/v1/namespaces/default/services/web").await?;
    let cluster_ip =
        service["spec"]["clusterIP"].as_str().context("no cluster address")?.to_owned();
    for node in &k8s.cluster.nodes {
        let name = &node.runtime.name;
        let client = pods.iter().find(|pod| pod.node() == name).context("a node without a pod")?;
        answers(k8s, &pods, &ask(&cluster_ip, 80), Some(client)).await?;
        answers(k8s, &pods, &ask(&node.address.to_string(), NODE_PORT), None).await?;
        story.good(&format!(
            "{name}: {cluster_ip} from a pod, and port {NODE_PORT} from another instance"
        ));
    }
    Ok(())
}

/// The same beside kube-proxy's own tables, before and after the daemon has started again.
pub(crate) async fn nftables(k8s: &Kubernetes, story: &Story) -> Result<()> {
    services(k8s, story).await?;
    for node in &k8s.cluster.nodes {
        let tables = output(node.runtime.command("nft").args(["list", "tables"])).await?;
        let is_there = tables.lines().any(|line| line == "table ip kube-proxy");
        ensure!(is_there, "{} has no table of kube-proxy: {tables}", node.runtime.name);
    }
    k8s.kubectl(&["--namespace=kube-system", "rollout", "restart", "daemonset/aws-node"]).await?;
    rolled_out(k8s).await?;
    services(k8s, story).await?;
    scale_down(k8s, story).await
}

/// Runs `request` again and again, in a pod or on the control plane's instance. Each request must be answered, and pods
/// of both nodes must answer.
async fn answers(k8s: &Kubernetes, pods: &[Pod], request: &str, from: Option<&Pod>) -> Result<()> {
    let run = async |script: &str| match from {
        Some(pod) => k8s.kubectl(&["exec", pod.name(), "--", "sh", "-c", script]).await,
        None => output(k8s.outside("sh").args(["-c", script])).await,
    };
    eventually("first answer of the Service", PATIENCE, || run(request)).await?;
    let often = format!("i=0; while [ $i -lt {REQUESTS} ]; do {request}; i=$((i+1)); done");
    let answers = run(&often).await?;
    let names: Vec<_> = answers.lines().collect();
    let node_of = |name: &&str| pods.iter().find(|pod| pod.name() == *name).map(Pod::node);
    let nodes: BTreeSet<_> = names.iter().filter_map(node_of).collect();
    let known = names.iter().filter(|name| node_of(name).is_some()).count();
    ensure!(known == REQUESTS && nodes.len() == 2, "{request}: {known} answers: {names:?}");
    Ok(())
}

/// No pod is left, and neither record nor EC2 nor kernel nor runtime has anything of one.
pub(crate) async fn scale_down(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let used: BTreeSet<_> = web_is_up(k8s).await?.iter().map(|pod| pod.ip().to_owned()).collect();
    scale(k8s, WEB, 0).await?;
    gone(k8s, WEB).await?;
    nothing_is_left(k8s, &used).await?;
    story.good(&format!(
        "{} addresses are back, no link, rule, route or namespace is left",
        used.len()
    ));
    for node in &k8s.cluster.nodes {
        println!("{}", node.status().await?);
    }
    Ok(())
}

/// Waits until the nodes have no pod of their network, and checks that nothing knows the addresses `used` any more.
pub(crate) async fn nothing_is_left(k8s: &Kubernetes, used: &BTreeSet<String>) -> Result<()> {
    k8s.cluster.books_agree(&[]).await?;
    for node in &k8s.cluster.nodes {
        eventually("a node without pods", PATIENCE, async || {
            let pods = node.view().await?.pods;
            ensure!(pods.is_empty(), "on record: {pods:?}");
            kernel_has_nothing_of(node, used).await
        })
        .await?;
    }
    Ok(())
}

/// Checks that the node has none of these addresses, and no namespace of a pod.
pub(crate) async fn kernel_has_nothing_of(
    node: &NodeOf<Machine>,
    used: &BTreeSet<String>,
) -> Result<()> {
    let dump = kernel(&format!("/run/netns/{}", node.netns)).await?;
    let words: BTreeSet<_> = dump.split([' ', '/', '\n']).collect();
    let left: Vec<_> = used.iter().filter(|ip| words.contains(ip.as_str())).collect();
    ensure!(left.is_empty(), "the kernel of {} has {left:?} in\n{dump}", node.runtime.name);
    let namespaces = std::fs::read_dir(node.runtime.path("/run/netns"))?.count();
    ensure!(namespaces == 0, "{namespaces} namespaces of pods are left");
    Ok(())
}

/// The warnings of pods' sandboxes that could not be made, and that the kubelet has tried again since.
pub(crate) async fn failed_sandboxes(k8s: &Kubernetes) -> Result<u64> {
    let path = "/api/v1/events?fieldSelector=reason%3DFailedCreatePodSandBox";
    let count = |event: &Value| event["count"].as_u64().unwrap_or(1);
    Ok(k8s.api.list(path).await?.iter().map(count).sum())
}
