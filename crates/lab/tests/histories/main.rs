//! Random histories of a few nodes and EC2, with invariants checked at every event.
//!
//! `SEED` is the seed of the first history and `HISTORIES` their number. `make soak` plays a
//! million.
//!
//! The random histories of `ipam` are the other harness; neither can replace the other. Here several nodes
//! share an EC2 with real throttling and lag. Others change ENIs, clocks jump, and records are rolled back. In
//! `ipam`, calls, saves and syncs end in any order, limits are as small as can be, and the container runtime
//! forgets sandboxes.
//!
//! A failure prints the smallest history that violates the same invariant, the end of its event
//! log, and the command that repeats it. `LOG_LINES` is the number of lines of the log.

#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

mod check;
mod faults;
mod history;
mod metadata;
mod node;
mod pods;
mod setting;
mod settle;
mod shrink;
mod simulation;
mod step;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Instant;

use self::history::{History, Outcome, RunError};

/// Takes some seconds.
const N_HISTORIES: u64 = 1_000;
/// Lines of the event log that a failure prints.
const LOG_LINES: u64 = 60;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// The violated invariant and its details. A panic of the engine counts as one.
fn fault(history: &History) -> Result<Outcome, (&'static str, String)> {
    match catch_unwind(AssertUnwindSafe(|| history.run())) {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(RunError::Violation(violation))) => Err((violation.rule, violation.to_string())),
        Ok(Err(RunError::Setup(fault))) => panic!("{fault}"),
        Err(_) => Err(("panic", String::new())),
    }
}

fn check(seed: u64) -> Outcome {
    let history = History::of(seed);
    let (rule, first) = match fault(&history) {
        Ok(outcome) => return outcome,
        Err(fault) => fault,
    };
    let least = history.shrunk(|smaller| fault(smaller).is_err_and(|(other, _)| other == rule));
    let event_log = least.event_log();
    let shown = usize::try_from(number("LOG_LINES").unwrap_or(LOG_LINES)).unwrap();
    let end = event_log[event_log.len().saturating_sub(shown)..].join("\n");
    panic!(
        "{rule}: {first}\nthe smallest history with this violation:\n{least:#?}\nthe end of its event log:\n{end}\n\
         repeat it with: SEED={seed} HISTORIES=1 cargo test -p lab --test histories"
    );
}

#[test]
fn any_history_is_sound() {
    let (first, n) = (number("SEED").unwrap_or(0), number("HISTORIES").unwrap_or(N_HISTORIES));
    let (started, n_threads) = (Instant::now(), thread::available_parallelism().unwrap().get());
    let part = |part: usize| {
        let mut sum = Outcome::default();
        for place in (part as u64..n).step_by(n_threads) {
            sum.add(check(first.wrapping_add(place)));
        }
        sum
    };
    let sum = thread::scope(|scope| {
        let parts: Vec<_> = (0..n_threads).map(|i| scope.spawn(move || part(i))).collect();
        let mut sum = Outcome::default();
        parts.into_iter().for_each(|part| sum.add(part.join().unwrap()));
        sum
    });
    let took = started.elapsed();
    let rate = n as f64 / took.as_secs_f64();
    println!("{n} histories from seed {first} in {took:.1?}, {rate:.0} a second: {sum:?}");
}

#[test]
fn same_seed_gives_same_history_and_outcome() {
    for seed in 0..50 {
        let history = History::of(seed);
        assert_eq!(history, History::of(seed));
        assert_eq!(history.run().unwrap(), history.run().unwrap(), "seed {seed}");
    }
}

/// Shows that shrinking works, and so that a violation would be found.
#[test]
fn history_shrinks_to_smallest_failure() {
    let dies = |history: &History| history.run().is_ok_and(|outcome| outcome.kills > 0);
    let is_long = |history: &History| history.steps.len() > 50 && history.setting.n_nodes > 1;
    let history = (0..).map(History::of).find(|history| is_long(history) && dies(history));
    let history = history.unwrap();
    let least = history.shrunk(dies);
    // A daemon that dies at a later effect needs a request that causes it.
    assert!(least.steps.len() <= 2 && least.setting.n_nodes == 1, "{least:#?}");
    assert!(least.event_log().iter().any(|line| line.contains("Kill")));
}
