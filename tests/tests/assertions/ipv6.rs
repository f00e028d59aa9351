//! Pods on IPv6.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{in_netns, output};

use crate::{NETWORK, call, check, collect, connect, refused, status, until_held};

/// Runs each verb that needs the daemon, on a node with pods on IPv6.
#[tokio::test(flavor = "multi_thread")]
async fn every_verb_works_on_ipv6() -> Result<()> {
    ExecCluster::with(Spec::ipv6("a6", "m5.large", 1, &[]), async |cluster| {
        let node = &mut cluster.nodes[0];
        status(node).await?;
        let (first, result) = connect(node, "first").await?;
        let expected = json!([{"address": format!("{}/128", first.ip), "interface": 1}]);
        ensure!(result["ips"] == expected && first.ip.contains(':'), "{result}");
        ensure!(result["routes"] == json!([{"dst": "::/0", "gw": "fe80::1"}]), "{result}");
        let (second, second_result) = connect(node, "second").await?;
        let (third, _) = connect(node, "third").await?;
        check(node, &first, &result).await?;
        refused(check(node, &second, &result).await, 154)?;

        let left = [("first", first.ip.as_str()), ("second", second.ip.as_str())];
        collect(node, NETWORK, &[&first, &second], &left).await?;
        let rules = async |node: &ExecNode| -> Result<String> {
            output(in_netns(&node.netns, "ip").args(["-6", "rule"])).await
        };
        ensure!(!rules(node).await?.contains(&third.ip), "a rule of the third is left");
        check(node, &second, &second_result).await?;

        call(node, "DEL", Some(&second), json!({"prevResult": second_result})).await?;
        call(node, "DEL", Some(&second), json!({})).await?;
        until_held(node, &[("first", &first.ip)]).await?;
        node.kill_ipamd().await?;
        call(node, "DEL", Some(&first), json!({})).await?;
        ensure!(!rules(node).await?.contains(&first.ip), "a rule of the first is left");
        node.start_ipamd().await?;
        until_held(node, &[]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
