//! The lock on the state directory. The daemon that holds it is the only one that uses the directory.
//!
//! The kernel gives a lock to whoever can open the file, so only root can. The lock ends with its process,
//! however that ends.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

use super::holder::Account;
use crate::own_file;
use crate::socket;

/// The lock file's name in the state directory.
pub(crate) const LOCK: &str = "tidepool.lock";
/// The kernel's list of locks, with the process of each. Source: proc(5).
const LOCKS: &str = "/proc/locks";
/// Bytes of that list, to which every account of the node can add. A node has some hundred locks of 60 bytes each.
const LONGEST_LIST: u64 = 16 << 20;
/// Bytes of a process's name; the kernel's own bound is 16.
const LONGEST_NAME: u64 = 64;

/// Another process holds the lock.
#[derive(Debug, thiserror::Error)]
#[error("{} is locked: another ipamd uses this state directory: {holder}", .path.display())]
pub(crate) struct InUse {
    path: PathBuf,
    holder: String,
}

/// The state directory, for this process alone.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    /// `None` if the file system allows no lock.
    _lock: Option<Lock>,
}

impl StateDirectory {
    /// Takes the directory at `path`, which need not exist. While another daemon has it, this waits, without
    /// a limit. The kernel wakes it as soon as that daemon has ended. Meanwhile `ipamd ready` finds this daemon beside
    /// `socket`. `pod` is this daemon's pod, by which the next one that waits names it.
    ///
    /// A directory that cannot be locked, for instance on a read-only disk, is used without a lock.
    ///
    /// # Errors
    ///
    /// If the system starts no thread to wait in.
    pub async fn take(path: &Path, socket: &Path, pod: Option<&str>) -> anyhow::Result<Self> {
        let (sender, taken) = oneshot::channel();
        let (directory, waits) = (path.to_owned(), Arc::new(Notify::new()));
        let waiting = Arc::clone(&waits);
        // Not one of the runtime's threads, since a runtime waits for them at its end.
        std::thread::Builder::new()
            .name("state-lock".to_owned())
            .spawn(move || {
                let lock = prepare(&directory);
                let lock = acquire(&lock, Held::Wait(&waits)).unwrap_or_else(|_held| None);
                // If the daemon ends meanwhile, the lock ends here.
                let _ = sender.send(Self { path: directory, _lock: lock });
            })
            .context("start the thread that locks the state directory")?;
        let stand_by = async {
            waiting.notified().await;
            socket::stand_by(socket).await
        };
        let taken = tokio::select! {
            taken = taken => taken,
            never = stand_by => match never {},
        };
        let taken =
            taken.map_err(|_| anyhow!("the thread that locks the state directory has panicked"))?;
        Account::of_this_process(pod).write(path);
        Ok(taken)
    }

    /// Takes the directory at `path` if no other daemon uses it.
    ///
    /// # Errors
    ///
    /// [`InUse`] names the process that uses it.
    pub(crate) fn try_take(path: &Path) -> Result<Self, InUse> {
        let lock = acquire(&prepare(path), Held::Refuse)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no other daemon can use the directory.
    pub(crate) fn is_locked(&self) -> bool {
        self._lock.is_some()
    }
}

/// An open file with a lock. Dropping this value releases the lock.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that was just forked would keep the lock.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// What to do while another process holds the lock.
#[derive(Debug, Clone, Copy)]
enum Held<'a> {
    /// The other side hears when the wait begins.
    Wait(&'a Notify),
    Refuse,
}

/// Makes the directory, and returns the path of its lock file.
fn prepare(directory: &Path) -> PathBuf {
    if let Err(fault) = own_file::make_directory(directory) {
        warn!(directory = %directory.display(), %fault, "state directory cannot be created");
    }
    directory.join(LOCK)
}

/// The lock, or `None` if it cannot be taken, for instance on a read-only file system.
fn acquire(path: &Path, held: Held<'_>) -> Result<Option<Lock>, InUse> {
    loop {
        match try_acquire(path, held) {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Ok(None) => {}
            Err(AcquireError::InUse(in_use)) => return Err(in_use),
            Err(AcquireError::Io(fault)) => {
                warn!(file = %path.display(), %fault, "state cannot be locked against a second daemon");
                return Ok(None);
            }
        }
    }
}

enum AcquireError {
    InUse(InUse),
    Io(io::Error),
}

impl From<io::Error> for AcquireError {
    fn from(fault: io::Error) -> Self {
        Self::Io(fault)
    }
}

impl From<Errno> for AcquireError {
    fn from(fault: Errno) -> Self {
        Self::Io(fault.into())
    }
}

/// The lock; `None` if the file was replaced meanwhile, so that its lock is worth nothing.
fn try_acquire(path: &Path, held: Held<'_>) -> Result<Option<Lock>, AcquireError> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            if !wait(path, &file, held)? {
                return Ok(None);
            }
        }
        result => result?,
    }
    let lock = Lock(file);
    if !own_file::is_at(path, &metadata) {
        return Ok(None);
    }
    if metadata.mode() & 0o077 != 0 {
        // Others may have opened the file, and could lock it at the next start. They cannot open a new one.
        // Only who holds the lock removes the file.
        warn!(file = %path.display(), "lock file was open to other users; it is replaced");
        fs::remove_file(path)?;
        return Ok(None);
    }
    Ok(Some(lock))
}

/// Opens the lock file, or makes it. What has its name but is not the daemon's own file is removed.
fn open(path: &Path) -> Result<File, AcquireError> {
    let is_own = |metadata: &Metadata| metadata.is_file() && own_file::is_ours(metadata);
    let flags = OFlags::RDWR | OFlags::CREATE;
    match own_file::open(path, flags) {
        Ok(file) if is_own(&file.metadata()?) => return Ok(file),
        Ok(_) => {}
        // A lock needs no right to write.
        Err(Errno::ROFS) => return Ok(own_file::open(path, OFlags::RDONLY)?),
        Err(Errno::LOOP | Errno::NXIO) => {}
        Err(fault) => return Err(fault.into()),
    }
    // Another daemon may have replaced it meanwhile.
    if !is_own(&fs::symlink_metadata(path)?) {
        warn!(file = %path.display(), "lock file is not the daemon's own; it is replaced");
        fs::remove_file(path)?;
    }
    Ok(own_file::open(path, flags)?)
}

/// Waits for the lock of `file`, and returns whether this process has it. A holder of another user is no daemon,
/// so the file is removed under it.
fn wait(path: &Path, file: &File, held: Held<'_>) -> Result<bool, AcquireError> {
    let holder = Holder::of(file);
    if let Some(Holder { uid: Some(uid), .. }) = &holder
        && *uid != rustix::process::geteuid().as_raw()
    {
        let holder = describe(holder, path);
        warn!(file = %path.display(), holder, "another user holds the lock; its file is replaced");
        if own_file::is_at(path, &file.metadata()?) {
            fs::remove_file(path)?;
        }
        return Ok(false);
    }
    let holder = describe(holder, path);
    match held {
        Held::Refuse => {
            return Err(AcquireError::InUse(InUse { path: path.to_owned(), holder }));
        }
        Held::Wait(waits) => waits.notify_one(),
    }
    info!(file = %path.display(), holder, "another ipamd is running; this one takes over when it ends");
    loop {
        match flock(file, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                info!(file = %path.display(), "the other ipamd has ended; this one takes over");
                return Ok(true);
            }
        }
    }
}

/// A process that holds a lock.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    /// `None` if the process has just ended.
    uid: Option<u32>,
    name: String,
}

impl Holder {
    /// `None` if the holder is outside this PID namespace, or there is none any more.
    fn of(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let locks = own_file::read(Path::new(LOCKS), LONGEST_LIST).ok()?;
        let locks = String::from_utf8_lossy(&locks);
        let pid = pid_of_holder(&locks, metadata.dev(), metadata.ino())?;
        let process = PathBuf::from(format!("/proc/{pid}"));
        let name = name_of(&process).unwrap_or_default();
        let uid = fs::metadata(process).ok().map(|process| process.uid());
        Some(Self { pid, uid, name: name.trim_end().to_owned() })
    }
}

fn name_of(process: &Path) -> io::Result<String> {
    let mut name = String::new();
    File::open(process.join("comm"))?.take(LONGEST_NAME).read_to_string(&mut name)?;
    Ok(name)
}

/// The holder as the kernel shows it. It does not show a process of another PID namespace, so then the holder's own
/// account has to do.
fn describe(holder: Option<Holder>, lock: &Path) -> String {
    match (holder, lock.parent().and_then(Account::read)) {
        (Some(Holder { pid, uid: Some(uid), name }), _) => {
            format!("pid {pid} ({name:?}, uid {uid})")
        }
        (Some(Holder { pid, uid: None, .. }), _) => format!("pid {pid}"),
        (None, Some(account)) => {
            format!("a process in another container, by its own account {account}")
        }
        (None, None) => "a process in another container".to_owned(),
    }
}

/// The process that holds the lock of a file, by the text of [`LOCKS`]. A line reads
/// `1: FLOCK  ADVISORY  WRITE 6128 00:19:1234 0 EOF`: pid, then device in hexadecimal digits and inode.
fn pid_of_holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        // A process that waits has `->` in this place.
        if words.next() != Some("FLOCK") {
            return None;
        }
        let pid = words.nth(2)?;
        (words.next() == Some(&file)).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests;
