//! The engine as its caller sees it: events in, effects out, against an EC2 that remembers.
//!
//! `flapping`, `histories`, `promptness`, `queue` and `rest` try random cases: as many as the variable
//! `PROPTEST_CASES` says, or so few that all take seconds. `PROPTEST_CASES=100000 cargo test -p ipam
//! --release` is worth a night. A failure prints the smallest case that still fails, and its seed
//! goes into `tests/proptest-regressions`, from where it is tried first. A seed is worth nothing any
//! more when what is drawn changes, so a case that showed a fault becomes a test of its own.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod disagreements;
mod ec2;
mod ec2_silent;
mod errors;
mod flapping;
mod foreign_blocks;
mod fuzz;
mod hint;
mod histories;
mod idle;
mod ipv6;
mod kernel_check;
mod lag;
mod leaks;
mod lost_record;
mod missing_device;
mod node;
mod promptness;
mod queue;
mod repeated_crashes;
mod requests;
mod restart;
mod settings;
mod tables;
mod warm_pool;
