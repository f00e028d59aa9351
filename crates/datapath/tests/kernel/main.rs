//! The verbs against a real kernel, each test in network namespaces of its own. What the kernel
//! made of them is read with `ip`, as a person would.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod add;
mod check;
mod connections;
mod del;
mod eni;
mod host;
mod host_links;
mod incumbent;
mod lab;
mod many;
mod traffic;
