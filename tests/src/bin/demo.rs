//! `make demo`: the whole path on one machine, with a report of each step.

#![expect(clippy::print_stdout, reason = "telling what happens is what a demo is for")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::{join_all, try_join_all};
use tests::cluster::{Cluster, Node, Spec};
use tests::containerd::Sandbox;
use tests::process::eventually;
use tests::sim::OUTSIDE;
use tests::story::Story;
use tokio::signal::unix::{SignalKind, signal};

/// Pods on each node: more than the primary ENI of a t3.small carries.
const PODS: usize = 5;
/// Times are cut so that the pool shrinks before one's eyes; the defaults are 30 s and 60 s.
const SETTINGS: [(&str, &str); 3] = [
    ("IP_COOLDOWN_PERIOD", "3"),
    ("TIDEPOOL_SHRINK_DELAY", "500ms"),
    ("TIDEPOOL_MIN_ENI_AGE", "2s"),
];
const SHRINK_PATIENCE: Duration = Duration::from_secs(90);

#[tokio::main]
async fn main() -> ExitCode {
    match demo(&Story::new()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(story: &Story) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    story.act(
        "a VPC 10.0.0.0/16 with two t3.small (3 ENIs of 3 secondary addresses each), an ipamd and \
         a containerd on each",
    );
    let mut spec = Spec { outside: true, ..Spec::new("demo", "t3.small", 2, &SETTINGS) };
    spec.nodes[1].settings.insert("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true".to_owned());
    let mut cluster = Cluster::up(&spec).await?;
    let outcome = tokio::select! {
        done = tell(story, &mut cluster) => done.map(|()| ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(interrupted(story)),
        _ = terminate.recv() => Ok(interrupted(story)),
    };
    let down = cluster.down().await;
    let code = outcome?;
    down?;
    story.note(&format!("cleaned up; {:.0} s in all", story.elapsed().as_secs_f64()));
    Ok(code)
}

fn interrupted(story: &Story) -> ExitCode {
    story.act("interrupted: cleaning up");
    ExitCode::from(130)
}

async fn tell(story: &Story, cluster: &mut Cluster) -> Result<()> {
    let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
    story.act("an idle node keeps one ENI's worth of addresses warm (WARM_ENI_TARGET=1)");
    println!("{}", a.status().await?);

    story.act(&format!("{PODS} pods on each node, through containerd"));
    let (on_a, on_b) = tokio::try_join!(run_pods(story, a, "web"), run_pods(story, b, "db"))?;
    println!("{}", a.status().await?);

    story.act("every pod reaches every pod of the other node, from primary and secondary ENIs");
    ping_all(story, a, &on_a, &on_b).await?;
    ping_all(story, b, &on_b, &on_a).await?;

    story.act(&format!(
        "{OUTSIDE}, beyond the internet gateway: pods of the first node leave with its address; the second node leaves the \
         translation to others (AWS_VPC_K8S_CNI_EXTERNALSNAT=true)"
    ));
    ask_outside(story, &on_a, true).await?;
    ask_outside(story, &on_b, false).await?;

    story.act("the pods go; their addresses rest, then the pool shrinks");
    tokio::try_join!(remove_pods(a, &on_a), remove_pods(b, &on_b))?;
    let idle = Instant::now();
    for node in [a, b] {
        eventually("shrunken pool", SHRINK_PATIENCE, async || {
            let view = node.view().await?;
            ensure!(view.enis.len() == 1, "{} ENIs; {:?}", view.enis.len(), view.in_flight);
            Ok(())
        })
        .await?;
    }
    story.note(&format!("{:.1} s after the last pod", idle.elapsed().as_secs_f64()));
    println!("{}", a.status().await?);

    story.act("what it took at EC2");
    for (action, count) in cluster.sim.calls().await? {
        println!("  {count:>4}  {action}");
    }
    Ok(())
}

async fn run_pods(story: &Story, node: &Node, prefix: &str) -> Result<Vec<Sandbox>> {
    let start = Instant::now();
    let runs = (0..PODS).map(|index| async move {
        let sandbox = node.runtime.run("default", &format!("{prefix}-{index}")).await?;
        anyhow::Ok((sandbox, start.elapsed()))
    });
    let pods = try_join_all(runs).await?;
    for (pod, took) in &pods {
        story.note(&format!(
            "{:<8} {:<12} on {} after {} ms",
            pod.name,
            pod.ip,
            node.address,
            took.as_millis()
        ));
    }
    Ok(pods.into_iter().map(|(pod, _)| pod).collect())
}

async fn remove_pods(node: &Node, pods: &[Sandbox]) -> Result<()> {
    try_join_all(pods.iter().map(|pod| async {
        node.runtime.stop_sandbox(&pod.id).await?;
        node.runtime.remove_sandbox(&pod.id).await
    }))
    .await
    .map(|_| ())
}

async fn ping_all(story: &Story, node: &Node, from: &[Sandbox], to: &[Sandbox]) -> Result<()> {
    let view = node.view().await?;
    let tables: BTreeMap<String, u32> = view
        .pods
        .into_iter()
        .filter_map(|pod| pod.address)
        .map(|at| (at.address, at.table))
        .collect();
    for source in from {
        for target in to {
            Node::ping(&source.netns, &target.ip)
                .await
                .with_context(|| format!("{} to {}", source.name, target.name))?;
        }
        let way = match tables.get(&source.ip) {
            Some(254) | None => "primary ENI".to_owned(),
            Some(table) => format!("secondary ENI, table {table}"),
        };
        story.good(&format!(
            "{:<8} {:<12} {way}: {} of {} pods answer",
            source.name,
            source.ip,
            to.len(),
            to.len()
        ));
    }
    Ok(())
}

/// Asks the outside which address it sees. The gateway drops packets from addresses that have no public one, as AWS does.
async fn ask_outside(story: &Story, pods: &[Sandbox], is_translated: bool) -> Result<()> {
    // At once, since an answer that does not come takes two seconds.
    let asked = join_all(pods.iter().map(|pod| Node::seen_outside(&pod.netns, OUTSIDE))).await;
    for (pod, seen) in pods.iter().zip(asked) {
        let text = match (is_translated, seen) {
            (true, seen) => format!("is seen as {}", seen?),
            (false, Err(_no_answer)) => "gets no answer: it has no public address".to_owned(),
            (false, Ok(seen)) => bail!("{} is seen as {seen} without translation", pod.name),
        };
        story.good(&format!("{:<8} {:<12} {text}", pod.name, pod.ip));
    }
    Ok(())
}
