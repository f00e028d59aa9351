//! Measures how long an ADD and a DEL take from exec to exit. It asserts nothing: run it by name, with the
//! executable of profile `cni`, see `../README.md`.

#![expect(clippy::print_stdout, reason = "it prints its measurements")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fake::Mode;
use crate::node::Node;

const ROUNDS: usize = 200;

#[test]
#[ignore = "a measurement, useful only on an idle machine"]
fn add_and_del_speed_is_measured() {
    let Some(node) = Node::new() else { return };
    node.ipamd().set(Mode::RemovingLinks);
    let (mut adds, mut dels, mut versions) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let pod = node.pod(&format!("c{round}"), &format!("p{round}"));
        let answer = node.pod_call("ADD", &pod).run();
        answer.result();
        adds.push(answer.took);
        let answer = node.pod_call("DEL", &pod).run();
        answer.silent();
        dels.push(answer.took);
        versions.push(node.call("VERSION").run().took);
    }
    let program = Node::program();
    let size = std::fs::metadata(&program).unwrap().len();
    println!("{}: {size} bytes", program.display());
    report("ADD", adds);
    report("DEL", dels);
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
