//! The engine as its caller sees it: events in, effects out, against a fake EC2 with a memory.
//!
//! `expected`, `flapping`, `fuzz`, `histories`, `idle`, `promptness` and `queue` try random cases. The variable
//! `PROPTEST_CASES` sets their number; by default all take seconds. `PROPTEST_CASES=100000 cargo test -p
//! ipam --release` fills a night. A failure prints the smallest case that still fails. Its seed goes into
//! `tests/proptest-regressions` and is tried first from then on. A seed becomes worthless when the
//! strategies change, so a case that showed a fault becomes a test of its own.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod connection_tracking;
mod custom_networking;
mod delegation;
mod denied;
mod disagreements;
mod dual;
mod ec2;
mod ec2_silent;
mod egress;
mod errors;
mod excluded;
mod expected;
mod flapping;
mod foreign_blocks;
mod fuzz;
mod hint;
mod histories;
mod idle;
mod ipv6;
mod kernel_check;
mod lag;
mod launched;
mod leaks;
mod live;
mod lost_record;
mod missing_device;
mod nat;
mod node;
mod primary;
mod promptness;
mod provisioning;
mod queue;
mod repeated_crashes;
mod requests;
mod restart;
mod room;
mod security_groups;
mod settings;
mod standing;
mod tables;
mod warm_pool;
