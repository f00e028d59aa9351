//! Runs many engines against the model of EC2, in virtual time, and scores them.
//!
//! The engine is the real one. The simulation adds its environment: an agent, a kubelet, a
//! scheduler, and EC2 with its token buckets. The daemon of amazon-vpc-cni-k8s is rebuilt from its
//! rules, so that both run on the same trace. There is one thread, no clock and no sleeping: the
//! same setup gives the same figures.
//!
//! Tests of programs around an engine can use [`node_ec2`] as their EC2. Other simulations of
//! engines and EC2 can use [`cloud`], [`ec2`] and [`event_queue`] alone. The random histories in
//! `tests/histories` do.

pub mod bound;
pub mod cloud;
mod daemon;
pub mod ec2;
pub mod event_queue;
mod incumbent;
pub mod load;
pub mod node_ec2;
mod oracle;
pub mod report;
mod run;
pub mod scenario;
pub mod score;
pub mod spec;
mod tidepool;
pub mod trace;
pub mod yardstick;

pub use cloud::SetupError;
pub use run::{Outcome, PodStart, Setup, Strategy, loads, run};
