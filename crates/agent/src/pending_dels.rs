//! Applies the DELs that the plugin left in files while no daemon answered.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipam::event::Answer;
use ipam::id::AttachmentKey;
use ipam::record::Assignment;
use proto::pending::{EXTENSION, PendingDel};
use tokio::task::spawn_blocking;

use crate::handle::Handle;
use crate::own_file::{self, ReadError};
use crate::policy_agent::PolicyAgent;
use crate::traces::RequestTrace;

/// The pause between two polls of the directory. The plugin writes there only if the daemon did not answer,
/// and a DEL that waits keeps only one address from reuse.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// The extension that an unreadable file gets.
const UNREADABLE: &str = "unreadable";
/// Bytes of a file. The names of an attachment are a few hundred.
const LARGEST: u64 = 16 * 1024;
/// Files that one poll applies.
const MOST_AT_ONCE: usize = 4096;

/// A DEL from a file that could not be applied.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("read {0}")]
    Read(PathBuf, #[source] ReadError),
    #[error("parse {0}")]
    Content(PathBuf, #[source] serde_json::Error),
    #[error("release the attachment that {0} names")]
    Release(PathBuf),
    #[error("remove {0}")]
    Remove(PathBuf, #[source] io::Error),
}

/// Polls `directory` until the daemon ends.
pub(crate) async fn apply_forever(
    handle: Handle,
    policy_agent: Option<PolicyAgent>,
    directory: PathBuf,
) {
    let mut polls = tokio::time::interval(POLL_EVERY);
    loop {
        polls.tick().await;
        apply_all(&handle, policy_agent.as_ref(), &directory).await;
    }
}

/// Applies the files in `directory`. A file that fails stays for the next poll, unless it cannot be parsed or may
/// be another user's. The daemon would release the address of a running pod at the word of such a file.
pub(crate) async fn apply_all(
    handle: &Handle,
    policy_agent: Option<&PolicyAgent>,
    directory: &Path,
) {
    let in_directory = directory.to_owned();
    let Ok(paths) = spawn_blocking(move || files(&in_directory)).await else { return };
    for path in paths {
        let fault = match apply(handle, policy_agent, &path).await {
            Ok(()) => continue,
            Err(fault) => fault,
        };
        tracing::warn!(fault = crate::error_chain(&fault), "DEL from a file is not applied");
        if matches!(fault, ApplyError::Content(..) | ApplyError::Read(_, ReadError::Refused(_))) {
            // Renamed so that it is reported only once.
            let _ = tokio::fs::rename(&path, path.with_extension(UNREADABLE)).await;
        }
    }
}

async fn apply(
    handle: &Handle,
    policy_agent: Option<&PolicyAgent>,
    path: &Path,
) -> Result<(), ApplyError> {
    let file = path.to_owned();
    let text = spawn_blocking(move || own_file::read(&file, LARGEST))
        .await
        .unwrap_or_else(|fault| Err(io::Error::other(fault).into()))
        .map_err(|fault| ApplyError::Read(path.to_owned(), fault))?;
    let PendingDel { network, container_id, ifname } = serde_json::from_slice(&text)
        .map_err(|fault| ApplyError::Content(path.to_owned(), fault))?;
    failpoint::pass("note", "read");
    let key = AttachmentKey { network: network.into(), container: container_id, ifname };
    match handle.del(key.clone(), RequestTrace::default()).await {
        Ok(Answer::Released(held)) => {
            let addresses: Vec<_> = held.iter().flat_map(Assignment::ips).collect();
            tracing::info!(%key, ?addresses, "DEL from a file applied");
            if let (Some(agent), Some(held)) = (policy_agent, &held) {
                agent.forget(handle, &key, &held.pod).await;
            }
        }
        Ok(_) | Err(_) => return Err(ApplyError::Release(path.to_owned())),
    }
    failpoint::pass("note", "applied");
    tokio::fs::remove_file(path).await.map_err(|fault| ApplyError::Remove(path.to_owned(), fault))
}

/// The files of DELs, ascending by name; empty if there is no such directory. From then on nobody else can write
/// to the directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    own_file::secure_directory(directory);
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let is_note = |path: &PathBuf| path.extension() == Some(OsStr::new(EXTENSION));
    let mut paths: Vec<_> =
        entries.map(|entry| entry.path()).filter(is_note).take(MOST_AT_ONCE).collect();
    paths.sort();
    paths
}
