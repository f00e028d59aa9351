//! Runs the engine: one loop, one socket, one state file. It decides nothing, and it must not know
//! EC2's SDK.

pub mod clock;
mod state;
