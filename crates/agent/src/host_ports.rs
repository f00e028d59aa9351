//! Keeps the ports of the node that lead to pods. The plugin opens and closes them and leaves notes (`proto::ports`). This
//! puts back what other programs remove, and removes what pods without a link have left.
//!
//! It syncs at the start, when the kernel reports a change of the table or the end of a link, and each minute.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use datapath::links::LinkChange;
use datapath::ports::{self, Forward, NoteError, PodPorts, PortsError, PortsReport};
use futures::{Stream, StreamExt as _};
use proto::ports::EXTENSION;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::disturbances::Repairs;
use crate::own_file::{self, ReadError};
use crate::{HostRepairs, error_chain, host};

/// The pause between two syncs. The kernel might not report a change.
const SYNC_EVERY: Duration = Duration::from_secs(60);
/// The extension that an unreadable note gets.
const UNREADABLE: &str = "unreadable";
/// Bytes of a note. A port has some 80.
const LARGEST: u64 = 1 << 20;
/// Notes that are read.
const MOST: usize = 4096;

/// The notes by their files.
type Notes = BTreeMap<PathBuf, PodPorts>;

/// A note that is not used.
#[derive(Debug, thiserror::Error)]
enum BadNote {
    #[error("read it")]
    Read(#[source] ReadError),
    #[error("it is no text")]
    Text(#[source] std::str::Utf8Error),
    #[error("parse it")]
    Content(#[source] NoteError),
}

/// Keeps the ports of the notes in `directory` until the daemon ends. Works in the network namespace of the calling thread.
pub(crate) async fn keep_forever(directory: PathBuf, repaired: HostRepairs) {
    let (mut changes, mut links) = (changes().fuse(), host::link_changes().fuse());
    let mut repairs = Repairs::new();
    repairs.need();
    loop {
        tokio::select! {
            Some(()) = changes.next() => {
                repairs.need();
                continue;
            }
            Some(change) = links.next() => {
                if ends_a_link(&change) {
                    repairs.need();
                }
                continue;
            }
            () = repairs.due() => {}
            () = sleep(SYNC_EVERY) => {}
        }
        sync(&directory, &repaired).await;
    }
}

fn ends_a_link(change: &LinkChange) -> bool {
    match change {
        LinkChange::Gone { .. } | LinkChange::Retired { .. } | LinkChange::Missed => true,
        LinkChange::Present { .. } => false,
    }
}

fn changes() -> Box<dyn Stream<Item = ()> + Send + Unpin> {
    match ports::changes() {
        Ok(changes) => Box::new(changes),
        Err(fault) => {
            tracing::error!(%fault, "changes of host ports cannot be followed");
            Box::new(futures::stream::empty())
        }
    }
}

async fn sync(directory: &Path, repaired: &HostRepairs) {
    let directory = directory.to_owned();
    // In a blocking thread, since nftables' socket blocks.
    let synced = spawn_blocking(move || {
        let notes = read(&directory);
        let wanted: Vec<_> = notes.values().cloned().collect();
        let report = tokio::runtime::Handle::current().block_on(ports::sync(&wanted))?;
        let withdrawn = withdraw(&notes, &report)?;
        Ok::<_, PortsError>((report, withdrawn))
    });
    match synced.await {
        Ok(Ok((report, n_withdrawn))) => log(&report, n_withdrawn, repaired),
        Ok(Err(fault)) => {
            tracing::error!(fault = error_chain(&fault), "host ports cannot be kept");
        }
        Err(fault) => tracing::error!(%fault, "the task that keeps host ports has failed"),
    }
}

/// Removes the notes of pods that have gone, and again the ports of pods whose DEL has removed their note meanwhile. Returns
/// how many pods that were.
fn withdraw(notes: &Notes, report: &PortsReport) -> Result<usize, PortsError> {
    let mut n_withdrawn = 0;
    for (path, ports) in notes {
        if report.gone.contains(ports.owner()) {
            remove(path);
        } else if matches!(path.try_exists(), Ok(false)) {
            ports::remove(ports)?;
            n_withdrawn += 1;
        }
    }
    Ok(n_withdrawn)
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(note = %path.display(), %fault, "the note of a pod that has gone stays");
        }
        Ok(()) | Err(_) => {}
    }
}

fn log(report: &PortsReport, n_withdrawn: usize, repaired: &HostRepairs) {
    let PortsReport { frame_written, restored, removed, gone, failures } = report;
    let text = |forwards: &BTreeSet<Forward>| {
        forwards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    // What a DEL has overtaken is no other program's doing.
    if n_withdrawn == 0 && (*frame_written || !restored.is_empty()) {
        repaired.count("host_ports");
        let forwards = text(restored);
        tracing::warn!(forwards, "restored host ports, which another program had removed");
    }
    if !removed.is_empty() || !gone.is_empty() {
        let forwards = text(removed);
        tracing::info!(forwards, ?gone, "removed host ports of pods that have gone");
    }
    for (owner, fault) in failures {
        let (owner, fault) = (owner.as_str(), error_chain(fault));
        tracing::error!(owner, fault, "host ports of a pod cannot be restored");
    }
}

/// All notes that can be read. From then on nobody else can write to the directory.
fn read(directory: &Path) -> Notes {
    own_file::secure_directory(directory);
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let is_note = |path: &PathBuf| path.extension() == Some(OsStr::new(EXTENSION));
    let paths = entries.map(|entry| entry.path()).filter(is_note).take(MOST);
    paths.filter_map(|path| Some((path.clone(), read_one(&path)?))).collect()
}

/// `None` for a note that has gone, and for one that cannot be used, which is kept aside.
fn read_one(path: &Path) -> Option<PodPorts> {
    let fault = match own_file::read(path, LARGEST).map_err(BadNote::Read).and_then(|bytes| {
        let text = std::str::from_utf8(&bytes).map_err(BadNote::Text)?;
        text.parse().map_err(BadNote::Content)
    }) {
        Ok(ports) => return Some(ports),
        Err(BadNote::Read(fault)) if fault.is_not_found() => return None,
        Err(fault) => fault,
    };
    let note = path.display();
    tracing::warn!(%note, fault = error_chain(&fault), "a note of host ports is not used");
    // A note of a newer version is for the next daemon. Another fault of the disk may pass.
    let is_lasting =
        !matches!(fault, BadNote::Content(NoteError::Version) | BadNote::Read(ReadError::Io(_)));
    if is_lasting {
        // Renamed so that it is reported only once.
        let _ = fs::rename(path, path.with_extension(UNREADABLE));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use mangle::hostile;
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "tidepool host ports 1\nc1/eth0\ntcp *:8080 10.0.0.20:80\n";

    proptest! {
        /// What is no note is refused, and what is one is written as it is read.
        #[test]
        fn fuzz_port_note(document in hostile(vec![GOOD.as_bytes().to_vec()])) {
            let note = std::str::from_utf8(&document).ok();
            if let Some(Ok(ports)) = note.map(str::parse::<PodPorts>) {
                prop_assert_eq!(ports.to_string().parse(), Ok(ports));
            }
        }
    }

    #[test]
    fn bad_port_notes_are_kept_aside_and_good_ones_read() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8], mode: u32| {
            let path = directory.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("c1:eth0.ports", GOOD.as_bytes(), 0o600);
        write("c2:eth0.ports", GOOD.as_bytes(), 0o666);
        write("c3:eth0.ports", b"\xff", 0o600);
        write("c4:eth0.ports", GOOD.replace("tcp", "icmp").as_bytes(), 0o600);
        write("c5:eth0.ports", GOOD.replace("ports 1", "ports 2").as_bytes(), 0o600);
        write("c6:eth0.ports.77", GOOD.as_bytes(), 0o600);
        let notes = read(directory.path());
        let names: Vec<_> = notes.keys().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["c1:eth0.ports"]);
        assert_eq!(notes.values().next().unwrap().to_string(), GOOD);
        let left = |name: &str| directory.path().join(name).exists();
        for aside in ["c2:eth0.unreadable", "c3:eth0.unreadable", "c4:eth0.unreadable"] {
            assert!(left(aside), "{aside}");
        }
        assert!(left("c5:eth0.ports"), "a newer daemon reads it");
        assert!(read(&directory.path().join("nowhere")).is_empty());
    }
}
