//! DELs that the plugin could not deliver: one file each, left for the daemon to apply once.
//!
//! The plugin writes `<state directory>/pending-dels/<any name>.json`, complete at the moment it
//! gets that name (written elsewhere in the directory, then renamed), with one [`PendingDel`] as
//! JSON. The daemon releases the attachment and, once that is durable, removes the file.

use serde::{Deserialize, Serialize};

/// The directory's name, beside the daemon's state file.
pub const DIRECTORY: &str = "pending-dels";

/// What a file's name ends with; other files in the directory are not looked at.
pub const EXTENSION: &str = "json";

/// An attachment that is gone although the daemon was not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingDel {
    /// The `name` of the network configuration.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}
