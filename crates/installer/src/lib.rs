//! What an installation puts on a node: the CNI plugin, and the conflist by which the runtime finds it.
//!
//! Each file is there whole or not at all, whenever a process is killed and whatever the disk does. This package must
//! not know the daemon, its settings or the container that it runs in.

mod conflist;
mod place;
mod rivals;

pub use self::conflist::{Choices, TemplateError, filled, is_ours, shipped};
pub use self::place::{PlaceError, Placed, Removed, alias, put, read, remove, remove_alias};
pub use self::rivals::earlier;

/// The plugin's file name, which is the `type` of its entry in the conflist.
pub const PLUGIN: &str = "aws-cni";
/// The conflist's file name, as amazon-vpc-cni-k8s has it. Runtimes use the first one of the directory.
pub const CONFLIST: &str = "10-aws.conflist";
/// The name under which runtimes run a plugin for `lo`. Ours does that too, so it gets this name where no other plugin
/// has it.
pub const LOOPBACK: &str = "loopback";
