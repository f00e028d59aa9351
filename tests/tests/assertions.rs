//! The assertions of conformity to CNI that need the real daemon; the table that names them all is in
//! `cni-plugin/tests/README.md`. A test's name starts with their numbers. The plugin is started as a
//! runtime starts it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use failpoint::Order;
use futures::future::try_join_all;
use serde_json::{Value, json};
use tests::books::kernel;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode, Pod, Refusal, added};
use tests::process::{PATIENCE, eventually, go_on, in_netns, output, stopped};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The network's name in the shipped conflist.
const NETWORK: &str = "aws-cni";
const ASSIGN: &str = "AssignPrivateIpAddresses";
const ATTACH: &str = "AttachNetworkInterface";

/// One m5.large, which takes 9 addresses on each of 3 ENIs.
fn spec(name: &str, settings: &[(&'static str, &str)]) -> Spec {
    Spec::new(name, "m5.large", 1, settings)
}

/// One that may have a single pod: whoever comes gets the same address.
fn single(name: &str) -> Spec {
    spec(name, &[("WARM_IP_TARGET", "1"), ("TIDEPOOL_MAX_PODS", "1"), ("IP_COOLDOWN_PERIOD", "0")])
}

/// Runs the plugin with our entry of the conflist in version 1.1.0, changed by `conf`; null where
/// the verb has no result. Its error is a [`Refusal`].
async fn call(node: &ExecNode, verb: &str, pod: Option<&Pod>, conf: Value) -> Result<Value> {
    let mut command = in_netns(&node.netns, node.plugin());
    command.env_clear().env("CNI_COMMAND", verb).env("CNI_PATH", "/usr/lib/cni");
    if let Some(pod) = pod {
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}", pod.name);
        command.env("CNI_CONTAINERID", &pod.name).env("CNI_NETNS", &pod.netns);
        command.env("CNI_IFNAME", "eth0").env("CNI_ARGS", args);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn()?;
    let text = configuration(node, conf)?.to_string();
    child.stdin.take().context("no stdin")?.write_all(text.as_bytes()).await?;
    let out = child.wait_with_output().await?;
    match (out.status.success(), out.stdout.is_empty()) {
        (true, true) => Ok(Value::Null),
        (true, false) => Ok(serde_json::from_slice(&out.stdout)?),
        (false, _) => Err(refusal(&out.stdout).with_context(|| format!("{verb}: {out:?}"))?.into()),
    }
}

fn configuration(node: &ExecNode, changes: Value) -> Result<Value> {
    let list: Value = serde_json::from_str(&std::fs::read_to_string(node.conflist())?)?;
    let mut conf = list["plugins"][0].clone();
    conf["name"] = NETWORK.into();
    conf["cniVersion"] = "1.1.0".into();
    for (key, value) in changes.as_object().context("changes are no object")? {
        conf[key] = value.clone();
    }
    Ok(conf)
}

fn refusal(stdout: &[u8]) -> Result<Refusal> {
    let error: Value = serde_json::from_slice(stdout)?;
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    let code = error["code"].as_u64().context("an error without a code")?;
    Ok(Refusal { code, msg: text("msg"), details: text("details") })
}

/// The refusal, which must have this code.
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

/// A pod that is connected, and the result that says so.
async fn connect(node: &ExecNode, name: &str) -> Result<(Pod, Value)> {
    connect_to(node, NETWORK, name).await
}

async fn connect_to(node: &ExecNode, network: &str, name: &str) -> Result<(Pod, Value)> {
    let mut pod = node.runtime.pod(name).await?;
    let result = call(node, "ADD", Some(&pod), json!({"name": network})).await?;
    pod.ip = address(&result)?;
    Ok((pod, result))
}

fn address(result: &Value) -> Result<String> {
    let address = result["ips"][0]["address"].as_str().context("a result without address")?;
    let (address, _length) = address.split_once('/').context("an address without length")?;
    Ok(address.to_owned())
}

async fn check(node: &ExecNode, pod: &Pod, result: &Value) -> Result<Value> {
    call(node, "CHECK", Some(pod), json!({"prevResult": result})).await
}

/// The containers that have an address by the daemon's word, each with it, ascending.
async fn held(node: &ExecNode) -> Result<Vec<(String, String)>> {
    let pods = node.view().await?.pods.into_iter();
    let mut held: Vec<_> = pods
        .map(|pod| {
            let container = pod.attachment.unwrap_or_default().container_id;
            (container, pod.address.unwrap_or_default().address)
        })
        .collect();
    held.sort();
    Ok(held)
}

async fn until_held(node: &ExecNode, expected: &[(&str, &str)]) -> Result<()> {
    eventually("end of the release", PATIENCE, async || {
        let held = held(node).await?;
        let same =
            held.iter().map(|(name, ip)| (name.as_str(), ip.as_str())).eq(expected.iter().copied());
        ensure!(same, "held: {held:?}, not {expected:?}");
        Ok(())
    })
    .await
}

fn host(node: &ExecNode) -> String {
    format!("/run/netns/{}", node.netns)
}

/// Waits until the daemon neither does nor wants anything and has `n_free` addresses to give.
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

async fn until_waiting(node: &ExecNode, n_waiting: u64) -> Result<()> {
    eventually("waiting ADD", PATIENCE, async || {
        let n = node.view().await?.counts.context("no counts")?.waiting;
        ensure!(n == n_waiting, "{n} are waiting, not {n_waiting}");
        Ok(())
    })
    .await
}

/// The files of DELs that the plugin could not deliver.
fn notes(node: &ExecNode) -> Result<Vec<PathBuf>> {
    let directory = proto::pending::directory(&node.socket());
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(vec![]) };
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_25_an_add_waits_for_an_attach_as_long_as_it_may() -> Result<()> {
    let spec = Spec::new("a25", "t3.small", 1, &[("WARM_IP_TARGET", "1")]);
    ExecCluster::with(spec, async |cluster| {
        let delay = json!({"action": ATTACH, "when": "each", "effect": {"delay": {"ms": 4000}}});
        cluster.sim.fault(delay).await?;
        let node = &cluster.nodes[0];
        // All that the primary ENI takes.
        for name in ["a", "b", "c"] {
            connect(node, name).await?;
        }
        let hasty = node.runtime.pod("hasty").await?;
        let started = Instant::now();
        let short = json!({"ipamdTimeout": "1s"});
        refused(call(node, "ADD", Some(&hasty), short).await, 11)?;
        ensure!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
        node.runtime.remove(&hasty).await?;
        let (patient, result) = connect(node, "patient").await?;
        ensure!(started.elapsed() > Duration::from_secs(2), "the attach was not delayed");
        check(node, &patient, &result).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_28_a_crash_after_an_add_loses_nothing() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "0")];
    ExecCluster::with(spec("a28", &settings), async |cluster| {
        let mut pods = vec![];
        for index in 0..4 {
            pods.push(connect(&cluster.nodes[0], &format!("p{index}")).await?);
            cluster.nodes[0].kill_ipamd().await?;
            cluster.nodes[0].start_ipamd().await?;
            for (pod, result) in &pods {
                let printed = check(&cluster.nodes[0], pod, result).await?;
                ensure!(printed.is_null(), "CHECK printed {printed}");
            }
        }
        cluster.books_agree(&[]).await
    })
    .await
}

/// The DEL comes again when its address is another pod's: with and without a result that names the
/// address, and by way of the disk.
#[tokio::test(flavor = "multi_thread")]
async fn assert_32_a_late_del_takes_nothing_that_is_anothers() -> Result<()> {
    ExecCluster::with(single("a32"), async |cluster| {
        let node = &mut cluster.nodes[0];
        let (first, old) = connect(node, "first").await?;
        node.runtime.del(&first).await?;
        let (second, result) = connect(node, "second").await?;
        ensure!(first.ip == second.ip, "{} was not used again: {}", first.ip, second.ip);

        let before = kernel(&host(node)).await?;
        let with_result = json!({"prevResult": old});
        for conf in [json!({}), with_result.clone()] {
            call(node, "DEL", Some(&first), conf).await?;
        }
        node.stop_ipamd().await?;
        call(node, "DEL", Some(&first), with_result).await?;
        ensure!(!notes(node)?.is_empty(), "the DEL without the daemon is not on disk");
        node.start_ipamd_unready().await?;
        eventually("end of the note", PATIENCE, async || {
            ensure!(notes(node)?.is_empty(), "still there: {:?}", notes(node)?);
            Ok(())
        })
        .await?;
        check(node, &second, &result).await?;
        until_held(node, &[("second", &second.ip)]).await?;
        ensure!(kernel(&host(node)).await? == before, "the kernel was changed");
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_33_a_del_without_the_daemon_is_applied_once() -> Result<()> {
    ExecCluster::with(single("a33"), async |cluster| {
        let node = &mut cluster.nodes[0];
        let (first, result) = connect(node, "first").await?;
        node.kill_ipamd().await?;
        for _ in 0..2 {
            call(node, "DEL", Some(&first), json!({"prevResult": result})).await?;
            ensure!(notes(node)?.len() == 1, "{:?}", notes(node)?);
        }
        node.start_ipamd().await?;
        until_held(node, &[]).await?;
        ensure!(notes(node)?.is_empty(), "applied, yet on disk: {:?}", notes(node)?);
        let (second, result) = connect(node, "second").await?;
        ensure!(first.ip == second.ip, "{} was not used again: {}", first.ip, second.ip);
        node.kill_ipamd().await?;
        node.start_ipamd_unready().await?;
        check(node, &second, &result).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

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

#[tokio::test(flavor = "multi_thread")]
async fn assert_44_and_48_status_is_true_and_costs_nothing() -> Result<()> {
    ExecCluster::with(spec("a44", &[("WARM_IP_TARGET", "3")]), async |cluster| {
        let node = &cluster.nodes[0];
        until_calm(node, 3).await?;
        let before =
            (cluster.sim.calls().await?, node.view().await?.counts, kernel(&host(node)).await?);
        for _ in 0..5 {
            let started = Instant::now();
            ensure!(status(node).await?.is_null(), "STATUS printed something");
            ensure!(started.elapsed() < Duration::from_secs(1), "took {:?}", started.elapsed());
        }
        let after =
            (cluster.sim.calls().await?, node.view().await?.counts, kernel(&host(node)).await?);
        ensure!(before == after, "{before:?} has become {after:?}");
        connect(node, "p").await.map(|_| ())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_45_and_49_status_without_a_daemon_and_in_an_old_version() -> Result<()> {
    ExecCluster::with(spec("a45", &[]), async |cluster| {
        let node = &mut cluster.nodes[0];
        for version in ["0.4.0", "1.0.0"] {
            let old = json!({"cniVersion": version});
            refused(call(node, "STATUS", None, old).await, 1)?;
        }
        let pid = node.ipamd_pid()?.to_string();
        output(Command::new("kill").args(["-STOP", &pid])).await?;
        let started = Instant::now();
        refused(status(node).await, 50).context("of a daemon that hangs")?;
        let took = started.elapsed();
        output(Command::new("kill").args(["-CONT", &pid])).await?;
        ensure!(took < Duration::from_millis(1500), "took {took:?}");

        node.stop_ipamd().await?;
        refused(status(node).await, 50).context("of a daemon that is stopped")?;
        node.start_ipamd().await?;
        status(node).await?;
        node.kill_ipamd().await?;
        refused(status(node).await, 50).context("of a daemon that is killed")?;
        node.start_ipamd().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_51_to_53_gc_takes_exactly_the_others_of_its_network() -> Result<()> {
    ExecCluster::with(spec("a51", &[("WARM_IP_TARGET", "2")]), async |cluster| {
        let node = &cluster.nodes[0];
        let before = kernel(&host(node)).await?;
        let (a, result) = connect(node, "a").await?;
        connect(node, "b").await?;
        connect(node, "c").await?;
        let (other, others) = connect_to(node, "other-net", "other").await?;

        refused(call(node, "GC", None, json!({})).await, 7)?;
        ensure!(held(node).await?.len() == 4, "a GC without a list removed something");
        for _ in 0..2 {
            gc(node, NETWORK, &[&a]).await?;
            until_held(node, &[("a", &a.ip), ("other", &other.ip)]).await?;
        }
        check(node, &a, &result).await?;
        call(node, "GC", None, json!({"cni.dev/valid-attachments": null})).await?;
        until_held(node, &[("other", &other.ip)]).await?;
        connect(node, "d").await?;
        gc(node, NETWORK, &[]).await?;
        until_held(node, &[("other", &other.ip)]).await?;
        let with_result = json!({"name": "other-net", "prevResult": others});
        call(node, "CHECK", Some(&other), with_result).await?;
        cluster.books_agree(&[]).await?;

        let node = &cluster.nodes[0];
        gc(node, "other-net", &[]).await?;
        until_held(node, &[]).await?;
        ensure!(kernel(&host(node)).await? == before, "GC left something in the kernel");
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_55_gc_does_not_interrupt_an_add_that_waits() -> Result<()> {
    ExecCluster::with(spec("a55", &[("WARM_IP_TARGET", "1")]), async |cluster| {
        let node = &cluster.nodes[0];
        let delay = json!({"action": ASSIGN, "when": "each", "effect": {"delay": {"ms": 2000}}});
        cluster.sim.fault(delay).await?;
        connect(node, "first").await?;
        let (collected, (late, result)) = tokio::try_join!(
            async {
                until_waiting(node, 1).await?;
                gc(node, NETWORK, &[]).await?;
                held(node).await
            },
            connect(node, "late"),
        )?;
        ensure!(collected.is_empty(), "not collected: {collected:?}");
        check(node, &late, &result).await?;
        until_held(node, &[("late", &late.ip)]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// An ADD that has its address and not yet its link; `meanwhile` comes before it goes on. Gives the
/// pod, and how the ADD has ended.
async fn held_up(
    cluster: &mut ExecCluster,
    meanwhile: impl AsyncFnOnce(&mut ExecNode, &Pod) -> Result<()>,
) -> Result<(Pod, Result<String>)> {
    let node = &mut cluster.nodes[0];
    let pod = node.runtime.pod("p").await?;
    let add = node.runtime.start_verb_armed("ADD", &pod, "add-granted", Order::Stop).await?;
    stopped(&add).await?;
    meanwhile(node, &pod).await?;
    go_on(&add)?;
    Ok((pod, added(add.wait_with_output().await?)))
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_55_gc_does_not_interrupt_an_add_that_makes_its_link() -> Result<()> {
    ExecCluster::with(spec("a55l", &[("WARM_IP_TARGET", "1")]), async |cluster| {
        let meanwhile = async |node: &mut ExecNode, _: &Pod| gc(node, NETWORK, &[]).await;
        let (_, ip) = held_up(cluster, meanwhile).await?;
        until_held(&cluster.nodes[0], &[("p", &ip?)]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// Whoever takes the address of an ADD that has not made its link yet makes it fail, and try again.
async fn taken_from_an_add(
    name: &str,
    take: impl AsyncFnOnce(&mut ExecNode, &Pod) -> Result<()>,
) -> Result<()> {
    let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "0")];
    ExecCluster::with(spec(name, &settings), async |cluster| {
        let (mut pod, outcome) = held_up(cluster, take).await?;
        let refusal: Refusal = match outcome {
            Ok(ip) => bail!("the ADD has {ip}, which was taken from it"),
            Err(error) => error.downcast()?,
        };
        ensure!(refusal.code == 11, "{refusal}");
        until_held(&cluster.nodes[0], &[]).await?;
        cluster.books_agree(&[]).await?;
        let node = &cluster.nodes[0];
        node.runtime.del(&pod).await?;
        pod.ip = node.runtime.add(&pod).await?;
        until_held(node, &[("p", &pod.ip)]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// The daemon that comes back does not know that the ADD is still under way.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_whose_address_a_gc_takes_after_a_restart_fails() -> Result<()> {
    taken_from_an_add("a55r", async |node, _| {
        node.kill_ipamd().await?;
        node.start_ipamd().await?;
        gc(node, NETWORK, &[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_whose_address_a_del_takes_fails() -> Result<()> {
    taken_from_an_add("a55d", async |node, pod| node.runtime.del(pod).await).await
}

/// It is applied as the daemon comes back, before the ADD goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_whose_address_a_del_left_on_disk_takes_fails() -> Result<()> {
    taken_from_an_add("a55n", async |node, pod| {
        node.kill_ipamd().await?;
        node.runtime.del(pod).await?;
        node.start_ipamd().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_whose_daemon_dies_before_its_link_is_made_leaves_nothing() -> Result<()> {
    ExecCluster::with(spec("a55k", &[("WARM_IP_TARGET", "1")]), async |cluster| {
        let meanwhile = async |node: &mut ExecNode, _: &Pod| node.kill_ipamd().await;
        let (_, outcome) = held_up(cluster, meanwhile).await?;
        let refusal: Refusal = outcome.err().context("the ADD asked nobody")?.downcast()?;
        ensure!(refusal.code == 11, "{refusal}");
        let node = &mut cluster.nodes[0];
        ensure!(notes(node)?.len() == 1, "no DEL for it is on disk: {:?}", notes(node)?);
        node.start_ipamd().await?;
        until_held(node, &[]).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

/// All that the instance takes is in use, so that a new pod has to wait for an address that rests.
#[tokio::test(flavor = "multi_thread")]
async fn assert_58_an_address_rests_after_gc() -> Result<()> {
    const REST: Duration = Duration::from_secs(3);
    let settings = [("WARM_IP_TARGET", "1"), ("MAX_ENI", "1"), ("IP_COOLDOWN_PERIOD", "3")];
    ExecCluster::with(Spec::new("a58", "t3.small", 1, &settings), async |cluster| {
        let node = &cluster.nodes[0];
        let (a, _) = connect(node, "a").await?;
        let (b, _) = connect(node, "b").await?;
        let (dead, _) = connect(node, "dead").await?;
        let collected_at = Instant::now();
        gc(node, NETWORK, &[&a, &b]).await?;
        let counts = node.view().await?.counts.context("no counts")?;
        ensure!(counts.cooling == 1 && counts.free == 0, "{counts:?}");
        let (next, _) = connect(node, "next").await?;
        let took = collected_at.elapsed();
        ensure!(next.ip == dead.ip && took >= REST, "{} after {took:?}", next.ip);
        cluster.books_agree(&[]).await
    })
    .await
}

/// A node whose only address has gone to another while its daemon was down: STATUS and ADD name the
/// subnet. Then the address comes back, and `served` waits for what follows.
async fn exhausted(name: &str, served: impl AsyncFnOnce(&ExecNode) -> Result<()>) -> Result<()> {
    let mut spec = spec(name, &[("WARM_IP_TARGET", "1"), ("TIDEPOOL_ADD_WAIT", "2s")]);
    spec.subnet = "10.0.0.0/28";
    // AWS takes 5 of the 16, the node .10, so that one is left.
    spec.used = (4..14).filter(|last| *last != 10).map(|last| format!("10.0.0.{last}")).collect();
    ExecCluster::with(spec, async |cluster| {
        until_calm(&cluster.nodes[0], 1).await?;
        cluster.nodes[0].stop_ipamd().await?;
        let network = cluster.sim.network().await?;
        let eni = &network["instances"][0]["enis"][0];
        let taken = json!({"eni": eni["id"], "addresses": eni["secondaries"]});
        cluster.sim.disturb(json!({"unassign": taken})).await?;
        let subnet = eni["subnet_id"].as_str().context("no subnet")?;
        let before = cluster.sim.enis().await?;
        cluster.sim.ec2("CreateNetworkInterface", &[("SubnetId", subnet)]).await?;
        let after = cluster.sim.enis().await?;
        let other = after.difference(&before).next().context("no new ENI")?;
        cluster.nodes[0].start_ipamd_unready().await?;

        let node = &cluster.nodes[0];
        eventually("SUBNET_EXHAUSTED", PATIENCE, async || {
            names(&refused(status(node).await, 50)?, subnet)
        })
        .await?;
        let refusal = node.runtime.refusal("early").await?;
        ensure!(refusal.code == 103, "{refusal}");
        names(&refusal, subnet)?;

        cluster.sim.ec2("DeleteNetworkInterface", &[("NetworkInterfaceId", other)]).await?;
        served(node).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

fn names(refusal: &Refusal, subnet: &str) -> Result<()> {
    let named = refusal.msg.starts_with("SUBNET_EXHAUSTED: ") && refusal.msg.contains(subnet);
    ensure!(named, "not the exhaustion of {subnet}: {refusal}");
    Ok(())
}

/// A pod that waits makes the daemon ask EC2 sooner. With it the node is full, and stays ready.
#[tokio::test(flavor = "multi_thread")]
async fn assert_25_and_46_an_exhausted_subnet_is_named_and_serves_whoever_waits() -> Result<()> {
    exhausted("a46", async |node| {
        eventually("address", Duration::from_secs(15), || node.runtime.run("late")).await?;
        status(node).await.map(|_| ())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes: that long a subnet is left alone that no pod waits for"]
async fn assert_46_status_says_yes_when_the_subnet_has_rested() -> Result<()> {
    const REST: Duration = Duration::from_secs(120);
    exhausted("a46r", async |node| {
        eventually("STATUS that says yes", REST + Duration::from_secs(10), || status(node)).await?;
        node.runtime.run("late").await.map(|_| ())
    })
    .await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Missing,
    Truncated,
    NewerVersion,
}

impl Damage {
    fn inflict(self, log: &Path) -> Result<()> {
        let text = std::fs::read_to_string(log)?;
        match self {
            Damage::Missing => std::fs::remove_file(log)?,
            Damage::Truncated => std::fs::write(log, &text[..text.len() / 2])?,
            Damage::NewerVersion => std::fs::write(log, newer(&text)?)?,
        }
        Ok(())
    }
}

/// The log as a daemon of the next format would have written it.
fn newer(text: &str) -> Result<String> {
    let (header, rest) = text.split_once('\n').context("a log of less than a line")?;
    let (_, payload) = header.split_once(',').context("a header without a payload")?;
    let mut payload: Value = serde_json::from_str(payload.trim_end_matches(']'))?;
    let version = payload["version"].as_u64().context("a header without a version")?;
    payload["version"] = json!(version + 1);
    let payload = payload.to_string();
    let sum = crc32fast::hash(payload.as_bytes());
    Ok(format!("[\"{sum:08x}\",{payload}]\n{rest}"))
}

/// Pods that run, and the daemon's return to a damaged record of them.
async fn damaged(
    name: &str,
    damage: Damage,
    body: impl AsyncFnOnce(&ExecNode, &[(Pod, Value)]) -> Result<()>,
) -> Result<()> {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "0")];
    ExecCluster::with(spec(name, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let directory = node.socket().parent().context("no folder")?.to_owned();
        let log = directory.join("tidepool.jsonl");
        let mut pods = vec![];
        for index in 0..3 {
            pods.push(connect(node, &format!("p{index}")).await?);
        }
        node.stop_ipamd().await?;
        damage.inflict(&log)?;
        let damaged = std::fs::read(&log).ok();
        node.start_ipamd().await?;
        if damage != Damage::Missing {
            let names = std::fs::read_dir(&directory)?.filter_map(|entry| Some(entry.ok()?.path()));
            let asides = names.filter(|path| path.to_string_lossy().contains(".damaged-"));
            let kept: Vec<_> = asides.map(std::fs::read).collect::<std::io::Result<_>>()?;
            ensure!(kept.len() == 1 && Some(&kept[0]) == damaged.as_ref(), "kept {kept:?}");
        }
        body(node, &pods).await
    })
    .await
}

async fn dels_succeed(node: &ExecNode, pods: &[(Pod, Value)]) -> Result<()> {
    for (pod, result) in pods {
        for conf in [json!({"prevResult": result}), json!({})] {
            call(node, "DEL", Some(pod), conf).await.with_context(|| format!("DEL of {pod:?}"))?;
        }
    }
    until_held(node, &[]).await?;
    let left = kernel(&host(node)).await?;
    ensure!(pods.iter().all(|(pod, _)| !left.contains(&pod.ip)), "left of the pods: {left}");
    connect(node, "next").await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_65_del_without_the_record() -> Result<()> {
    damaged("a65m", Damage::Missing, dels_succeed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_65_del_with_a_record_that_is_cut_off() -> Result<()> {
    damaged("a65t", Damage::Truncated, dels_succeed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn assert_65_del_with_a_newer_daemons_record() -> Result<()> {
    damaged("a65v", Damage::NewerVersion, dels_succeed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_gives_no_running_pods_address_away() -> Result<()> {
    damaged("a65d", Damage::Missing, async |node, pods| {
        for index in 0..4 {
            let (next, _) = connect(node, &format!("next{index}")).await?;
            let taken = pods.iter().find(|(pod, _)| pod.ip == next.ip);
            ensure!(taken.is_none(), "{next:?} has the address of {taken:?}");
        }
        Ok(())
    })
    .await
}

/// Each verb that the daemon has a part in, on a node whose pods are on IPv6.
#[tokio::test(flavor = "multi_thread")]
async fn every_verb_on_ipv6() -> Result<()> {
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

        gc(node, NETWORK, &[&first, &second]).await?;
        until_held(node, &[("first", &first.ip), ("second", &second.ip)]).await?;
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
