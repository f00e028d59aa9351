//! The assertions of CNI conformity that need the real daemon. The table in `cni-plugin/tests/README.md` names all
//! assertions. A test's name starts with their numbers. The tests start the plugin as a runtime does.

mod add;
mod check;
mod del;
mod gc;
mod ipv6;
mod record;
mod status;

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::cluster::Spec;
use tests::exec::{ExecNode, Pod, Refusal, address};
use tests::process::{PATIENCE, eventually};

/// The network's name in the shipped conflist.
const NETWORK: &str = "aws-cni";

/// One m5.large, which takes 9 addresses on each of 3 ENIs.
fn spec(name: &str, settings: &[(&'static str, &str)]) -> Spec {
    Spec::new(name, "m5.large", 1, settings)
}

/// A node for a single pod: each pod gets the same address.
fn single(name: &str) -> Spec {
    spec(name, &[("WARM_IP_TARGET", "1"), ("TIDEPOOL_MAX_PODS", "1"), ("IP_COOLDOWN_PERIOD", "0")])
}

/// Runs the plugin in version 1.1.0, unless `conf` has another.
async fn call(node: &ExecNode, verb: &str, pod: Option<&Pod>, mut conf: Value) -> Result<Value> {
    let keys = conf.as_object_mut().context("a configuration that is no object")?;
    keys.entry("cniVersion").or_insert_with(|| "1.1.0".into());
    node.runtime.call(verb, pod, conf).await
}

/// The refusal in `outcome`. It must have this code.
fn refused(outcome: Result<Value>, code: u64) -> Result<Refusal> {
    match outcome {
        Ok(result) => bail!("no error of code {code} but {result}"),
        Err(error) => {
            let refusal: Refusal = error.downcast()?;
            ensure!(refusal.code == code, "expected code {code}: {refusal}");
            Ok(refusal)
        }
    }
}

async fn status(node: &ExecNode) -> Result<Value> {
    call(node, "STATUS", None, json!({})).await
}

async fn gc(node: &ExecNode, network: &str, valid: &[&Pod]) -> Result<()> {
    let list: Vec<_> =
        valid.iter().map(|pod| json!({"containerID": pod.name, "ifname": "eth0"})).collect();
    let conf = json!({"name": network, "cni.dev/valid-attachments": list});
    let printed = call(node, "GC", None, conf).await?;
    ensure!(printed.is_null(), "GC printed {printed}");
    Ok(())
}

/// GC of a network that leaves `valid`. Afterwards the daemon's view has exactly the containers `left` with these
/// addresses. A GC spares an attachment until the daemon has noticed that its ADD has ended, so it is repeated.
async fn collect(
    node: &ExecNode,
    network: &str,
    valid: &[&Pod],
    left: &[(&str, &str)],
) -> Result<()> {
    eventually("end of the dead", PATIENCE, async || {
        gc(node, network, valid).await?;
        holds(node, left).await
    })
    .await
}

/// Connects a pod. Returns it with the result of its ADD.
async fn connect(node: &ExecNode, name: &str) -> Result<(Pod, Value)> {
    connect_to(node, NETWORK, name).await
}

async fn connect_to(node: &ExecNode, network: &str, name: &str) -> Result<(Pod, Value)> {
    let mut pod = node.runtime.pod(name).await?;
    let result = call(node, "ADD", Some(&pod), json!({"name": network})).await?;
    pod.ip = address(&result)?;
    Ok((pod, result))
}

async fn check(node: &ExecNode, pod: &Pod, result: &Value) -> Result<Value> {
    call(node, "CHECK", Some(pod), json!({"prevResult": result})).await
}

/// Waits until the daemon's view has exactly these containers with these addresses.
async fn until_held(node: &ExecNode, expected: &[(&str, &str)]) -> Result<()> {
    eventually("end of the release", PATIENCE, || holds(node, expected)).await
}

async fn holds(node: &ExecNode, expected: &[(&str, &str)]) -> Result<()> {
    let own = |(name, ip): &(&str, &str)| ((*name).to_owned(), (*ip).to_owned());
    let expected: BTreeSet<_> = expected.iter().map(own).collect();
    let held = node.held().await?;
    ensure!(held == expected, "held: {held:?}, not {expected:?}");
    Ok(())
}

async fn until_waiting(node: &ExecNode, n_waiting: u64) -> Result<()> {
    eventually("waiting ADD", PATIENCE, async || {
        let n = node.view().await?.counts.context("no counts")?.waiting;
        ensure!(n == n_waiting, "{n} are waiting, not {n_waiting}");
        Ok(())
    })
    .await
}

fn host(node: &ExecNode) -> String {
    format!("/run/netns/{}", node.netns)
}

/// Waits until the daemon is at rest and has at least `n_free` free addresses.
async fn until_calm(node: &ExecNode, n_free: u64) -> Result<()> {
    eventually("calm pool", PATIENCE, async || {
        let view = node.view().await?;
        let n = view.counts.context("no counts")?.free;
        let calm = view.in_flight.is_empty() && view.enis.iter().all(|eni| eni.state == "ready");
        ensure!(calm && n >= n_free, "{n} free; {:?} {:?}", view.in_flight, view.enis);
        Ok(())
    })
    .await
}
