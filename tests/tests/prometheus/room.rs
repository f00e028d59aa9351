//! Alerts for shortages, on two nodes. Since these make every kind of data, the dashboards are tried here too.

use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tests::cluster::Spec;
use tests::exec::ExecCluster;

use crate::{ASSIGN, CREATE, LEAN, dashboards, end_burst, fail_each, start_burst, watched};

/// Somebody else takes addresses of the subnet, `n` at a time.
async fn squat(cluster: &ExecCluster, n: usize) -> Result<()> {
    let network = cluster.sim.network().await?;
    let subnet = network["instances"][0]["enis"][0]["subnet_id"].as_str().context("no subnet")?;
    let n = n.to_string();
    let parameters = [("SubnetId", subnet), ("SecondaryPrivateIpAddressCount", n.as_str())];
    cluster.sim.ec2(CREATE, &parameters).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn shortages_fire_their_alerts_and_fill_the_dashboards() -> Result<()> {
    let mut spec = Spec::new("proom", "t3.small", 2, &LEAN);
    spec.subnet = "10.0.0.0/24";
    watched(spec, async |cluster, prometheus| {
        let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let [first, second] = &cluster.nodes[..] else { anyhow::bail!("not two nodes") };
        squat(cluster, 40).await?;
        // EC2 refuses calls of the first node, so that it holds itself back.
        let fault = fail_each(cluster, ASSIGN, "RequestLimitExceeded").await?;
        let burst = start_burst(first, "t", 2).await?;
        prometheus.fires("TidepoolThrottled").await?;
        prometheus.shows("tidepool_ec2_limiter_seconds_total > 0").await?;
        cluster.sim.mend(fault).await?;
        end_burst(first, burst).await?;
        let mut pods = first.runtime.run_all("p", 2).await?;
        // EC2 has no subnet for the second node.
        let fault = fail_each(cluster, CREATE, "InsufficientFreeAddressesInSubnet").await?;
        let burst = start_burst(second, "s", 5).await?;
        prometheus.fires("TidepoolSubnetExhausted").await?;
        cluster.sim.mend(fault).await?;
        end_burst(second, burst).await?;
        prometheus.ends("TidepoolSubnetExhausted").await?;

        // A minute later the daemon asks for the subnets again, since EC2 refuses an ENI.
        prometheus.shows("tidepool_subnet_described_age_seconds > 60").await?;
        cluster.sim.fail(CREATE, 1, "InvalidParameterValue").await?;
        pods.extend(first.runtime.run_all("q", 6).await?);
        prometheus.fires("TidepoolSubnetRunsOut").await?;
        prometheus.fires("TidepoolNodeRunsOut").await?;

        pods.push(first.runtime.run("last").await?);
        first.runtime.refusal("over").await?;
        prometheus.fires("TidepoolNodeFull").await?;
        prometheus.fires("TidepoolPodsRefused").await?;
        first.runtime.remove_all(&pods).await?;
        dashboards::all_have_data(prometheus, first.address, start).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn subnet_without_aligned_ranges_fires_its_alert() -> Result<()> {
    let mut spec = Spec::new("pfrag", "m5.large", 1, &[("ENABLE_PREFIX_DELEGATION", "true")]);
    spec.subnet = "10.0.0.0/24";
    spec.used = (1..16).map(|block| Ipv4Addr::new(10, 0, 0, block * 16 + 7).to_string()).collect();
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let prometheus = tests::prometheus::Prometheus::start(&node.netns, &[node.address]).await?;
        let pods = node.runtime.run_all("p", 4).await?;
        prometheus.fires("TidepoolSubnetFragmented").await?;
        prometheus.shows("tidepool_subnet_free_prefixes == 0").await?;
        node.runtime.remove_all(&pods).await?;
        prometheus.stop().await
    })
    .await
}
