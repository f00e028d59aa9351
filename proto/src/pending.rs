//! DELs that the plugin could not deliver. The plugin leaves one file for each, and the daemon applies
//! each once.
//!
//! 1. The files are beside the daemon's socket, the one place that both ends know.
//! 2. The plugin writes one [`PendingDel`] as JSON under another name in the directory, then renames
//!    the file. So a file with its final name is complete.
//! 3. The daemon releases the attachment and, once that is durable, removes the file.
//! 4. A new ADD of the same attachment removes the file before it asks the daemon. Otherwise the old
//!    DEL would undo it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The directory's name, beside the daemon's socket.
pub const DIRECTORY: &str = "pending-dels";

/// The extension of the files. The daemon ignores other files in the directory.
pub const EXTENSION: &str = "json";

/// An attachment whose DEL did not reach the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingDel {
    /// The `name` of the network configuration.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl PendingDel {
    /// The file's name, which is the same for the same attachment. No part can contain a `:`, so two
    /// attachments never share a name.
    #[must_use]
    pub fn file_name(&self) -> String {
        let Self { network, container_id, ifname } = self;
        format!("{network}:{container_id}:{ifname}.{EXTENSION}")
    }
}

/// The directory for a daemon that listens at `socket`.
#[must_use]
pub fn directory(socket: &Path) -> PathBuf {
    socket.with_file_name(DIRECTORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_directory_is_beside_the_socket() {
        let socket = Path::new(crate::DEFAULT_SOCKET);
        assert_eq!(directory(socket), Path::new("/var/run/aws-node/pending-dels"));
    }

    #[test]
    fn pending_file_is_named_after_its_attachment() {
        let pending = PendingDel {
            network: "aws-cni".into(),
            container_id: "c1".into(),
            ifname: "eth0".into(),
        };
        assert_eq!(pending.file_name(), "aws-cni:c1:eth0.json");
    }
}
