//! What `ipamd` answers to people while something is wrong: why a pod has no address, and which subnet is short.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually};

use crate::{CREATE, LEAN, all_reachable, called, lean};

/// The JSON that a command prints, and its exit code.
async fn json(node: &ExecNode, arguments: &[&str]) -> Result<(i32, Value)> {
    let (code, stdout, stderr) = node.ipamd(&[arguments, &["--output", "json"]].concat()).await?;
    let json = serde_json::from_str(&stdout);
    Ok((code, json.with_context(|| format!("{arguments:?}: {stdout}{stderr}"))?))
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_that_waits_for_an_eni_is_explained() -> Result<()> {
    ExecCluster::with(lean("qwait"), async |cluster| {
        let node = &cluster.nodes[0];
        let mut pods = node.runtime.run_all("p", 8).await?;
        let delay = cluster.sim.delay(CREATE).await?;
        // Now the primary ENI is full, so the next address comes with a second ENI.
        pods.push(node.runtime.run("last").await?);
        let pod = node.runtime.pod("late").await?;
        let add = node.runtime.start_verb("ADD", &pod).await?;
        called(cluster, CREATE, 1).await?;
        let why = eventually("explanation of the waiting ADD", PATIENCE, async || {
            let (code, why) = json(node, &["why", "default/late"]).await?;
            ensure!(code == 0 && why["state"] == "waiting", "{code}: {why}");
            Ok(why)
        })
        .await?;
        let reason = &why["attachments"][0]["reason"];
        ensure!(reason["code"] == "ATTACHING", "{why}");
        let message = reason["message"].as_str().unwrap_or_default();
        ensure!(message.contains("9 of 9 in use") && message.contains("subnet-"), "{why}");
        ensure!(why["attachments"][0]["ahead"] == 0 && why["not_ready"].is_null(), "{why}");
        ensure!(why["in_flight"].to_string().contains(CREATE), "{why}");
        let (_, text, _) = node.ipamd(&["why", "late"]).await?;
        ensure!(text.contains("default/late (container late, eth0): has waited for"), "{text}");

        cluster.sim.answer_delayed(delay).await?;
        let added = tests::exec::added(add.wait_with_output().await?)?;
        let (code, why) = json(node, &["why", "default/late"]).await?;
        ensure!(code == 0 && why["state"] == "holding", "{code}: {why}");
        let held = &why["attachments"][0]["addresses"][0];
        ensure!(held["address"] == added.as_str() && held["eni"] != "", "{why}");
        ensure!(why["attachments"][0]["doubts"] == Value::Array(vec![]), "{why}");
        pods.push(tests::exec::Pod { ip: added, ..pod });
        all_reachable(node, &pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_pod_and_its_subnet_are_explained() -> Result<()> {
    // 11 addresses, one for the node.
    let spec = Spec { subnet: "10.0.0.0/28", ..Spec::new("qfull", "m5.large", 1, &LEAN) };
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let mut pods = vec![];
        let refusal = loop {
            match node.runtime.run(&format!("p{}", pods.len())).await {
                Ok(pod) => pods.push(pod),
                Err(error) => break error.downcast::<tests::exec::Refusal>()?,
            }
            ensure!(pods.len() < 11, "the subnet has no more than 10");
        };
        // The plugin has sent the DEL, as a runtime does, so nothing waits any more.
        let name = format!("default/p{}", pods.len());
        let (code, why) = json(node, &["why", &name]).await?;
        ensure!(code == 0 && why["state"] == "refused", "{code}: {why}");
        let last = &why["last_refusal"];
        ensure!(last["refusals"] == 1 && last["reason"]["retry_at_ms"].is_u64(), "{why}");
        let reason = &last["reason"];
        let said = format!(
            "{}: {}",
            reason["code"].as_str().unwrap_or_default(),
            reason["message"].as_str().unwrap_or_default()
        );
        ensure!(said == refusal.msg, "the ADD's error is {}, and why says {said}", refusal.msg);

        let (_, subnets) = json(node, &["subnets"]).await?;
        let subnet = &subnets["subnets"][0];
        ensure!(subnet["role"] == "new-enis" && subnet["cidr"] == "10.0.0.0/28", "{subnets}");
        ensure!(subnet["refusals"][0]["code"] == "SUBNET_EXHAUSTED", "{subnets}");
        ensure!(subnet["counts"]["assigned"] == pods.len(), "{subnets}");
        let (_, shown) = json(node, &["pods"]).await?;
        ensure!(shown["pods"].as_array().map(Vec::len) == Some(pods.len()), "{shown}");
        let (_, none) = json(node, &["pods", "--namespace", "other"]).await?;
        ensure!(none["pods"] == Value::Array(vec![]), "{none}");
        let (_, enis) = json(node, &["enis"]).await?;
        ensure!(
            enis["enis"][0]["primary"] == true && enis["enis"][0]["state"] == "ready",
            "{enis}"
        );
        for command in ["pods", "enis", "subnets"] {
            let (code, table, _) = node.ipamd(&[command]).await?;
            ensure!(code == 0 && table.lines().count() > 1, "{command}: {table}");
        }

        let (code, unknown) = json(node, &["why", "default/never"]).await?;
        ensure!(code == 5 && unknown["state"] == "unknown", "{code}: {unknown}");
        let (code, stdout, stderr) = node.ipamd(&["why", "default/never"]).await?;
        ensure!(code == 5 && stdout.is_empty(), "{code}: {stdout}");
        ensure!(stderr.contains("never heard of pod default/never"), "{stderr}");
        node.runtime.remove_all(&pods).await
    })
    .await
}
