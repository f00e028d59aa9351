//! Decides which pod gets which address and what to ask of EC2.
//!
//! A deterministic state machine: events in, effects out, time as an argument. It must not know
//! tokio, files, sockets, the environment, a clock or EC2's SDK. So the same code runs on a node,
//! in a simulation of thousands of nodes, under property tests and behind `tidepool plan`.

mod action;
pub mod block;
mod bucket;
pub mod call;
pub mod connection_tracking;
mod engine;
mod eni;
pub mod eni_config;
pub mod event;
pub mod forecast;
pub mod id;
mod jitter;
pub mod kernel_report;
pub mod node_local;
mod ownership;
mod place;
pub mod plan;
pub mod policy;
mod pool;
mod reason;
pub mod record;
mod rest;
mod retry;
pub mod standing;
mod streak;
pub mod subnet_list;
mod subnets;
pub mod time;
pub mod trouble;
pub mod view;

pub use engine::{Boot, Engine};
pub use forecast::forecast;
pub use plan::plan;
