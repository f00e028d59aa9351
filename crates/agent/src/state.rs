//! The record on disk: an append-only log of JSON lines. From time to time a snapshot replaces it. This
//! module must not know what the changes mean, only that they make up a [`Record`].
//!
//! ```text
//! ["5f3c9a10",{"format":"tidepool","version":4,"instance":"i-0123456789abcdef0"}]
//! ["90b1c2d3",{"assigned":{"key":{…},"assignment":{…}}}]
//! ```
//!
//! The first field of a line is the CRC-32 of the second. One commit is one `write` and one
//! `fdatasync`. A snapshot is written beside the log, made durable and renamed over it. Old logs are kept:
//!
//! * [`PREVIOUS`] is the log that the last snapshot replaced.
//! * A name that starts with [`ASIDE`] is a log that cannot be read to its end.
//! * [`RETIRED`] is a log whose pods were handed over to another daemon.

mod holder;
pub(crate) mod line;
pub(crate) mod load;
pub(crate) mod lock;
mod points;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ipam::id::InstanceId;
use ipam::record::{Change, Contradiction, Record};
use ipam::time::Timestamp;
use tempfile::{NamedTempFile, TempPath};
use tracing::{error, info, warn};

use self::load::Loaded;
use self::lock::StateDirectory;
use crate::{clock, error_chain, own_file};

/// The log's name in the state directory.
pub(crate) const LOG: &str = "tidepool.jsonl";
/// The last whole log that a snapshot has replaced.
pub(crate) const PREVIOUS: &str = "tidepool.jsonl.previous";
/// The start of the names of damaged logs; the time in ms follows.
pub(crate) const ASIDE: &str = "tidepool.jsonl.damaged-";
/// The last log that was handed over to another daemon. Nothing reads it.
pub(crate) const RETIRED: &str = "tidepool.jsonl.handed-over";
/// An unfinished snapshot.
const UNFINISHED: &str = "tidepool.jsonl.new";
/// At most this many damaged logs are kept.
const MAX_ASIDE: usize = 8;
/// After this many appended lines a snapshot is due, if it makes the log at most half as long.
const SNAPSHOT_AFTER: usize = 4096;

/// A commit that failed. The record on disk has not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// The disk is full, read-only or failing.
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
    /// The changes contradict the record.
    #[error("record a change in {path}")]
    Contradiction {
        /// The log.
        path: PathBuf,
        /// Which fact contradicts which.
        #[source]
        source: Contradiction,
    },
}

/// The log, and the record that it makes up.
#[derive(Debug)]
pub(crate) struct Store {
    directory: StateDirectory,
    instance: InstanceId,
    record: Record,
    log: Log,
}

/// The state of the file [`LOG`]. Only an open log can grow; any other must be replaced first.
#[derive(Debug)]
enum Log {
    /// Whole and open.
    Open(Appender),
    /// Whole or missing.
    Closed,
    /// An append failed, so the end of the file is unknown.
    Suspect,
    /// It could not be read to its end. It is kept under this name.
    Damaged(PathBuf),
}

#[derive(Debug)]
struct Appender {
    file: File,
    /// Number of lines since the snapshot.
    n_appended: usize,
    /// Number of lines in the snapshot.
    n_snapshot: usize,
}

impl Store {
    /// Reads the state in `directory` as far as it is whole, and starts a new log with it. If there is no
    /// log, the state is `inherited`.
    ///
    /// A damaged or foreign log is kept aside. A directory that cannot be written fails the next commit.
    /// Neither is an error here, since running pods must keep what the log still has of them.
    pub(crate) fn open(
        directory: StateDirectory,
        instance: &InstanceId,
        inherited: Record,
        now: Timestamp,
    ) -> Self {
        let path = directory.path();
        let loaded = match has_log(path) {
            true => load::load(path, Some(instance)),
            false => Loaded { record: inherited, damage: None },
        };
        let log = match loaded.damage {
            None => Log::Closed,
            Some(damage) => {
                let aside = path.join(format!("{ASIDE}{:020}", now.as_millis()));
                error!(
                    file = %path.join(LOG).display(),
                    kept_as = %aside.display(),
                    fault = error_chain(&damage),
                    "state file is damaged; the part before the damage is used",
                );
                Log::Damaged(aside)
            }
        };
        let (record, n_future) = clock::without_future(loaded.record, now);
        if n_future > 0 {
            warn!(
                n_future,
                now = now.to_rfc3339(),
                "the machine's clock has gone back since the record was written; times after now become now",
            );
        }
        let mut store = Self { directory, instance: instance.clone(), record, log };
        store.start();
        store
    }

    fn start(&mut self) {
        info!(
            directory = %self.directory.path().display(),
            assignments = self.record.assignments().len(),
            // With rests that are long over: they say which address comes next.
            released = self.record.cooling().len(),
            intents = self.record.intents().len(),
            enis = self.record.enis().len(),
            "state loaded",
        );
        if let Err(fault) = self.rewrite(&[]) {
            error!(fault = error_chain(&fault), "state cannot be written");
        }
    }

    /// The durable record.
    #[must_use]
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Makes `changes` durable, all or none.
    ///
    /// # Errors
    ///
    /// [`CommitError`]. The next commit may succeed.
    pub(crate) fn commit(&mut self, changes: &[Change]) -> Result<(), CommitError> {
        match std::mem::replace(&mut self.log, Log::Suspect) {
            Log::Open(appender) => self.log = Log::Open(self.append(appender, changes)?),
            other => {
                self.log = other;
                self.rewrite(changes)?;
            }
        }
        changes.iter().try_for_each(|change| self.record.apply(change)).map_err(|source| {
            self.log = Log::Suspect;
            CommitError::Contradiction { path: self.path(), source }
        })
    }

    /// Replaces the log by a snapshot, if the log has become much longer than the snapshot.
    pub(crate) fn compact(&mut self) {
        let Log::Open(Appender { n_appended, n_snapshot, .. }) = self.log else { return };
        if n_appended >= SNAPSHOT_AFTER.max(n_snapshot)
            && let Err(fault) = self.rewrite(&[])
        {
            warn!(fault = error_chain(&fault), "state log cannot be shortened");
        }
    }

    fn append(&self, mut appender: Appender, changes: &[Change]) -> Result<Appender, CommitError> {
        let path = self.path();
        let good = appender.file.metadata().map_err(io_error("read the length of", &path))?.len();
        let file = &mut appender.file;
        points::pass_all("unwritten", changes);
        let written = file.write_all(&line::lines(changes)).and_then(|()| {
            points::pass_all("written", changes);
            file.sync_data()
        });
        if let Err(source) = written {
            // Best effort: the next commit replaces the file, and a restart cuts off a torn line.
            let _ = file.set_len(good);
            return Err(CommitError::Io { step: "append to", path, source });
        }
        points::pass_all("synced", changes);
        appender.n_appended += changes.len();
        Ok(appender)
    }

    /// Writes the record and `more` to a new log, and replaces the old log by it.
    fn rewrite(&mut self, more: &[Change]) -> Result<(), CommitError> {
        let (path, unfinished) = (self.path(), self.directory.path().join(UNFINISHED));
        let changes: Vec<Change> = self.record.changes().chain(more.iter().cloned()).collect();
        let mut bytes = line::header(&self.instance);
        bytes.extend(line::lines(&changes));
        // The directory may have been deleted meanwhile.
        let directory = self.directory.path();
        own_file::make_directory(directory).map_err(io_error("make", directory))?;
        let draft = draft(&unfinished, &bytes).map_err(io_error("write", &unfinished))?;
        failpoint::pass("snapshot", "written");
        self.keep_old()?;
        failpoint::pass("snapshot", "kept");
        let file = draft.persist(&path).map_err(|fault| io_error("replace", &path)(fault.error))?;
        self.log = Log::Suspect;
        failpoint::pass("snapshot", "renamed");
        sync_directory(self.directory.path()).map_err(io_error("sync", self.directory.path()))?;
        failpoint::pass("snapshot", "synced");
        self.log = Log::Open(Appender { file, n_appended: 0, n_snapshot: changes.len() });
        Ok(())
    }

    /// Gives the log a second name before its replacement, unless its end is unknown.
    fn keep_old(&self) -> Result<(), CommitError> {
        let (path, previous) = (self.path(), self.directory.path().join(PREVIOUS));
        let keep = match &self.log {
            Log::Open(_) | Log::Closed => &previous,
            Log::Damaged(aside) => aside,
            Log::Suspect => return Ok(()),
        };
        if path.exists() {
            copy_name(&path, keep).map_err(io_error("keep", keep))?;
        }
        self.forget_oldest_aside();
        Ok(())
    }

    fn forget_oldest_aside(&self) {
        let mut asides: Vec<PathBuf> = fs::read_dir(self.directory.path())
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE))
            .map(|entry| entry.path())
            .collect();
        asides.sort();
        for oldest in asides.iter().rev().skip(MAX_ASIDE) {
            warn!(file = %oldest.display(), "removing the oldest damaged state file");
            let _ = fs::remove_file(oldest);
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(LOG)
    }
}

/// Whether `directory` has a record of ours, even a damaged one.
pub(crate) fn has_log(directory: &Path) -> bool {
    [LOG, PREVIOUS].iter().any(|name| directory.join(name).exists())
}

/// Takes the log in `directory` out of use. The caller holds the lock.
pub(crate) fn retire(directory: &Path) -> io::Result<()> {
    let (log, previous) = (directory.join(LOG), directory.join(PREVIOUS));
    let newest = if log.exists() {
        // The copy must go before the log: without a log, the daemon would read the copy.
        remove_if_there(&previous)?;
        log
    } else {
        previous
    };
    fs::rename(newest, directory.join(RETIRED))?;
    sync_directory(directory)
}

/// Writes a file that is to replace another one by its `persist`. If that never comes, the file is removed: on a full disk
/// it would keep the bytes and the inode that the socket or the next attempt needs.
pub(crate) fn draft(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    // A crash may have left this file.
    remove_if_there(path)?;
    let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path)?;
    let mut draft = NamedTempFile::from_parts(file, TempPath::try_from_path(path)?);
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    Ok(draft)
}

/// Makes `to` a second name of the file `from`, or a copy if the file system has no hard links.
fn copy_name(from: &Path, to: &Path) -> io::Result<()> {
    remove_if_there(to)?;
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)).inspect_err(|_| {
        // Half a copy is no copy. The first fault counts.
        let _ = fs::remove_file(to);
    })
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|fault| match fault.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(fault),
    })
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn io_error<'a>(
    step: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> CommitError + use<'a> {
    move |source| CommitError::Io { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
