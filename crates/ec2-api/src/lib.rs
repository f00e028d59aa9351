//! What all models of EC2's API have in common: errors, ids, tags, filters, pages, virtual time,
//! chance.
//!
//! This crate knows no operation and no resource. Each model of a part of EC2 has its own requests,
//! and uses these parts, so that every part of the API behaves alike.

pub mod delay;
pub mod error;
pub mod filter;
pub mod id;
mod operations;
pub mod page;
pub mod rng;
pub mod schedule;
pub mod tag;
pub mod time;

pub use delay::Delay;
pub use error::ApiError;
pub use rng::Rng;
pub use time::SimTime;

#[doc(hidden)]
pub use serde;
