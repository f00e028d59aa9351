//! The notes by which the daemon knows which ports of the node lead to which pod, so that it can put them back.
//!
//! 1. The files are beside the daemon's socket, the one place that both ends know.
//! 2. An ADD writes one for its pod once the kernel has the ports, under another name first. So a file with its final name
//!    is complete.
//! 3. A DEL removes the file before it removes the ports. Otherwise the daemon could put them back for ever.
//! 4. The daemon removes the files of pods without a link.
//!
//! The text of a file is that of `datapath::ports::PodPorts`, whose first line has its version.

use std::path::{Path, PathBuf};

/// The directory's name, beside the daemon's socket.
pub const DIRECTORY: &str = "host-ports";

/// The extension of the files. The daemon ignores other files in the directory.
pub const EXTENSION: &str = "ports";

/// The directory for a daemon that listens at `socket`.
#[must_use]
pub fn directory(socket: &Path) -> PathBuf {
    socket.with_file_name(DIRECTORY)
}

/// The name of the file for the pod whose link has the mark `owner`: the container's id and the interface's name, with a
/// slash between. Neither can contain a `:`, so two pods never share a name.
#[must_use]
pub fn file_name(owner: &str) -> String {
    format!("{}.{EXTENSION}", owner.replace('/', ":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_note_is_beside_the_socket_and_named_after_the_link() {
        let directory = directory(Path::new(crate::DEFAULT_SOCKET));
        let file = directory.join(file_name("c1/eth0"));
        assert_eq!(file, Path::new("/var/run/aws-node/host-ports/c1:eth0.ports"));
    }
}
