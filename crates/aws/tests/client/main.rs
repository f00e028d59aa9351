//! Tests of the public client: its requests on the wire, and its behaviour against two independent servers of
//! EC2.

mod bounds;
mod contract;
mod environment;
mod fuzz;
mod imds;
mod node;
mod server;
mod servers;
mod stand_in;
mod trouble;
mod wire;
