//! The engine as its caller sees it: events in, effects out, against an EC2 that remembers.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod ec2;
mod errors;
mod histories;
mod ipv6;
mod node;
mod requests;
mod restart;
mod tables;
mod warm_pool;
