//! What spans packages: real processes on a simulated VPC, driven as a kubelet would drive them.
//!
//! The tests and the demo share it. It starts what a user would start (`vpc-sim`, `ipamd`,
//! containerd with our conflist) and knows none of their insides.

pub mod books;
pub mod cluster;
pub mod collector;
pub mod containerd;
pub mod exec;
pub mod image;
pub mod install;
pub mod k8s;
pub mod kube;
pub mod obstacles;
pub mod peers;
pub mod pings;
pub mod policy_agent;
pub mod process;
pub mod prometheus;
pub mod scrape;
pub mod sim;
pub mod steady;
pub mod story;
