//! A model of EC2's VPC networking and instance metadata: addresses, ENIs, limits, throttling,
//! latency, faults.
//!
//! The model is pure and deterministic. Time is an argument, randomness comes from a seed, and the
//! same calls get the same answers. It knows no HTTP, XML, kernel or clock. A server around it
//! decodes wire requests into [`request`], renders [`response`], and builds the network that
//! [`fabric`] describes.

mod address_space;
mod allocate;
pub mod calls;
pub mod config;
pub mod connection_tracking;
pub mod fabric;
mod family;
pub mod fault;
pub mod id;
mod imds;
pub mod launch_options;
pub mod metadata_options;
pub mod model;
mod operation;
mod public_address;
pub mod request;
mod resources;
pub mod response;
pub mod routing;
pub mod seed;
mod throttle;
mod transition;
mod view;
mod visibility;
mod zone;

pub use ec2_api::{ApiError, Delay, Rng, SimTime, error, time};
pub(crate) use ec2_api::{delay, filter, page, rng};
pub use model::{Context, Delivery, Model, Reply};
pub use throttle::BucketSize;
