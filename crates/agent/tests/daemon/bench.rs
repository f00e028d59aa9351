//! What one Add costs over the socket with a warm pool. It prints and asserts nothing:
//! `cargo test --release -p agent --test daemon -- --ignored --nocapture bench`

use std::time::{Duration, Instant};

use ipam::policy::{Families, FamilyPolicy, Limits, Targets};

use crate::node::{Client, TestNode};

const N: usize = 500;

#[tokio::test]
#[ignore = "measures"]
async fn bench() {
    let mut node = TestNode::new();
    node.config.limits = Limits { enis: 15, addresses_per_eni: 50, prefixes: true };
    let targets = Targets::Ip { warm: 100, minimum: 700 };
    let family = node.config.policy.families.policy();
    node.config.policy.families = Families::single(FamilyPolicy { targets, ..family });
    node.config.policy.max_pods = 735;
    node.config.policy.timing.cooldown = Duration::ZERO;
    let daemon = node.start().await;
    let client = node.client().await;
    client.until_warm(600).await;
    let mut adds = Vec::new();
    let mut dels = Vec::new();
    for n in 0..N {
        adds.push(timed(client.add(&format!("c{n}"))).await);
    }
    for n in 0..N {
        dels.push(timed(client.del(&format!("c{n}"))).await);
    }
    print("add, one after the other", adds);
    print("del, one after the other", dels);
    let together: Vec<_> = (0..N).map(|n| tokio::spawn(add_one(client.clone(), n))).collect();
    let mut adds = Vec::new();
    for add in together {
        adds.push(add.await.unwrap());
    }
    print("add, 500 at once", adds);
    daemon.stop().await.unwrap();
}

async fn add_one(client: Client, n: usize) -> Duration {
    timed(client.add(&format!("d{n}"))).await
}

async fn timed<T, E: std::fmt::Debug>(work: impl Future<Output = Result<T, E>>) -> Duration {
    let start = Instant::now();
    work.await.unwrap();
    start.elapsed()
}

#[expect(clippy::print_stdout, reason = "figures are what it is for")]
fn print(what: &str, mut spans: Vec<Duration>) {
    spans.sort();
    let at = |percent: usize| spans[(spans.len() - 1) * percent / 100];
    println!("{what}: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
}
