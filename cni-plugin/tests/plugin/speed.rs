//! How long an ADD takes from exec to exit. Not a test of an assertion: run it by name, on the
//! executable of profile `cni`, as `../README.md` says.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::node::Node;

const ROUNDS: usize = 200;

#[test]
#[ignore = "a measurement, of use only on a quiet machine"]
fn an_add_takes_a_few_milliseconds() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let (mut adds, mut versions) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let answer = node.pod_call("ADD", &pod).run();
        answer.result();
        adds.push(answer.took);
        node.del(&pod);
        versions.push(node.call("VERSION").run().took);
    }
    let program = Node::program();
    let size = std::fs::metadata(&program).unwrap().len();
    println!("{}: {size} bytes", program.display());
    report("ADD", adds);
    report("VERSION", versions);
    report("/bin/true", (0..ROUNDS).map(|_| spawn_true()).collect());
}

fn spawn_true() -> Duration {
    let start = Instant::now();
    let mut command = Command::new("/bin/true");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    start.elapsed()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!("{what}: best {:?}, p50 {:?}, p90 {:?}, p99 {:?}", at(0), at(50), at(90), at(99));
}
