//! The CNI protocol, versions 0.3.0 to 1.1.0, for a plugin. A request is an environment and stdin; the
//! answer is a result or a coded error, as JSON.
//!
//! [`Request::parse`] reads a request. [`AddResult::to_json`], [`version_document`] and
//! [`CniError::to_json`] write answers. Nothing here reads the process's environment or a file, and
//! nothing knows ENIs, pools or the daemon.
//!
//! The rules are those of the CNI specification 1.1.0
//! (<https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md>). Where it leaves a choice,
//! they are those of the reference skeleton `pkg/skel`, since runtimes rely on them.

mod args;
mod capabilities;
mod conf;
mod env;
mod error;
mod name;
mod request;
mod result;
mod version;

pub use args::Pod;
pub use capabilities::{Bandwidth, PortMapping, Protocol, Rate};
pub use conf::{DataPath, IpvlanMode, NetConf, RuntimeConfig};
pub use env::Environment;
pub use error::{CniError, ErrorCode, PluginCode};
pub use name::{ContainerId, IfName, InvalidName, NetworkName};
pub use request::{Add, Attachment, Check, Del, Gc, Request, ValidAttachment, requested_version};
pub use result::{AddResult, Dns, Interface, IpConfig, Route};
pub use version::{Verb, Version, version_document};
