//! DELs that the plugin could not deliver: one file each, left for the daemon to apply once.
//!
//! The files lie beside the daemon's socket, the one place that both ends know. The plugin writes
//! `<directory>/<file name>` complete at the moment it gets that name (written elsewhere in the
//! directory, then renamed), with one [`PendingDel`] as JSON. The daemon releases the attachment
//! and, once that is durable, removes the file. A new ADD of the same attachment removes it, too,
//! before it asks the daemon: an old DEL must not undo it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The directory's name, beside the daemon's socket.
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

impl PendingDel {
    /// The file's name, the same for the same attachment. None of the parts can hold a `:`, so two
    /// attachments never share it.
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
    fn the_directory_lies_beside_the_socket() {
        let socket = Path::new(crate::DEFAULT_SOCKET);
        assert_eq!(directory(socket), Path::new("/var/run/aws-node/pending-dels"));
    }

    #[test]
    fn a_file_is_named_after_its_attachment() {
        let pending = PendingDel {
            network: "aws-cni".into(),
            container_id: "c1".into(),
            ifname: "eth0".into(),
        };
        assert_eq!(pending.file_name(), "aws-cni:c1:eth0.json");
    }
}
