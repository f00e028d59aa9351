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
mod delay;
pub mod error;
pub mod fabric;
mod family;
pub mod fault;
mod filter;
pub mod id;
mod imds;
pub mod launch_options;
pub mod metadata_options;
pub mod model;
mod operation;
mod page;
mod public_address;
pub mod request;
mod resources;
pub mod response;
mod rng;
pub mod routing;
pub mod seed;
mod throttle;
pub mod time;
mod transition;
mod view;
mod visibility;
mod zone;

pub use delay::Delay;
pub use error::ApiError;
pub use model::{Context, Delivery, Model, Reply};
pub use rng::Rng;
pub use throttle::BucketSize;
pub use time::SimTime;
