//! Measures how long an ADD and a DEL take from exec to exit. It asserts nothing: run it by name, with the
//! executable of profile `cni`, see `../README.md`.

#![expect(clippy::print_stdout, reason = "it prints its measurements")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake::Mode;
use crate::node::Node;

const ROUNDS: usize = 100;

/// The parts of an ADD in the plugin's log.
const PARTS: [&str; 4] = ["connect_us", "daemon_us", "link_us", "confirm_us"];

#[test]
#[ignore = "a measurement, useful only on an idle machine"]
fn add_and_del_speed_is_measured() {
    let Some(node) = Node::new() else { return };
    node.ipamd().set(Mode::RemovingLinks);
    // By turns, so that what else the machine does slows down both.
    let before = std::env::var_os("TIDEPOOL_AWS_CNI_BEFORE").map(PathBuf::from);
    let programs: Vec<_> = before.into_iter().chain([Node::program()]).collect();
    let mut measured = BTreeMap::<_, Vec<_>>::new();
    for round in 0..ROUNDS {
        for (n, program) in programs.iter().enumerate() {
            let mut note = |what: &str, took| {
                measured.entry((n, what.to_owned())).or_default().push(took);
            };
            let pod = node.pod(&format!("c{round}-{n}"), &format!("p{round}-{n}"));
            let run = |verb| {
                let mut call = node.pod_call(verb, &pod);
                call.program(program.clone());
                call.run()
            };
            let add = run("ADD");
            add.result();
            note("ADD", add.took);
            let parts = parts(add.stderr());
            note("ADD: exec, log, exit", add.took.saturating_sub(parts.values().sum()));
            parts.into_iter().for_each(|(part, took)| note(&format!("ADD: {part}"), took));
            let del = run("DEL");
            del.silent();
            note("DEL", del.took);
            note("VERSION", run("VERSION").took);
        }
    }
    for (n, program) in programs.iter().enumerate() {
        let size = std::fs::metadata(program).unwrap().len();
        println!("{}: {size} bytes", program.display());
        let of_program = measured.iter().filter(|((of, _), _)| *of == n);
        of_program.for_each(|((_, what), times)| report(what, times.clone()));
    }
    report("/bin/true", (0..ROUNDS).map(|_| spawn_true()).collect());
}

/// From the line that the plugin logs when it has connected a pod.
fn parts(log: &str) -> BTreeMap<&'static str, Duration> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let connected = lines.filter(|line| line["message"] == "pod connected");
    let part = |line: &Value, part| Some((part, Duration::from_micros(line[part].as_u64()?)));
    connected.flat_map(|line| PARTS.map(|name| part(&line, name))).flatten().collect()
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
