//! AWS's network policy agent beside the daemon: present, absent, hung or refusing; in both modes.

use anyhow::{Context as _, Result, ensure};
use failpoint::Order;
use tests::cluster::Spec;
use tests::exec::{self, ExecCluster, ExecNode};
use tests::policy_agent::{Behaves, Call, PolicyAgent, ask, ask_by_tcp};
use tests::process::{PATIENCE, eventually, go_on, stopped};

const MODE: &str = "NETWORK_POLICY_ENFORCING_MODE";

fn node_with(name: &str, mode: &'static str) -> Spec {
    let settings = [("WARM_IP_TARGET", "2"), ("IP_COOLDOWN_PERIOD", "1"), (MODE, mode)];
    Spec::new(name, "m5.large", 1, &settings)
}

fn agent(node: &ExecNode, behaves: Behaves) -> Result<PolicyAgent> {
    PolicyAgent::start(&node.socket(), &node.netns, behaves)
}

fn enforced(pod: &str, mode: &str) -> Call {
    Call::Enforce { pod: pod.to_owned(), mode: mode.to_owned(), links: 1 }
}

fn deleted(pod: &str) -> Call {
    Call::Delete(pod.to_owned())
}

fn same(calls: &[Call], expect: &[Call]) -> Result<()> {
    ensure!(calls == expect, "{calls:?}, not {expect:?}");
    Ok(())
}

async fn counted(node: &ExecNode, call: &str, outcome: &str) -> Result<String> {
    let sample =
        format!("tidepool_policy_agent_calls_total{{call=\"{call}\",outcome=\"{outcome}\"}}");
    node.scrape().await?.remove(&sample).with_context(|| format!("no {sample}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_policed_before_their_add_ends() -> Result<()> {
    ExecCluster::with(node_with("fpol", "strict"), async |cluster| {
        let node = &cluster.nodes[0];
        // It starts later than the daemon.
        let agent = agent(node, Behaves::Well)?;
        for config in [ask(&node.socket()).await?, ask_by_tcp(&node.netns).await?] {
            ensure!(config.mode == "strict" && !config.multi_nic, "{config:?}");
            ensure!(config.instance_id.starts_with("i-"), "{config:?}");
            ensure!(!config.region.is_empty(), "{config:?}");
        }
        let pod = node.runtime.run("web").await?;
        same(&agent.calls(), &[enforced("default.web", "strict")])?;
        node.runtime.check(&pod).await?;
        same(&agent.calls(), &[])?;
        // The pod gets another sandbox. The agent knows only the pod, which goes on.
        let again = node.runtime.run("web_2").await?;
        same(&agent.calls(), &[enforced("default.web", "strict")])?;
        node.runtime.remove(&pod).await?;
        same(&agent.calls(), &[])?;
        node.runtime.remove(&again).await?;
        same(&agent.calls(), &[deleted("default.web")])?;
        node.runtime.del(&again).await?;
        same(&agent.calls(), &[])?;
        let pods = [node.runtime.run("a").await?, node.runtime.run("b").await?];
        let both = ["default.a", "default.b"].map(|pod| enforced(pod, "strict"));
        same(&agent.calls(), &both)?;
        node.runtime.gc(&pods[..1]).await?;
        same(&agent.calls(), &[deleted("default.b")])?;
        ensure!(counted(node, "enforce", "ok").await? == "4", "calls for new pods");
        ensure!(counted(node, "delete", "ok").await? == "2", "calls for ended pods");
        node.runtime.remove_all(&pods).await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn add_fails_without_the_agent_and_del_does_not() -> Result<()> {
    ExecCluster::with(node_with("fpoa", "standard"), async |cluster| {
        for mode in ["standard", "strict"] {
            let node = &mut cluster.nodes[0];
            node.stop_ipamd().await?;
            node.configure(&[(MODE, mode)]);
            node.start_ipamd().await?;
            let node = &cluster.nodes[0];
            let cases = [
                (None, 170, "POLICY_AGENT_AWAY: ", "nobody answers"),
                (Some(Behaves::Hangs), 170, "POLICY_AGENT_AWAY: ", "does not answer in time"),
                (Some(Behaves::Fails), 171, "POLICY_AGENT_REFUSES: ", "attach failed"),
                (Some(Behaves::Declines), 171, "POLICY_AGENT_REFUSES: ", "without success"),
            ];
            let mut agent = None;
            for (behaves, code, name, why) in cases {
                agent = behaves.map(|behaves| self::agent(node, behaves)).transpose()?;
                let refusal = node.runtime.refusal("p").await?;
                ensure!(refusal.code == code, "{behaves:?}: {refusal}");
                ensure!(refusal.msg.starts_with(name), "{behaves:?}: {refusal}");
                ensure!(refusal.msg.contains(why), "{behaves:?}: {refusal}");
                ensure!(node.held().await?.is_empty(), "the address of a failed ADD is held");
            }
            drop(agent);
            ensure!(node.pending_dels()?.is_empty(), "a DEL waits for another daemon");
            for (outcome, n) in [("away", "1"), ("silent", "1"), ("refused", "2"), ("ok", "0")] {
                ensure!(counted(node, "enforce", outcome).await? == n, "{outcome} not {n}");
            }
            let agent = self::agent(node, Behaves::Well)?;
            let pods = node.runtime.run_all("q", 2).await?;
            drop(agent);
            node.runtime.remove(&pods[0]).await?;
            let hung = self::agent(node, Behaves::Hangs)?;
            node.runtime.remove(&pods[1]).await?;
            same(&hung.calls(), &[deleted("default.q1")])?;
            ensure!(counted(node, "delete", "silent").await? != "0", "no silence is counted");
        }
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_daemon_asks_the_agent_too() -> Result<()> {
    ExecCluster::with(node_with("fpor", "strict"), async |cluster| {
        let agent = agent(&cluster.nodes[0], Behaves::Well)?;
        let mut pod = cluster.nodes[0].runtime.pod("web").await?;
        let add =
            cluster.nodes[0].runtime.start_verb_armed("ADD", &pod, "add-granted", Order::Stop);
        let add = add.await?;
        stopped(&add).await?;
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        node.start_ipamd().await?;
        same(&agent.calls(), &[])?;
        go_on(&add)?;
        pod.ip = exec::added(add.wait_with_output().await?)?;
        same(&agent.calls(), &[enforced("default.web", "strict")])?;
        // A DEL that waits for the daemon.
        node.stop_ipamd().await?;
        node.runtime.remove(&pod).await?;
        node.start_ipamd().await?;
        eventually("call for a DEL from a file", PATIENCE, async || {
            same(&agent.calls(), &[deleted("default.web")])
        })
        .await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_is_left_alone_unless_a_mode_is_set() -> Result<()> {
    ExecCluster::with(node_with("fpon", "none"), async |cluster| {
        let node = &cluster.nodes[0];
        let agent = agent(node, Behaves::Fails)?;
        let pod = node.runtime.run("web").await?;
        node.runtime.remove(&pod).await?;
        same(&agent.calls(), &[])?;
        let asked = ask(&node.socket()).await.map(|config| config.mode);
        ensure!(asked.is_err(), "served: {asked:?}");
        ensure!(ask_by_tcp(&node.netns).await.is_err(), "port 50051 is served");
        cluster.books_agree(&[]).await
    })
    .await
}
