//! The number of pods of a large node.

use std::time::{Duration, Instant};

use datapath::pod::{PodExpectation, PodLink, PodRemoval, PodRoutes};
use futures::future::join_all;

use crate::lab::{Pod, add, on_node};

const PODS: usize = 250;

/// Prints the time of an ADD on an empty and on a full node. Only the number of rules is asserted.
#[test]
fn add_on_a_full_node_makes_all_rules() {
    on_node(|node| {
        let pods: Vec<Pod> = (0..PODS)
            .map(|n| Pod::planned(&format!("pod-{n}"), &[&format!("10.0.2.{n}@{}", 2 + n % 3)]))
            .collect();
        let took: Vec<Duration> = node.block_on(async {
            let mut took = Vec::new();
            for pod in &pods {
                let start = Instant::now();
                add(&pod.link).await.unwrap();
                took.push(start.elapsed());
            }
            took
        });
        println!("first 50: {}", spread(&took[..50]));
        println!("last 50:  {}", spread(&took[PODS - 50..]));
        assert_eq!(node.ip("rule").lines().count(), 3 + 2 * PODS);
        let start = Instant::now();
        node.block_on(async {
            for pod in &pods {
                datapath::pod::del(&pod.removal()).await.unwrap();
            }
        });
        println!("del:      {:?} each", start.elapsed() / u32::try_from(PODS).unwrap());
        assert_eq!(node.ip("rule").lines().count(), 3);
        assert_eq!(node.ip("route"), "");
    });
}

/// Threads that enter pods' namespaces at the same time do not confuse them.
#[test]
fn concurrent_adds_and_dels_leave_nothing() {
    on_node(|node| {
        let before = node.dump();
        let pods: Vec<Pod> = (0..40)
            .map(|n| Pod::planned(&format!("pod-{n}"), &[&format!("10.0.2.{n}@2")]))
            .collect();
        node.block_on_threads(async {
            join_all(pods.iter().map(|pod| add_and_check(pod.link.clone()))).await;
            join_all(pods.iter().map(|pod| remove(pod.removal()))).await;
        });
        assert_eq!(node.dump(), before);
    });
}

async fn add_and_check(link: PodLink) {
    let checked = tokio::spawn(async move {
        let state = add(&link).await.unwrap();
        let expectation = PodExpectation {
            netns: link.netns,
            ifname: link.ifname,
            host_name: link.host_name,
            owner: link.owner,
            mac: Some(state.pod.mac),
            mtu: Some(state.pod.mtu),
            addresses: link.addresses,
            node_local: link.node_local,
            routes: PodRoutes::Main,
            ipv6: datapath::pod::PodIpv6::AsItIs,
        };
        datapath::pod::check(&expectation).await.unwrap();
    });
    checked.await.unwrap();
}

async fn remove(removal: PodRemoval) {
    tokio::spawn(async move { datapath::pod::del(&removal).await.unwrap() }).await.unwrap();
}

fn spread(took: &[Duration]) -> String {
    let mut sorted = took.to_vec();
    sorted.sort();
    let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    format!("p50 {:?}, p99 {:?}", at(50), at(99))
}
