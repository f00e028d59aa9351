//! CHECK on every datapath.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tests::books::kernel;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, Pod};

use crate::{check, connect, host, refused, until_calm};

/// CHECK of as many pods as need a second ENI, and of a container that is not theirs.
async fn check_on_two_enis(spec: Spec, n_pods: usize) -> Result<()> {
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let names: Vec<_> = (0..n_pods).map(|index| format!("p{index}")).collect();
        let pods = try_join_all(names.iter().map(|name| connect(node, name))).await?;
        until_calm(node, 1).await?;
        let enis = node.view().await?.pods.into_iter().filter_map(|pod| Some(pod.address?.eni));
        let enis: BTreeSet<_> = enis.collect();
        ensure!(enis.len() == 2, "pods on {enis:?}");
        let before = kernel(&host(node)).await?;
        for (pod, result) in &pods {
            check(node, pod, result).await.with_context(|| format!("{pod:?}"))?;
        }
        let (first, result) = &pods[0];
        for other in ["p1", "unheard-of"] {
            let wrong = Pod { name: other.to_owned(), ..first.clone() };
            refused(check(node, &wrong, result).await, 154)?;
        }
        ensure!(kernel(&host(node)).await? == before, "CHECK changed the kernel");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_38_and_40_check_with_secondary_addresses() -> Result<()> {
    check_on_two_enis(Spec::new("a38", "t3.small", 1, &[("WARM_IP_TARGET", "1")]), 5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_38_and_40_check_with_prefixes() -> Result<()> {
    let settings = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("TIDEPOOL_MAX_PODS", "110"),
        ("WARM_IP_TARGET", "1"),
    ];
    check_on_two_enis(Spec::new("a38p", "t3.small", 1, &settings), 50).await
}
