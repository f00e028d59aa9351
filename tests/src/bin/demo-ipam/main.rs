//! `make demo-ipam`: from an empty organisation to pods in a shared pool, with a report of each step.

#![expect(clippy::print_stdout, reason = "telling what happens is what a demo is for")]

mod bill;
mod cluster;
mod organization;
mod plan;
mod space;

use std::process::ExitCode;

use anyhow::Result;
use tests::cluster::Cluster;
use tests::process::interrupted;
use tests::story::Story;

use crate::organization::{Organization, topology};

#[tokio::main]
async fn main() -> ExitCode {
    let story = Story::new();
    match demo(&story).await {
        Ok(()) => {
            story.note(&format!("cleaned up; {:.0} s in all", story.elapsed().as_secs_f64()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("demo-ipam: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(story: &Story) -> Result<()> {
    let name = format!("ipam{}", std::process::id());
    let mut cluster = Cluster::without_nodes(&name, &topology(&name)).await?;
    let outcome = tokio::select! {
        told = tell(story, &name, &mut cluster) => told,
        stopped = interrupted() => stopped,
    };
    let down = cluster.down().await;
    outcome.and(down)
}

async fn tell(story: &Story, name: &str, cluster: &mut Cluster) -> Result<()> {
    let directory = cluster.directory().to_owned();
    let organization = Organization::new(story, &cluster.sim, &directory)?;
    let pools = plan::make(&organization).await?;
    let vpc = space::take(&organization, &pools).await?;
    space::overlap_and_cure(&organization, &pools).await?;
    let machines = cluster::launch(&organization, name, &vpc).await?;
    cluster::make_nodes(story, cluster, machines).await?;
    // The cluster has changed, so it is borrowed anew.
    let organization = Organization::new(story, &cluster.sim, &directory)?;
    let n_pods = cluster::fill_and_grow(&organization, &pools, &vpc, &cluster.nodes).await?;
    bill::show(&organization, n_pods.div_ceil(cluster.nodes.len())).await
}
