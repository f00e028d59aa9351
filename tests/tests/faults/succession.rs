//! A rollout with `maxSurge`: a second daemon waits beside the first, and takes over when that one ends.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::v1::ReadyRequest;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::pings::Pings;

use crate::all_reachable;

const BEFORE: usize = 2;
const DURING: usize = 10;

/// Asks over and over whether an ADD would be served, until `n` answers have come from the next daemon. Returns the
/// longest time without an answer.
async fn longest_gap(node: &ExecNode, ended: &tokio::sync::Notify, n: usize) -> Result<Duration> {
    let (mut gap, mut answered) = (Duration::ZERO, Instant::now());
    let ask = async || -> Result<()> {
        let client_version = proto::VERSION.to_owned();
        let reply = node.client().await?.ready(ReadyRequest { client_version }).await?;
        ensure!(reply.into_inner().not_ready.is_none(), "not ready");
        Ok(())
    };
    let end = ended.notified();
    let mut end = std::pin::pin!(end);
    let (mut is_next, mut left) = (false, n);
    while left > 0 {
        tokio::select! {
            biased;
            () = &mut end, if !is_next => is_next = true,
            asked = ask() => if asked.is_ok() {
                gap = gap.max(answered.elapsed());
                answered = Instant::now();
                left -= usize::from(is_next);
            },
        }
        tokio::task::yield_now().await;
    }
    Ok(gap)
}

#[tokio::test(flavor = "multi_thread")]
async fn adds_go_on_while_one_daemon_succeeds_another() -> Result<()> {
    let settings = [("WARM_IP_TARGET", "14"), ("IP_COOLDOWN_PERIOD", "1")];
    ExecCluster::with(Spec::new("fsucc", "m5.4xlarge", 1, &settings), async |cluster| {
        let node = &mut cluster.nodes[0];
        let mut pods = node.runtime.run_all("before", BEFORE).await?;
        let pings = Pings::start(node, &pods).await?;
        let successor = node.start_successor().await?;
        let mut first = node.succeed(successor).context("no daemon runs")?;
        let node = &cluster.nodes[0];
        let (half, ended) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
        let adds = async {
            let mut added = vec![];
            for index in 0..DURING {
                let started = Instant::now();
                added.push(node.runtime.run(&format!("during{index}")).await?);
                eprintln!("ADD {index}: {:?}", started.elapsed());
                if index == DURING / 3 {
                    half.notify_one();
                }
            }
            anyhow::Ok(added)
        };
        let stop = async {
            half.notified().await;
            let status = first.stop().await?;
            ended.notify_one();
            ensure!(status.success(), "the first daemon ended with {status}");
            Ok(())
        };
        let (added, (), gap) = tokio::try_join!(adds, stop, longest_gap(node, &ended, 3))?;
        eprintln!("longest time without an answer: {gap:?}");
        pods.extend(added);
        all_reachable(node, &pods).await?;
        let view = node.view().await?;
        ensure!(view.pods.len() == pods.len(), "{} pods on record", view.pods.len());
        let waiting = proto::socket::of_waiting(&node.socket());
        ensure!(!waiting.exists(), "{} stays", waiting.display());
        pings.none_is_lost().await?;
        cluster.books_agree(&[]).await
    })
    .await
}
