//! Runs many engines against the model of EC2, in virtual time, and scores them.
//!
//! The engine is the real one; around it stands what it meets on a node and in a cluster: an agent,
//! a kubelet, a scheduler, EC2 with its token buckets. The daemon of amazon-vpc-cni-k8s stands
//! beside it, from the rules it follows, so that both can be run on the same trace. One thread, no
//! clock, no sleeping: the same setup gives the same figures.
//!
//! The parts that any simulation of an engine and EC2 needs can be used alone: [`cloud`], [`ec2`],
//! [`event_queue`]. The random histories in `tests/histories` are made of them.

pub mod bound;
pub mod cloud;
mod daemon;
pub mod ec2;
pub mod event_queue;
mod incumbent;
pub mod report;
mod run;
pub mod scenario;
pub mod score;
pub mod spec;
mod tidepool;
pub mod trace;

pub use cloud::SetupError;
pub use run::{Outcome, Setup, Strategy, run};
