//! A whole simulator in this process, driven by raw HTTP: what no SDK would send, and every byte
//! that an SDK would hide.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod admin;
mod lab;
mod metadata;
mod protocol;
mod topology;
