//! A simulator of EC2's networking: the model of `ec2-model` behind the real EC2 Query protocol
//! and IMDSv2, with a body of real devices where the machine lets it.

pub mod admin;
pub mod clock;
pub mod ec2;
pub mod embodiment;
pub mod fabric;
pub mod imds;
mod seed;
pub mod serve;
pub mod server;
pub mod simulator;
pub mod switches;
pub mod topology;
