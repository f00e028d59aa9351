//! The Unix socket. Only root can connect, and a daemon never takes the socket of a running daemon.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{self, Stream};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

/// How long to wait after a failed accept: a lack of file descriptors does not pass at once.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Why the daemon cannot listen on its socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Another daemon listens there.
    #[error("another ipamd listens on {0}")]
    InUse(PathBuf),
    /// A file of another type has the name.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The file system fails.
    #[error("{step} {path}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: io::Error,
    },
}

/// Listens at `path`. Makes its directory (mode 0755) and replaces the socket of a dead daemon. The
/// socket has mode 0600 from the start, since it is renamed into place.
///
/// # Errors
///
/// [`BindError`]. The file at `path` does not change then.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, BindError> {
    if let Some(directory) = path.parent() {
        make_directory(directory).map_err(io_error("make directory", directory))?;
    }
    check_no_listener(path)?;
    let mut unready = path.as_os_str().to_owned();
    unready.push(".new");
    let unready = PathBuf::from(unready);
    // A crash may have left this file.
    let _ = fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready).map_err(io_error("bind", &unready))?;
    failpoint::pass("socket", "bound");
    fs::set_permissions(&unready, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&unready, path))
        .map_err(io_error("put a socket at", path))?;
    Ok(listener)
}

/// The connections to `listener`. The stream never ends.
///
/// A connection that fails for a lack of file descriptors stays in the kernel's queue. The error would
/// repeat at once and forever, and tonic's own loop would do nothing else.
pub(crate) fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => return Some((Ok(connection), listener)),
                Err(fault) => tracing::warn!(%fault, "connection is not accepted"),
            }
            tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
        }
    })
}

/// Refuses every caller except root, even if someone has changed the mode of the socket.
pub(crate) fn only_root(request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    match peer.map(|peer| peer.uid()) {
        Some(0) => Ok(request),
        Some(uid) => Err(Status::permission_denied(format!("uid {uid} is not root"))),
        None => Err(Status::permission_denied("the caller's user is unknown")),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn check_no_listener(path: &Path) -> Result<(), BindError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(fault) => return Err(io_error("stat", path)(fault)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(fault) if fault.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // A running daemon may also have a full backlog (`EAGAIN`).
        Ok(_) | Err(_) => Err(BindError::InUse(path.to_owned())),
    }
}

fn io_error<'a>(
    step: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> BindError + use<'a> {
    move |source| BindError::Io { step, path: path.to_owned(), source }
}
