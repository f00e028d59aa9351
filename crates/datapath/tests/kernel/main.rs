//! The verbs with a real kernel. Each test has network namespaces of its own, and reads the kernel with
//! `ip`, as a person would.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod add;
mod check;
mod connections;
mod del;
mod egress;
mod eni;
mod host;
mod host_links;
mod incumbent;
mod kernel_rules;
mod lab;
mod many;
mod nat;
mod ports;
mod restore;
mod retired;
mod sctp;
mod shaping;
mod traffic;
