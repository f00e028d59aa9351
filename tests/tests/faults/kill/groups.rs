//! The daemon dies while it brings the security groups of an ENI into line with the primary ENI's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use failpoint::Order;
use tests::cluster::OTHER_GROUP;
use tests::exec::ExecCluster;
use tests::process::eventually;

use super::{all_is_well, quick, with_pods};

/// Fail points on the way when the primary ENI has got other groups.
pub(super) const SETTING: &[&str] = &["calling-SetSecurityGroups", "called-SetSecurityGroups"];

/// Two describes ten seconds apart come before the change, after each start.
const PATIENCE: Duration = Duration::from_secs(120);

/// The ids of the node's ENIs, the primary one first, and how many have [`OTHER_GROUP`].
async fn enis(cluster: &ExecCluster) -> Result<(Vec<String>, usize)> {
    let network = cluster.sim.network().await?;
    let enis = network["instances"][0]["enis"].as_array().context("no ENIs")?;
    let ids = enis.iter().map(|eni| Ok(eni["id"].as_str().context("no id")?.to_owned()));
    let answer = cluster.sim.ec2("DescribeNetworkInterfaces", &[]).await?;
    let n = answer.matches(&format!("<groupId>{OTHER_GROUP}</groupId>")).count();
    Ok((ids.collect::<Result<_>>()?, n))
}

/// The groups change while no daemon runs. The next one notices it, dies at the call, and the one after ends it.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_killed_as_it_sets_groups_sets_them() -> Result<()> {
    let groups = async |cluster: &ExecCluster| cluster.sim.ec2("DescribeSecurityGroups", &[]).await;
    with_pods(quick("kgr", &[]), 6, async |cluster, steady| {
        let all = groups(cluster).await?;
        let mut default = all.split("<groupId>").skip(1).filter_map(|rest| rest.split('<').next());
        let default = default.find(|id| *id != OTHER_GROUP).context("no default group")?;
        for (point, group) in SETTING.iter().zip([OTHER_GROUP, default]) {
            cluster.nodes[0].stop_ipamd().await?;
            let (ids, _) = enis(cluster).await?;
            ensure!(ids.len() > 1, "only {ids:?}");
            let parameters = [("NetworkInterfaceId", &*ids[0]), ("SecurityGroupId.1", group)];
            cluster.sim.ec2("ModifyNetworkInterfaceAttribute", &parameters).await?;
            let node = &mut cluster.nodes[0];
            node.arm(point, Order::Kill)?;
            node.start_ipamd().await?;
            node.ipamd_dies().await.with_context(|| format!("at {point}"))?;
            node.start_ipamd().await?;
            eventually("security groups in line", PATIENCE, async || {
                let (ids, n) = enis(cluster).await?;
                let expected = if group == OTHER_GROUP { ids.len() } else { 0 };
                ensure!(n == expected, "{n} of {ids:?} have {OTHER_GROUP}, not {expected}");
                let in_flight = cluster.nodes[0].view().await?.in_flight;
                ensure!(in_flight.is_empty(), "{in_flight:?}");
                Ok(())
            })
            .await
            .with_context(|| format!("after {point}"))?;
            all_is_well(cluster, steady).await.with_context(|| format!("after {point}"))?;
        }
        Ok(())
    })
    .await
}
