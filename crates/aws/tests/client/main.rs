//! The crate from outside: what it puts on the wire, and whether two servers of EC2 that know
//! nothing of each other agree with it.

mod contract;
mod environment;
mod fuzz;
mod imds;
mod node;
mod server;
mod servers;
mod trouble;
mod wire;
