//! The record on disk: an append-only log of JSON lines, and a snapshot in its place from time to
//! time. It must not know what the changes mean, only that they lead to a [`Record`].
//!
//! ```text
//! ["5f3c9a10",{"format":"tidepool","version":3,"instance":"i-0123456789abcdef0"}]
//! ["90b1c2d3",{"assigned":{"key":{…},"assignment":{…}}}]
//! ```
//!
//! The first field of a line is the CRC-32 of the second. One commit is one `write` and one
//! `fdatasync`. A snapshot is written beside the log, made durable and renamed over it; the log
//! before it stays as [`PREVIOUS`], a log that cannot be read to its end under a name that starts
//! with [`ASIDE`], and one whose pods were handed over to another daemon as [`RETIRED`].

pub(crate) mod line;
pub(crate) mod load;
mod points;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ipam::id::InstanceId;
use ipam::record::{Change, Contradiction, Record};
use ipam::time::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::{error, info, warn};

use self::load::Loaded;
use crate::error_chain;

/// The log's name in the state directory.
pub(crate) const LOG: &str = "tidepool.jsonl";
/// The last log that was whole when a snapshot took its place.
pub(crate) const PREVIOUS: &str = "tidepool.jsonl.previous";
/// What the names of damaged logs start with; the time in ms follows.
pub(crate) const ASIDE: &str = "tidepool.jsonl.damaged-";
/// The last log that was handed over to another daemon; nothing reads it.
pub(crate) const RETIRED: &str = "tidepool.jsonl.handed-over";
/// Held locked while a daemon lives.
pub(crate) const LOCK: &str = "tidepool.lock";
/// A snapshot in the making.
const UNFINISHED: &str = "tidepool.jsonl.new";
/// How many damaged logs are kept.
const MAX_ASIDE: usize = 8;
/// Appended lines after which a snapshot is due, if it makes the log at most half as long.
const SNAPSHOT_AFTER: usize = 4096;

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Two daemons on one record would give addresses twice.
    #[error("{0} is locked: another ipamd uses this state directory")]
    InUse(PathBuf),
}

/// A commit that did not happen; the record on disk is as before.
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
    /// The changes do not follow from the record.
    #[error("record a change in {path}")]
    Contradiction {
        /// The log.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Contradiction,
    },
}

/// The log, and the record that replaying it gives.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    instance: InstanceId,
    record: Record,
    log: Log,
    _lock: Option<Lock>,
}

/// How the file of name [`LOG`] stands. All but the first must be replaced before it can grow.
#[derive(Debug)]
enum Log {
    /// Whole and open.
    Open(Appender),
    /// Whole, or not there at all.
    Closed,
    /// An append went wrong: what the file ends with is uncertain.
    Suspect,
    /// It was not readable to its end; this name shall keep it.
    Damaged(PathBuf),
}

/// Held on the state directory while this lives.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child process that was forked at this very moment.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[derive(Debug)]
struct Appender {
    file: File,
    /// Lines since the snapshot.
    n_appended: usize,
    /// Lines of the snapshot.
    n_snapshot: usize,
}

impl Store {
    /// Reads the state in `directory` as far as it is whole and starts a fresh log with it.
    ///
    /// A damaged or foreign log is kept aside, and a directory that cannot be written shows at the
    /// next commit. Neither is an error here: pods that live must keep what is known of them.
    /// Where there is no log at all, the state is `inherited`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if another daemon is at work there.
    pub(crate) fn open(
        directory: &Path,
        instance: &InstanceId,
        inherited: Record,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        if let Err(fault) = fs::create_dir_all(directory) {
            warn!(directory = %directory.display(), %fault, "state directory cannot be made");
        }
        let lock = lock(&directory.join(LOCK))?;
        let loaded = match has_log(directory) {
            true => load::load(directory, Some(instance)),
            false => Loaded { record: inherited, damage: None },
        };
        let log = match loaded.damage {
            None => Log::Closed,
            Some(damage) => {
                let aside = directory.join(format!("{ASIDE}{:020}", now.as_millis()));
                error!(
                    file = %directory.join(LOG).display(),
                    kept_as = %aside.display(),
                    fault = error_chain(&damage),
                    "state file is damaged; what was readable is used",
                );
                Log::Damaged(aside)
            }
        };
        let mut store = Self {
            directory: directory.to_owned(),
            instance: instance.clone(),
            record: loaded.record,
            log,
            _lock: lock,
        };
        store.start();
        Ok(store)
    }

    fn start(&mut self) {
        info!(
            directory = %self.directory.display(),
            assignments = self.record.assignments().len(),
            cooling = self.record.cooling().len(),
            intents = self.record.intents().len(),
            enis = self.record.enis().len(),
            "state loaded",
        );
        if let Err(fault) = self.rewrite(&[]) {
            error!(fault = error_chain(&fault), "state cannot be written");
        }
    }

    /// What is durable.
    #[must_use]
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Makes `changes` durable, all or none.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; the next commit may succeed.
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

    /// Replaces a long log by a snapshot, if it has become much longer than that.
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
        let good = appender.file.metadata().map_err(io_error("measure", &path))?.len();
        let file = &mut appender.file;
        points::pass_all("unwritten", changes);
        let written = file.write_all(&line::lines(changes)).and_then(|()| {
            points::pass_all("written", changes);
            file.sync_data()
        });
        if let Err(source) = written {
            // Best effort: the next commit replaces the file, a restart cuts a torn tail.
            let _ = file.set_len(good);
            return Err(CommitError::Io { step: "append to", path, source });
        }
        points::pass_all("synced", changes);
        appender.n_appended += changes.len();
        Ok(appender)
    }

    /// Writes the record and `more` to a new log and puts it in the place of the old one.
    fn rewrite(&mut self, more: &[Change]) -> Result<(), CommitError> {
        let (path, unfinished) = (self.path(), self.directory.join(UNFINISHED));
        let changes: Vec<Change> = self.record.changes().chain(more.iter().cloned()).collect();
        let mut bytes = line::header(&self.instance);
        bytes.extend(line::lines(&changes));
        // Gone if somebody has cleaned up; then everything in it is due again.
        fs::create_dir_all(&self.directory).map_err(io_error("make", &self.directory))?;
        let file = write_new(&unfinished, &bytes).map_err(io_error("write", &unfinished))?;
        failpoint::pass("snapshot", "written");
        self.keep_old()?;
        failpoint::pass("snapshot", "kept");
        fs::rename(&unfinished, &path).map_err(io_error("replace", &path))?;
        self.log = Log::Suspect;
        failpoint::pass("snapshot", "renamed");
        sync_directory(&self.directory).map_err(io_error("sync", &self.directory))?;
        failpoint::pass("snapshot", "synced");
        self.log = Log::Open(Appender { file, n_appended: 0, n_snapshot: changes.len() });
        Ok(())
    }

    /// Gives the log that is about to be replaced a second name, if it is worth keeping.
    fn keep_old(&self) -> Result<(), CommitError> {
        let (path, previous) = (self.path(), self.directory.join(PREVIOUS));
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
        let mut asides: Vec<PathBuf> = fs::read_dir(&self.directory)
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
        self.directory.join(LOG)
    }
}

/// Whether a record of ours is in `directory`, be it a damaged one.
pub(crate) fn has_log(directory: &Path) -> bool {
    [LOG, PREVIOUS].iter().any(|name| directory.join(name).exists())
}

/// Takes the log in `directory` out of use; the lock must be held.
pub(crate) fn retire(directory: &Path) -> io::Result<()> {
    let (log, previous) = (directory.join(LOG), directory.join(PREVIOUS));
    let newest = if log.exists() {
        // Before the log goes, for without it the copy would count.
        remove_if_there(&previous)?;
        log
    } else {
        previous
    };
    fs::rename(newest, directory.join(RETIRED))?;
    sync_directory(directory)
}

/// `None` where no lock can be made, as on a read-only file system.
pub(crate) fn lock(path: &Path) -> Result<Option<Lock>, OpenError> {
    let file = match File::create(path) {
        Ok(file) => file,
        Err(fault) => {
            warn!(file = %path.display(), %fault, "state cannot be locked against a second daemon");
            return Ok(None);
        }
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(Errno::WOULDBLOCK) => Err(OpenError::InUse(path.to_owned())),
        Err(fault) => {
            warn!(file = %path.display(), %fault, "state cannot be locked against a second daemon");
            Ok(None)
        }
    }
}

pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    remove_if_there(path)?;
    let mut file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}

/// Makes `to` name what `from` names; by copying where the file system has no hard links.
fn copy_name(from: &Path, to: &Path) -> io::Result<()> {
    remove_if_there(to)?;
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
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
