//! The local gRPC contract between the CNI plugin and `ipamd`.
//!
//! Generated from `tidepool/ipam/v1/ipam.proto`, which documents each message. Each end accepts
//! the other end at one minor version apart: fields are added, never renumbered or reused.
//! The workspace's lints do not apply here, since nearly all of the crate is generated.

#![forbid(unsafe_code)]

pub mod pending;
pub mod ports;
pub mod refusal;
pub mod socket;

/// `tidepool.ipam.v1`.
pub mod v1 {
    tonic::include_proto!("tidepool.ipam.v1");
}

/// What AWS's network policy agent serves and asks for, from `policy_agent.proto`.
#[cfg(feature = "policy-agent")]
pub mod policy_agent {
    tonic::include_proto!("rpc");
}

/// The socket at which `ipamd` listens by default.
pub const DEFAULT_SOCKET: &str = "/var/run/aws-node/ipamd.sock";

/// The path at which the introspection serves a [`v1::ViewReply`] as Protocol Buffers.
pub const VIEW_PATH: &str = "/v1/view";

/// The version that both ends send, `major.minor.patch`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod skew;
