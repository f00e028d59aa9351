//! A model of Amazon VPC IPAM: the address plan of an organisation.
//!
//! The model is pure and deterministic. Time is an argument, randomness comes from a seed, and the
//! same calls get the same answers. It knows no HTTP, XML, kernel or clock, and no model of VPCs.
//! What exists in a Region comes in as a [`resource::Sample`]; VPCs and subnets take ranges by
//! [`AddressPlan::allocate_for`]. A server decodes wire requests into [`request`] and renders
//! [`response`].
//!
//! The name is not IPAM, since `ipam` is the package that decides which pod gets which address.

mod active;
pub mod block;
pub mod config;
pub mod id;
mod operation;
mod overlap;
mod plan;
mod pool;
pub mod request;
pub mod resource;
pub mod response;
pub mod rules;
pub mod space;
mod store;
mod tagging;
mod usage;

pub use active::{ActiveAddresses, ActiveEntry};
pub use operation::Wanted;
pub use plan::{AddressPlan, Caller};
pub use store::Organization;
pub use tagging::TaggableId;
pub use usage::{PoolUsage, ScopeCounts};
