//! EC2 answers, but throttles, fails, loses answers, or is slow and stale.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::{try_join, try_join_all};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::ExecCluster;
use tests::process::PATIENCE;

use crate::{
    ASSIGN, ATTACH, CREATE, MODIFY, all_reachable, lean, n_calls, names_code, run_patiently,
};

#[tokio::test(flavor = "multi_thread")]
async fn throttled_calls_delay_pods_but_fail_none() -> Result<()> {
    ExecCluster::with(lean("fthr"), async |cluster| {
        for action in [CREATE, ATTACH, ASSIGN] {
            cluster.sim.fail(action, 2, "RequestLimitExceeded").await?;
        }
        let node = &cluster.nodes[0];
        let pods = node.runtime.run_all("p", 12).await?;
        all_reachable(node, &pods).await?;
        for action in [CREATE, ATTACH, ASSIGN] {
            ensure!(n_calls(cluster, action).await? > 2, "{action} was not throttled");
        }
        cluster.books_agree(&[]).await?;
        node.runtime.remove_all(&pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// For a while other clients of the account take every token.
async fn starve(cluster: &ExecCluster, actions: &[&str]) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        for action in actions {
            // EC2 refuses it for lack of parameters, but only after the call has taken its token.
            let refused = cluster.sim.ec2(action, &[]).await;
            ensure!(refused.is_err(), "{action} took no parameters");
        }
    }
    Ok(())
}

/// The buckets refill with five tokens a second.
#[tokio::test(flavor = "multi_thread")]
async fn empty_token_bucket_delays_pods_but_fails_none() -> Result<()> {
    ExecCluster::with(lean("fbkt"), async |cluster| {
        cluster.sim.switch(json!({"throttling": "documented"})).await?;
        for action in [CREATE, ASSIGN] {
            let drain = async || cluster.sim.ec2(action, &[]).await;
            while !format!("{:?}", drain().await).contains("RequestLimitExceeded") {}
        }
        let node = &cluster.nodes[0];
        let pods = node.runtime.run_all("p", 12);
        let (pods, _) = try_join(pods, starve(cluster, &[CREATE, ASSIGN])).await?;
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_leak_nothing() -> Result<()> {
    ExecCluster::with(lean("flost"), async |cluster| {
        for action in [CREATE, ATTACH, ASSIGN] {
            let rule = json!({"action": action, "when": {"nth": 1}, "effect": "lose_reply"});
            cluster.sim.fault(rule).await?;
        }
        let node = &cluster.nodes[0];
        let pods = node.runtime.run_all("p", 12).await?;
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await?;
        let enis = cluster.sim.enis().await?;
        ensure!(enis.len() == 2, "12 pods need two ENIs, not {enis:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_stale_ec2_serves_twenty_pods_from_cold() -> Result<()> {
    let mut spec = lean("fslow");
    let soon = json!({"min_ms": 100, "max_ms": 1000});
    spec.switches = json!({
        "latency": "realistic",
        "consistency": {"custom": {
            "hidden_permille": 1000, "hidden": soon, "stale_permille": 300, "stale": soon,
            "imds_interface": soon, "imds_addresses": {"min_ms": 500, "max_ms": 5000},
        }},
    });
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let pods = node.runtime.run_all("p", 20).await?;
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// Every call that grows a pool fails three times: by an internal error, by throttling, and by a lost answer.
#[tokio::test(flavor = "multi_thread")]
async fn storm_of_faults_costs_only_time() -> Result<()> {
    ExecCluster::with(lean("fstorm"), async |cluster| {
        let fail = |code: &str| json!({"fail": {"code": code}});
        let effects = [fail("InternalError"), json!("lose_reply"), fail("RequestLimitExceeded")];
        let actions = [CREATE, ATTACH, ASSIGN, MODIFY, "DescribeNetworkInterfaces"];
        for (nth, effect) in (1..).zip(effects) {
            for action in actions {
                let rule = json!({"action": action, "when": {"nth": nth}, "effect": effect});
                cluster.sim.fault(rule).await?;
            }
        }
        let node = &cluster.nodes[0];
        let names: Vec<_> = (0..20).map(|index| format!("p{index}")).collect();
        let pods = names.iter().map(|name| run_patiently(node, name, PATIENCE));
        let pods = try_join_all(pods).await?;
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await?;
        node.runtime.remove_all(&pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// EC2 fails one action each time. The daemon calls it ever more rarely and names the failure.
#[tokio::test(flavor = "multi_thread")]
async fn always_failing_call_becomes_rare() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), ("TIDEPOOL_ADD_WAIT", "4s")];
    let spec = Spec::new("fham", "m5.large", 1, &settings);
    ExecCluster::with(spec, async |cluster| {
        let before = n_calls(cluster, ASSIGN).await?;
        let fault = cluster.sim.fail(ASSIGN, u64::MAX, "InternalError").await?;
        let node = &cluster.nodes[0];
        let mut pods = vec![node.runtime.run("first").await?];
        let refusal = node.runtime.refusal("second").await?;
        names_code(&refusal, "EC2_FAILING")?;
        let n = n_calls(cluster, ASSIGN).await? - before;
        ensure!((1..=6).contains(&n), "{n} calls within 4 s");
        cluster.sim.mend(fault).await?;
        pods.push(run_patiently(node, "third", PATIENCE).await?);
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}
