//! Calls against the model through its public interface.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports, in its helpers too")]

mod discovery;
mod histories;
mod lifecycle;
mod refusals;
mod resources;
mod space;
mod world;
