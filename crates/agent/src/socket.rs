//! The Unix socket. Only root can connect, and a daemon never takes the socket of a running daemon.
//!
//! A disk that takes no new file, or a socket that somebody removes, does not end the daemon: it makes the
//! socket as soon as it can.

use std::convert::Infallible;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::stream::{self, Stream};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use crate::{error_chain, own_file};

/// How long to wait after a failed accept: a lack of file descriptors does not pass at once.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);
/// How long no connection may come before the socket's file is checked.
const CHECK_AFTER: Duration = Duration::from_secs(1);

/// How long another listener may take to end. The kernel closes the files of a process that ends one by one, so
/// its lock may be free before its socket.
const PREDECESSOR: Duration = Duration::from_secs(2);
/// The pause between two checks of that.
const PREDECESSOR_EVERY: Duration = Duration::from_millis(2);

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

impl BindError {
    /// Whether a disk is the cause, so that a later attempt may succeed.
    fn may_pass(&self) -> bool {
        use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory};
        let wrong_path = |fault: &io::Error| {
            matches!(fault.kind(), InvalidFilename | InvalidInput | NotADirectory)
        };
        match self {
            Self::InUse(_) | Self::NotASocket(_) => false,
            Self::Io { source, .. } => !wrong_path(source),
        }
    }
}

/// The socket at a path. It listens there, or tries to.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    /// The listener, and its file.
    listening: Option<(UnixListener, Metadata)>,
    /// The last fault, so that it is logged once.
    fault: Option<String>,
}

impl Socket {
    /// Listens at `path`. Makes its directory (mode 0755) and replaces the socket of a dead daemon. The
    /// socket has mode 0600 from the start, since it is renamed into place.
    ///
    /// If the disk takes no socket at present, the result listens later.
    ///
    /// # Errors
    ///
    /// [`BindError`] if that cannot pass by itself. The file at `path` does not change then.
    pub(crate) async fn bind(path: &Path) -> Result<Self, BindError> {
        let mut socket = Self { path: path.to_owned(), listening: None, fault: None };
        let until = Instant::now() + PREDECESSOR;
        loop {
            match listen(path) {
                Ok(listening) => socket.listening = Some(listening),
                Err(BindError::InUse(_)) if Instant::now() < until => {
                    tokio::time::sleep(PREDECESSOR_EVERY).await;
                    continue;
                }
                Err(fault) if fault.may_pass() => socket.say(&fault),
                Err(fault) => return Err(fault),
            }
            return Ok(socket);
        }
    }

    /// The connections. The stream never ends.
    ///
    /// A connection that fails for a lack of file descriptors stays in the kernel's queue. The error would
    /// repeat at once and forever, and tonic's own loop would do nothing else.
    pub(crate) fn connections(self) -> impl Stream<Item = io::Result<UnixStream>> {
        stream::unfold(self, |mut socket| async move {
            loop {
                match tokio::time::timeout(CHECK_AFTER, socket.accept()).await {
                    Ok(Ok(connection)) => return Some((Ok(connection), socket)),
                    Ok(Err(fault)) => {
                        tracing::warn!(%fault, "connection is not accepted");
                        tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                    }
                    Err(_none_came) => socket.restore(),
                }
            }
        })
    }

    async fn accept(&self) -> io::Result<UnixStream> {
        match &self.listening {
            Some((listener, _)) => listener.accept().await.map(|(connection, _)| connection),
            None => std::future::pending().await,
        }
    }

    /// Listens anew unless the file at the path is still this socket.
    fn restore(&mut self) {
        let is_there = |(_, file): &(_, Metadata)| own_file::is_at(&self.path, file);
        if self.listening.as_ref().is_some_and(is_there) {
            return;
        }
        match listen(&self.path) {
            Ok(listening) => {
                tracing::info!(socket = %self.path.display(), "the socket has been made anew");
                self.listening = Some(listening);
                self.fault = None;
            }
            Err(fault) => self.say(&fault),
        }
    }

    fn say(&mut self, fault: &BindError) {
        let fault = error_chain(fault);
        if self.fault.as_ref() != Some(&fault) {
            tracing::error!(fault, again_every = ?CHECK_AFTER, "nobody can reach ipamd: it has no socket");
            self.fault = Some(fault);
        }
    }
}

/// Makes a socket of mode 0600 at `path` by a rename, and its directory (mode 0755). Replaces the socket of a daemon that
/// has ended, and no other file. Returns the listener and the socket's file.
pub(crate) fn listen(path: &Path) -> Result<(UnixListener, Metadata), BindError> {
    if let Some(directory) = path.parent() {
        own_file::make_directory(directory).map_err(io_error("make directory", directory))?;
    }
    check_no_listener(path)?;
    let mut unready = path.as_os_str().to_owned();
    unready.push(".new");
    let unready = PathBuf::from(unready);
    // A crash may have left this file.
    let _ = fs::remove_file(&unready);
    let listener = match UnixListener::bind(&unready) {
        // A disk without a free inode gets one back from the dead daemon's socket.
        Err(fault)
            if fault.kind() == io::ErrorKind::StorageFull && fs::remove_file(path).is_ok() =>
        {
            UnixListener::bind(&unready)
        }
        bound => bound,
    };
    let listener = listener.map_err(io_error("bind", &unready))?;
    failpoint::pass("socket", "bound");
    let metadata = fs::set_permissions(&unready, Permissions::from_mode(0o600))
        .and_then(|()| fs::symlink_metadata(&unready))
        .and_then(|metadata| fs::rename(&unready, path).map(|()| metadata))
        .map_err(|fault| {
            // A full disk gets the inode back.
            let _ = fs::remove_file(&unready);
            io_error("put a socket at", path)(fault)
        })?;
    Ok((listener, metadata))
}

/// Accepts whoever connects beside the socket at `path`, and says nothing: by the connection `ipamd ready` learns that
/// this daemon waits for another one to end. The socket is removed when this is dropped.
pub(crate) async fn stand_by(path: &Path) -> Infallible {
    let path = proto::socket::of_waiting(path);
    loop {
        // Another daemon may wait too. A disk may take no socket; then this daemon does not look ready.
        if let Ok((listener, file)) = listen(&path) {
            let standby = Standby { path: path.clone(), file };
            while standby.is_in_place() {
                if let Ok(Err(_)) = tokio::time::timeout(CHECK_AFTER, listener.accept()).await {
                    tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                }
            }
        }
        tokio::time::sleep(CHECK_AFTER).await;
    }
}

/// The socket of a daemon that waits.
struct Standby {
    path: PathBuf,
    file: Metadata,
}

impl Standby {
    fn is_in_place(&self) -> bool {
        own_file::is_at(&self.path, &self.file)
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if self.is_in_place() {
            // This fails only if somebody else has removed it.
            let _ = fs::remove_file(&self.path);
        }
    }
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

fn check_no_listener(path: &Path) -> Result<(), BindError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(fault) => return Err(io_error("stat", path)(fault)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    if !own_file::is_ours(&metadata) {
        // No daemon listens there, whoever answers.
        let (path, uid) = (path.display(), metadata.uid());
        tracing::warn!(socket = %path, uid, "socket belongs to another user; it is replaced");
        return Ok(());
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
