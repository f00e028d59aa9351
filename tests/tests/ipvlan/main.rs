//! The data path `ipvlan` of the plugin, with real daemons on the simulator's fabric. Only some kernels have `ipvlan`, so
//! these tests run in the guest of `make test-guest`. `tests/guest/run` starts all of them.

mod life;
mod ways;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::exec::{ExecNode, Pod, Refusal, address};
use tests::process::{in_netns, output};

/// The main table, which leads out of the primary ENI.
const MAIN: u32 = 254;

/// The entry of our plugin in docs/container-hosts.md, with another mode if one is given.
fn ipvlan(mode: Option<&str>) -> Result<Value> {
    let document = include_str!("../../../docs/container-hosts.md");
    let blocks = document.split("```json").skip(1).filter_map(|rest| rest.split("```").next());
    let ours = blocks.filter_map(|block| serde_json::from_str::<Value>(block).ok());
    let entries = ours.filter_map(|conflist| conflist["plugins"].as_array()?.first().cloned());
    let mut entry = entries.last().context("no conflist in the document")?;
    entry["cniVersion"] = json!("1.1.0");
    if let Some(mode) = mode {
        entry["ipvlanMode"] = json!(mode);
    }
    Ok(entry)
}

/// Connects a pod with the keys of `conf`. Returns it with the result of its ADD.
async fn connect(node: &ExecNode, name: &str, conf: &Value) -> Result<(Pod, Value)> {
    let mut pod = node.runtime.pod(name).await?;
    let result = node.runtime.call("ADD", Some(&pod), conf.clone()).await?;
    pod.ip = address(&result)?;
    Ok((pod, result))
}

/// The route table of each pod's ENI, by the pod's address.
async fn tables(node: &ExecNode) -> Result<BTreeMap<String, u32>> {
    let pods = node.view().await?.pods.into_iter();
    Ok(pods.filter_map(|pod| pod.address).map(|at| (at.address, at.table)).collect())
}

/// Connects pods until one is on an ENI that is, or is not, the primary. The others stay.
async fn connect_on(node: &ExecNode, name: &str, conf: &Value, primary: bool) -> Result<Pod> {
    for n in 0..8 {
        let (pod, _) = connect(node, &format!("{name}{n}"), conf).await?;
        if (tables(node).await?.get(&pod.ip) == Some(&MAIN)) == primary {
            return Ok(pod);
        }
    }
    anyhow::bail!("no pod on such an ENI: {:?}", tables(node).await?)
}

/// Runs `ip` with `words` in the pod.
async fn ip(pod: &Pod, words: &str) -> Result<String> {
    let netns = pod.netns.trim_start_matches("/run/netns/");
    output(in_netns(netns, "ip").args(words.split(' '))).await
}

/// The error of a call, which must have this code and name `part`.
fn refused(outcome: Result<Value>, code: u64, part: &str) -> Result<()> {
    let refusal: Refusal = match outcome {
        Ok(result) => anyhow::bail!("no error of code {code} but {result}"),
        Err(error) => error.downcast()?,
    };
    let is_it = refusal.code == code && refusal.details.contains(part);
    ensure!(is_it, "expected code {code} and {part:?}: {refusal}");
    Ok(())
}
