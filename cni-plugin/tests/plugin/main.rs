//! The executable as a runtime starts it: as root, in network namespaces of the tests' own, against
//! a daemon with memory and no cloud.
//!
//! Tests are named after the assertions of `../README.md`. They fail where they cannot run, unless
//! `TIDEPOOL_SKIP_ROOT_TESTS=1` says that they need not.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod add;
mod check;
mod del;
mod fake;
mod node;
mod protocol;
mod speed;
mod status_gc;
