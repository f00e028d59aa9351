//! The local gRPC contract between the CNI plugin and `ipamd`.
//!
//! Generated from `tidepool/ipam/v1/ipam.proto`, where each message is documented. Both ends
//! tolerate a neighbour one minor version apart: fields are added, never renumbered or reused.
//! The workspace's lints do not apply here, since nearly all of the crate is generated.

#![forbid(unsafe_code)]

pub mod pending;

/// `tidepool.ipam.v1`.
pub mod v1 {
    tonic::include_proto!("tidepool.ipam.v1");
}

/// Where `ipamd` listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/aws-node/ipamd.sock";

/// The version that both ends send along, `major.minor.patch`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
