//! Applies the DELs that the plugin left in files while no daemon answered, and those that could not
//! be put on record when they came.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipam::event::Answer;
use ipam::id::AttachmentKey;
use proto::pending::{EXTENSION, PendingDel};
use tokio::fs;

use crate::handle::Handle;

/// Between two looks into the directory. The plugin writes there only if the daemon has failed to
/// answer, and what it holds back is one address.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What the name of an unreadable file ends with from then on.
const UNREADABLE: &str = "unreadable";

/// A remembered DEL that could not be applied.
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

/// DELs that this daemon was told of but could not put on record. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unrecorded(Arc<Mutex<BTreeSet<AttachmentKey>>>);

impl Unrecorded {
    pub(crate) fn add(&self, key: AttachmentKey) {
        self.with(|keys| keys.insert(key));
    }

    /// It is on record, or an ADD of the same attachment is newer.
    pub(crate) fn remove(&self, key: &AttachmentKey) {
        self.with(|keys| keys.remove(key));
    }

    fn all(&self) -> BTreeSet<AttachmentKey> {
        self.with(|keys| keys.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeSet<AttachmentKey>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks into `directory`, and after what is `unrecorded`, again and again.
pub(crate) async fn apply_forever(handle: Handle, directory: PathBuf, unrecorded: Unrecorded) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        apply_all(&handle, &directory).await;
        for key in unrecorded.all() {
            if let Ok(Answer::Released(_)) = handle.del(key.clone()).await {
                tracing::info!(%key, "DEL is on record at last");
                unrecorded.remove(&key);
            }
        }
    }
}

/// Applies what is in `directory` now; a failed file is left for the next time.
pub(crate) async fn apply_all(handle: &Handle, directory: &Path) {
    for path in files(directory).await {
        let fault = match apply(handle, &path).await {
            Ok(()) => continue,
            Err(fault) => fault,
        };
        tracing::warn!(fault = crate::error_chain(&fault), "remembered DEL is not applied");
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
    let key = AttachmentKey { network, container: container_id, ifname };
    match handle.del(key.clone()).await {
        Ok(Answer::Released(held)) => {
            let address = held.map(|assignment| assignment.address.to_string());
            tracing::info!(%key, address, "remembered DEL applied");
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
