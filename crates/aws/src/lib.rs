//! EC2 and IMDS for real: makes the calls that the core describes and puts the answers, and the
//! failures, in the core's words.
//!
//! It must not know how anything is decided: no policy, no pool, no retry beyond what makes one
//! call's answer trustworthy.

mod classify;
mod credentials;
mod ec2;
mod endpoint;
mod failure;
mod imds;
mod limits;
mod mac;

pub use classify::classify;
pub use ec2::{ConnectError, ConnectOptions, Ec2};
pub use imds::{Imds, ImdsError, NodeFacts, ShownEni};
pub use limits::instance_limits;
