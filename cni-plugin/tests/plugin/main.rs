//! Runs the executable as a runtime does: as root, in the tests' own network namespaces, with a daemon
//! that has a memory and no cloud.
//!
//! A test's name starts with the number of its assertion in `../README.md`. Tests that cannot run fail,
//! unless `TIDEPOOL_SKIP_ROOT_TESTS=1`.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod add;
mod away;
mod capabilities;
mod check;
mod del;
mod fake;
mod further;
mod loopback;
mod node;
mod node_local;
mod protocol;
mod retired;
mod speed;
mod status_gc;
