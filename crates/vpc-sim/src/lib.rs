//! A simulator of EC2's networking: the model of `ec2-model` behind the real EC2 Query protocol
//! and IMDSv2, with a body of real devices where the machine lets it.
//!
//! ```text
//! vpc-sim --config crates/vpc-sim/examples/two-nodes.yaml           # EC2 and IMDS on this machine
//! vpc-sim --config crates/vpc-sim/examples/two-nodes.yaml --fabric  # and a VPC of real devices
//! aws --endpoint-url http://127.0.0.1:8773 ec2 describe-instances   # any key, any secret
//! curl http://127.0.0.1:8773/_sim/calls                             # what a client has asked
//! ```
//!
//! Without a fabric each instance of the topology has an IMDS listener of its own; in the fabric
//! all have 169.254.169.254, and are told apart by the address that a request comes from.
//!
//! From the outside in: [`server`] starts everything; [`ec2`], [`imds`] and [`admin`] speak HTTP;
//! [`simulator`] is the one place that locks the model and tells it the time; [`fabric_sync`] is the
//! seam to the [`fabric`].

pub mod admin;
pub mod clock;
pub mod ec2;
pub mod fabric;
pub mod fabric_sync;
pub mod imds;
mod seed;
pub mod serve;
pub mod server;
pub mod simulator;
pub mod switches;
pub mod topology;
