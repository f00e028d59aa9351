//! Calls against the model through its public interface.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports, in its helpers too")]

mod addresses;
mod imds;
mod listing;
mod native;
mod operation;
mod options;
mod over_time;
mod pools;
mod public;
mod random_calls;
mod region;
mod sample;
