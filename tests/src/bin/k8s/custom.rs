//! Custom networking by kubectl: an ENIConfig says on which subnet pods are.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use serde_json::json;
use tests::k8s::{Kubernetes, PATIENCE, POD_SUBNETS, Pod};
use tests::process::eventually;
use tests::story::Story;

use crate::install::{apply_with, nodes_are, nodes_serve, nodes_wait};
use crate::reach::{all_reach_all, nothing_is_left};
use crate::workload::{deployment, gone, idle, scale};

/// What switches it on. No second ENI is there before pods need one.
const SETTINGS: [(&str, &str); 3] = [
    ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"),
    ("WARM_IP_TARGET", "1"),
    ("MINIMUM_IP_TARGET", "1"),
];
const APP: &str = "custom";
/// Pods that fit on an ENI of each node, and pods that need a second one there.
const FEW: usize = 12;
const MANY: usize = 26;

/// This checkout's Tidepool, to which no ENIConfig says where ENIs go; then one does.
pub(crate) async fn install(k8s: &Kubernetes, story: &Story) -> Result<()> {
    nodes_wait(k8s, story).await?;
    let image = apply_with(k8s, &SETTINGS).await?;
    for node in &k8s.cluster.nodes {
        eventually("a daemon without an ENIConfig", PATIENCE, async || {
            let blocked = node.view().await?.blocked;
            ensure!(blocked.iter().any(|one| one.contains("ENI_CONFIG")), "{blocked:?}");
            Ok(())
        })
        .await?;
    }
    nodes_are(k8s, "False").await.context("without an ENIConfig")?;
    story.good("without an ENIConfig the daemons say so, and no node is ready");
    k8s.kubectl(&["label", "nodes", "--all", "k8s.amazonaws.com/eniConfig=pods"]).await?;
    k8s.apply(&json!({
        "apiVersion": "crd.k8s.amazonaws.com/v1alpha1", "kind": "ENIConfig", "metadata": {"name": "pods"},
        "spec": {"subnet": POD_SUBNETS[0].0},
    }))
    .await?;
    nodes_serve(k8s, story, &image).await
}

/// Pods have addresses of the subnet, and those on later ENIs of the subnet that the ENIConfig names then.
pub(crate) async fn eni_config(k8s: &Kubernetes, story: &Story) -> Result<()> {
    k8s.apply(&deployment(APP, FEW, idle())).await?;
    let few = k8s.ready(APP, FEW).await?;
    let [first, second] = POD_SUBNETS.map(|(_, cidr)| cidr);
    ensure!(count_in(&few, first)? == FEW, "not all on {first}: {:?}", ips(&few));
    story.good(&format!("{FEW} pods have addresses of {first}, which the ENIConfig names"));
    let patch = json!({"spec": {"subnet": POD_SUBNETS[1].0}}).to_string();
    k8s.kubectl(&["patch", "eniconfig", "pods", "--type=merge", "--patch", &patch]).await?;
    scale(k8s, APP, MANY).await?;
    let many = k8s.ready(APP, MANY).await?;
    let stays = |pod: &Pod| many.iter().any(|one| one.uid() == pod.uid() && one.ip() == pod.ip());
    ensure!(few.iter().all(stays), "pods have changed: {:?}", ips(&many));
    let (n_first, n_second) = (count_in(&many, first)?, count_in(&many, second)?);
    ensure!(n_first + n_second == MANY && n_second > 0, "{n_first} + {n_second} of {MANY}");
    let n_ways = all_reach_all(k8s, &many).await?;
    k8s.cluster.books_agree(&[]).await?;
    story.good(&format!(
        "it names {second}: {n_second} further pods, on new ENIs, have addresses there; {n_ways} ways answer"
    ));
    let used = many.iter().map(|pod| pod.ip().to_owned()).collect();
    scale(k8s, APP, 0).await?;
    gone(k8s, APP).await?;
    nothing_is_left(k8s, &used).await
}

fn ips(pods: &[Pod]) -> Vec<&str> {
    pods.iter().map(Pod::ip).collect()
}

/// How many of the pods have an address of a subnet.
fn count_in(pods: &[Pod], cidr: &str) -> Result<usize> {
    let cidr: Ipv4Net = cidr.parse().context("a subnet")?;
    let mut count = 0;
    for pod in pods {
        let ip: Ipv4Addr = pod.ip().parse().with_context(|| format!("read {:?}", pod.ip()))?;
        count += usize::from(cidr.contains(&ip));
    }
    Ok(count)
}
