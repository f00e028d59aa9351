//! A whole simulator in this process, driven by raw HTTP. It tests requests that no SDK sends, and
//! bytes that SDKs hide.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod admin;
mod lab;
mod metadata;
mod protocol;
mod topology;
