//! The lab through its public interface.

#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

mod golden;
mod runs;
mod tables;
mod yardstick;
