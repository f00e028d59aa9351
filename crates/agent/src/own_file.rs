//! Files and directories of the daemon itself. No other user can have written what is read here, and no file
//! can make the daemon wait or take its memory. This module must not know what the files mean.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The bits of a mode that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// Only its owner removes a file from such a directory, as in `/tmp`.
const STICKY: u32 = 0o1000;

/// Why a file is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// A FIFO, a device, a directory or a symbolic link.
    #[error("it is not a regular file")]
    NotAFile,
    /// Another user can change it.
    #[error("it belongs to uid {0}, so it is not the daemon's")]
    Owner(u32),
    /// Another user may have changed it.
    #[error("others than its owner may write to it (mode {0:04o})")]
    Mode(u32),
    /// No file of the daemon is so large.
    #[error("it has more than {0} bytes")]
    Size(u64),
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file system fails.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file may not be used.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl ReadError {
    /// Whether there is no such file.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io(fault) if fault.kind() == io::ErrorKind::NotFound)
    }
}

/// The content of the file at `path`, of at most `largest` bytes.
///
/// # Errors
///
/// [`ReadError`]. A symbolic link is not followed.
pub(crate) fn read(path: &Path, largest: u64) -> Result<Vec<u8>, ReadError> {
    let file = match open(path, OFlags::RDONLY) {
        Err(Errno::LOOP) => return Err(Refused::NotAFile.into()),
        result => result.map_err(io::Error::from)?,
    };
    check(&file.metadata()?)?;
    let mut bytes = Vec::new();
    // The length in the metadata may be outdated.
    let n_read = file.take(largest.saturating_add(1)).read_to_end(&mut bytes)?;
    match u64::try_from(n_read) {
        Ok(n_read) if n_read <= largest => Ok(bytes),
        Ok(_) | Err(_) => Err(Refused::Size(largest).into()),
    }
}

/// Opens `path` without waiting for a FIFO's other end, and not through a symbolic link. A new file has
/// mode 0600 from the first moment.
pub(crate) fn open(path: &Path, flags: OFlags) -> Result<File, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Whether a file with this `metadata` is the daemon's own.
///
/// # Errors
///
/// [`Refused`] says why not.
pub(crate) fn check(metadata: &Metadata) -> Result<(), Refused> {
    if !metadata.is_file() {
        return Err(Refused::NotAFile);
    }
    match (is_ours(metadata), metadata.mode() & 0o7777) {
        (false, _) => Err(Refused::Owner(metadata.uid())),
        (true, mode) if mode & OTHERS_WRITE != 0 => Err(Refused::Mode(mode)),
        (true, _) => Ok(()),
    }
}

/// Whether the daemon's user owns the file.
pub(crate) fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Makes `path` and the directories above it that are missing, with mode 0755, and secures `path`.
///
/// # Errors
///
/// If one of them cannot be made.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    secure_directory(path);
    Ok(())
}

/// Makes the directory at `path` the daemon's own, which nobody else can write to. A sticky one stays as it
/// is, since others share it. Has no effect if there is no directory.
pub(crate) fn secure_directory(path: &Path) {
    let secured = File::open(path).and_then(|directory| {
        let metadata = directory.metadata()?;
        let mode = metadata.mode() & 0o7777;
        if !metadata.is_dir() || mode & STICKY != 0 {
            return Ok(());
        }
        if !is_ours(&metadata) {
            warn_of(path, "directory belongs to another user; it is taken over");
            fchown(&directory, Some(rustix::process::geteuid().as_raw()), None)?;
        }
        if mode & OTHERS_WRITE != 0 {
            warn_of(path, "directory is writable by other users; its mode is set right");
            directory.set_permissions(Permissions::from_mode(mode & !OTHERS_WRITE))?;
        }
        Ok(())
    });
    match secured {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(directory = %path.display(), %fault, "directory cannot be secured");
        }
        Ok(()) | Err(_) => {}
    }
}

fn warn_of(path: &Path, what: &str) {
    tracing::warn!(directory = %path.display(), "{what}");
}

/// Whether `path` still names the file with this `metadata`.
pub(crate) fn is_at(path: &Path, metadata: &Metadata) -> bool {
    let id = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    fs::symlink_metadata(path).is_ok_and(|there| id(&there) == id(metadata))
}

#[cfg(test)]
mod tests;
