//! A log file that takes no more than its share of the disk. A full file becomes `NAME.1`, the one
//! before becomes `NAME.2`, and so on; the oldest goes.
//!
//! Several processes may write to one log, as invocations of the plugin do. It knows nothing of what
//! the lines say.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// The mode of a log. Log lines name pods and addresses, which not everybody on the node has to know.
const MODE: u32 = 0o640;

/// How much of the disk a log may take: about `file_bytes` × (`n_old` + 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes at which a file is full. A longer line gets a file of its own, since no line is cut in two.
    pub file_bytes: u64,
    /// How many full files to keep; at least 1.
    pub n_old: u32,
}

/// A log that is open for writing.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    bounds: Bounds,
    /// Bytes: more than the bound only after a rotation that failed.
    full_at: u64,
}

impl LogFile {
    /// Opens or makes the file at `path` (mode 0640), and the directories above it (mode 0755).
    ///
    /// # Errors
    ///
    /// Those of the file system, and if the file is a FIFO that nobody reads: it would make the caller wait.
    pub fn open(path: &Path, bounds: Bounds) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        let file = append_to(path)?;
        Ok(Self { path: path.to_owned(), file, bounds, full_at: bounds.file_bytes })
    }

    /// Begins a new file. If that fails, the old one takes as much again before the next attempt.
    fn rotate(&mut self, full: &Metadata) {
        // Whoever has the lock is rotating this very file: the line still goes into it.
        if self.file.try_lock().is_err() {
            return;
        }
        // Another process may have rotated the file before this one got the lock.
        let is_current = fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (full.dev(), full.ino()));
        let shifted = if is_current { self.shift() } else { Ok(()) };
        match shifted.and_then(|()| append_to(&self.path)) {
            Ok(file) => {
                // Closing the old file gives up its lock.
                self.file = file;
                self.full_at = self.bounds.file_bytes;
            }
            Err(_) => {
                self.full_at = full.len().saturating_add(self.bounds.file_bytes);
                // It ends with the process at the latest.
                let _ = self.file.unlock();
            }
        }
    }

    fn shift(&self) -> io::Result<()> {
        for number in (1..self.bounds.n_old).rev() {
            // There may be fewer.
            let _ = fs::rename(self.old(number), self.old(number + 1));
        }
        fs::rename(&self.path, self.old(1))
    }

    fn old(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Lines stay whole if each comes with one call, as `tracing_subscriber` does it.
impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let n_bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        // The length is read anew, since other processes write too.
        let full = self.file.metadata().ok().filter(|metadata| {
            metadata.len() > 0 && metadata.len().saturating_add(n_bytes) > self.full_at
        });
        if let Some(metadata) = full {
            self.rotate(&metadata);
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    // With this flag, neither a FIFO nor a terminal makes the caller wait.
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(MODE))?);
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o7777;
    if metadata.is_file() && mode & !MODE != 0 {
        // An earlier build has left it open to others. Only the owner can change that.
        let _ = file.set_permissions(Permissions::from_mode(mode & MODE));
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
