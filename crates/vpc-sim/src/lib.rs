//! A simulator of EC2's networking: the model of `ec2-model` behind the EC2 Query protocol and
//! IMDSv2, with real network devices if the machine allows them.
//!
//! ```text
//! vpc-sim --config crates/vpc-sim/examples/two-nodes.yaml           # EC2 and IMDS on this machine
//! vpc-sim --config crates/vpc-sim/examples/two-nodes.yaml --fabric  # and a VPC of real devices
//! aws --endpoint-url http://127.0.0.1:8773 ec2 describe-instances   # any key, any secret
//! curl http://127.0.0.1:8773/_sim/calls                             # the calls so far
//! ```
//!
//! Without a fabric each instance of the topology has its own IMDS listener. In the fabric all
//! instances use 169.254.169.254, and the source address identifies the instance.
//!
//! From the outside in: [`server`] starts everything. [`ec2`], [`imds`] and [`admin`] speak HTTP.
//! [`simulator`] alone locks the [`world`] and passes it the time. [`fabric_sync`] connects it to the
//! [`fabric`]. [`outside`] answers in the namespace beyond the gateways.

pub mod admin;
pub mod clock;
pub mod ec2;
pub mod fabric;
pub mod fabric_sync;
pub mod imds;
pub mod outside;
mod seed;
pub mod serve;
pub mod server;
pub mod simulator;
pub mod switches;
pub mod topology;
pub mod world;
