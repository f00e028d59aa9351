//! The daemon as its clients see it: over its real socket, on a real state file, with a fake EC2
//! that remembers.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a test")]

mod bench;
mod crowd;
mod disk;
mod fake_ec2;
mod fuzz;
mod introspection;
mod kernel_check;
mod life;
mod metrics;
mod node;
mod pool;
mod socket;
