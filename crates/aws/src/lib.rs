//! The client of EC2 and of the instance metadata service. It makes the calls that `ipam` describes as data,
//! and returns answers and failures in `ipam`'s types.
//!
//! It must not know how anything is decided: no policy, no pool, no retry.

mod classify;
mod connect;
mod credentials;
mod ec2;
mod failure;
mod http;
mod imds;
mod limits;
mod trust;

pub use classify::classify;
pub use connect::{Caller, Identity, connect};
pub use ec2::{ConnectOptions, Ec2};
pub use failure::call_error;
pub use http::{ConnectError, Post, Proxies};
pub use imds::{Imds, ImdsError, NodeFacts, ShownEni};
pub use limits::instance_limits;
pub use trust::Roots;
