//! Any topology file is read or refused, quickly and with a short message.

use std::time::{Duration, Instant};

use mangle::hostile;
use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::seed::seed;

const EXAMPLE: &str = include_str!("../../examples/two-nodes.yaml");

/// A topology with every key that the example omits or shows in a comment.
const FULL: &str = "
region: us-east-1
account: '111122223333'
zones: [a, b]
clock: manual
anonymous: true
iam_role: r
seed: 18446744073709551615
regions: [eu-west-1]
organization: {members: ['444455556666']}
access_keys: {K: '444455556666'}
switches: {throttling: documented, latency: {custom: {attach: {min_ms: 1, max_ms: 2}}},
  ipam: {transitions: realistic, discovery: {custom: {period_ms: 1, lag: {min_ms: 1, max_ms: 2}}},
  consistency: none, rest: {free: {min_ms: 1, max_ms: 1}}, quotas: {ipams: 2}}}
vpcs:
  - {id: vpc-0aaaaaaaaaaaaaaa1, cidrs: [10.0.0.0/16], subnets: [{name: a, az: us-east-1a,
     cidr: 10.0.0.0/20, used: [10.0.1.0-10.0.3.255], reservations: [{cidr: 10.0.4.0/24,
     type: explicit}]}]}
instances:
  - {id: i-0aaaaaaaaaaaaaaa1, type: m5.large, subnet: a, imds: disabled, imds_port: 1338}
";

/// The promise is that no text keeps the reader busy. Any topology takes milliseconds on an idle machine, and a text
/// that multiplies itself would take hours.
const DEADLINE: Duration = Duration::from_secs(60);

fn read(text: &str) -> Result<(), LineError> {
    let started = Instant::now();
    let topology = Topology::parse(text);
    let seeded = topology
        .and_then(|topology| seed(&topology, Clock::start(topology.clock).now()).map(|_world| ()));
    assert!(started.elapsed() < DEADLINE, "{:?}: {text}", started.elapsed());
    seeded
}

#[test]
fn undamaged_topologies_are_read() {
    for text in [EXAMPLE, FULL] {
        read(text).unwrap();
    }
}

#[test]
fn exploding_yaml_aliases_are_refused() {
    let mut bomb = String::from("region: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb += &format!("k{n}: &a{n} [{aliases}]\n");
    }
    read(&bomb).unwrap_err();
    read(&format!("region: {}", "[".repeat(100_000))).unwrap_err();
    read(&format!("region: {}", "{a: ".repeat(100_000))).unwrap_err();
}

proptest! {
    #[test]
    fn fuzz_topology(
        file in hostile(vec![EXAMPLE.as_bytes().to_vec(), FULL.as_bytes().to_vec()]),
    ) {
        let text = String::from_utf8_lossy(&file);
        if let Err(error) = read(&text) {
            let told = error.in_file(Path::new("f")).to_string();
            prop_assert!(told.len() < 1000 + 4 * text.len(), "{}", told.len());
        }
    }
}
