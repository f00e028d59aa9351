//! A cluster whose pods and Services are on IPv6.

use std::net::Ipv6Addr;

use anyhow::{Context, Result};
use tests::cluster::IPV6_SETTINGS;
use tests::k8s::Kubernetes;
use tests::story::Story;

use crate::install::{apply_with, nodes_serve, nodes_wait, nothing_blocks};
use crate::reach::{all_reach_all, scale_down, services, web_is_up};

/// This checkout's Tidepool with what switches it to IPv6.
pub(crate) async fn install(k8s: &Kubernetes, story: &Story) -> Result<()> {
    nodes_wait(k8s, story).await?;
    let image = apply_with(k8s, &IPV6_SETTINGS).await?;
    nodes_serve(k8s, story, &image).await?;
    nothing_blocks(k8s).await
}

/// Pods reach each other, directly and by a Service, and leave nothing.
pub(crate) async fn ipv6(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let pods = web_is_up(k8s).await?;
    for pod in &pods {
        let read = pod.ip().parse::<Ipv6Addr>();
        read.with_context(|| format!("{} has {:?}", pod.name(), pod.ip()))?;
    }
    let n_ways = all_reach_all(k8s, &pods).await?;
    story.good(&format!("{} pods on IPv6; {n_ways} ways between them answer", pods.len()));
    services(k8s, story).await?;
    k8s.cluster.books_agree(&[]).await?;
    scale_down(k8s, story).await
}
