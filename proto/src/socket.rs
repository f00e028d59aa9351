//! Whether a Unix socket may be trusted. Who listens on a socket that another user has made can answer
//! anything.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The socket belongs to another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OthersSocket {
    /// The socket.
    pub path: PathBuf,
    /// Its owner.
    pub uid: u32,
}

impl std::fmt::Display for OthersSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, uid } = self;
        write!(
            f,
            "{} belongs to uid {uid}, not to root; nobody must be asked there",
            path.display()
        )
    }
}

impl std::error::Error for OthersSocket {}

/// Where a daemon listens while it waits for the one at `socket` to end. Nothing is asked there: who listens is known
/// by the connection.
#[must_use]
pub fn of_waiting(socket: &Path) -> PathBuf {
    let mut waiting = socket.as_os_str().to_owned();
    waiting.push(".waiting");
    waiting.into()
}

/// Checks that root has made the socket at `path`. A caller checks before it connects. If there is no
/// socket, the result is `Ok`, and connecting fails.
///
/// # Errors
///
/// [`OthersSocket`] if it is another user's.
pub fn check_owner(path: &Path) -> Result<(), OthersSocket> {
    match std::fs::metadata(path).map(|metadata| metadata.uid()) {
        Ok(0) | Err(_) => Ok(()),
        Ok(uid) => Err(OthersSocket { path: path.to_owned(), uid }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_of_another_user_is_not_trusted() {
        let path = std::env::temp_dir().join(format!("tidepool-proto-{}.sock", std::process::id()));
        assert_eq!(check_owner(&path), Ok(()));
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let own = check_owner(&path);
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        let others = check_owner(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(own, Ok(()), "run the tests as root");
        assert_eq!(others, Err(OthersSocket { path, uid: 65_534 }));
    }
}
