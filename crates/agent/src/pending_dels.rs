//! Applies the DELs that the plugin left in files while no daemon answered.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipam::event::Answer;
use ipam::id::AttachmentKey;
use ipam::record::Assignment;
use proto::pending::{EXTENSION, PendingDel};
use tokio::fs;

use crate::handle::Handle;

/// Between two polls of the directory. The plugin writes there only if the daemon has failed to answer,
/// and a DEL that waits holds back one address.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// What the name of an unreadable file ends with from then on.
const UNREADABLE: &str = "unreadable";

/// A DEL from a file that could not be applied.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("understand {0}")]
    Content(PathBuf, #[source] serde_json::Error),
    #[error("release what {0} names")]
    Release(PathBuf),
    #[error("remove {0}")]
    Remove(PathBuf, #[source] io::Error),
}

/// Reads `directory` again and again.
pub(crate) async fn apply_forever(handle: Handle, directory: PathBuf) {
    let mut polls = tokio::time::interval(POLL_EVERY);
    loop {
        polls.tick().await;
        apply_all(&handle, &directory).await;
    }
}

/// Applies what is in `directory` now; a failed file is left for the next time.
pub(crate) async fn apply_all(handle: &Handle, directory: &Path) {
    for path in files(directory).await {
        let fault = match apply(handle, &path).await {
            Ok(()) => continue,
            Err(fault) => fault,
        };
        tracing::warn!(fault = crate::error_chain(&fault), "DEL from a file is not applied");
        if matches!(fault, ApplyError::Content(..)) {
            // So that it is reported once.
            let _ = fs::rename(&path, path.with_extension(UNREADABLE)).await;
        }
    }
}

async fn apply(handle: &Handle, path: &Path) -> Result<(), ApplyError> {
    let text = fs::read(path).await.map_err(|fault| ApplyError::Read(path.to_owned(), fault))?;
    let PendingDel { network, container_id, ifname } = serde_json::from_slice(&text)
        .map_err(|fault| ApplyError::Content(path.to_owned(), fault))?;
    failpoint::pass("note", "read");
    let key = AttachmentKey { network: network.into(), container: container_id, ifname };
    match handle.del(key.clone()).await {
        Ok(Answer::Released(held)) => {
            let addresses: Vec<_> = held.iter().flat_map(Assignment::ips).collect();
            tracing::info!(%key, ?addresses, "DEL from a file applied");
        }
        Ok(_) | Err(_) => return Err(ApplyError::Release(path.to_owned())),
    }
    failpoint::pass("note", "applied");
    fs::remove_file(path).await.map_err(|fault| ApplyError::Remove(path.to_owned(), fault))
}

/// Ascending by name; none if there is no such directory.
async fn files(directory: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let Ok(mut entries) = fs::read_dir(directory).await else { return paths };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let path = entry.path();
        if path.extension() == Some(OsStr::new(EXTENSION)) {
            paths.push(path);
        }
    }
    paths.sort();
    paths
}
