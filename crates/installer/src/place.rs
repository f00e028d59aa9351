//! Puts a file into a directory that other programs read at any moment.
//!
//! The new file is written beside the old one and renamed, so nobody reads half of it, and a plugin that runs keeps
//! its own. The temporary file is in the same directory: containerd does not notice a file that is renamed from
//! another directory, as it watches for writes and not for new names. The directory is locked meanwhile. The kernel gives
//! up the lock of a process that is killed, and the next one removes what that process has left.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

/// What [`put`] has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// The file was as wanted.
    Unchanged,
    /// There was no file of this name.
    Added,
    /// Another file had the name.
    Replaced,
}

/// What [`remove`] has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// There was no file of this name.
    Absent,
    /// The file is gone.
    Gone,
}

/// A file could not be put into its directory, read there or removed. What was there before still is.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}", path.display())]
pub struct PlaceError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// No file that is installed is larger, in bytes.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Makes the file `name` of `directory` have these bytes and this mode, and belong to the caller. The file is on disk
/// when this returns. Directories that are missing are made.
///
/// # Errors
///
/// [`PlaceError`] names the step: the directory is read-only or full, or a directory has the file's name.
pub fn put(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<Placed, PlaceError> {
    fs::create_dir_all(directory).map_err(fault("make directory", directory))?;
    let locked = lock(directory)?;
    let path = directory.join(name);
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => Some(found),
        Err(source) if source.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(fault("examine", &path)(source)),
    };
    let unfinished = directory.join(format!(".{name}.new"));
    discard(&unfinished).map_err(fault("remove", &unfinished))?;
    if found.as_ref().is_some_and(|found| is_as_wanted(&path, found, bytes, mode)) {
        return Ok(Placed::Unchanged);
    }
    let written = write(&unfinished, bytes, mode)
        .map_err(fault("write", &unfinished))
        .and_then(|()| fs::rename(&unfinished, &path).map_err(fault("rename a file to", &path)));
    if let Err(error) = written {
        // A full disk gets its space back. If this fails too, the next attempt removes the file.
        let _ = discard(&unfinished);
        return Err(error);
    }
    locked.sync_all().map_err(fault("write the directory", directory))?;
    Ok(if found.is_some() { Placed::Replaced } else { Placed::Added })
}

/// Removes the file `name` of `directory`, and what a killed process may have left of it.
///
/// # Errors
///
/// [`PlaceError`] names the step.
pub fn remove(directory: &Path, name: &str) -> Result<Removed, PlaceError> {
    let path = directory.join(name);
    if !directory.exists() {
        return Ok(Removed::Absent);
    }
    let locked = lock(directory)?;
    let unfinished = directory.join(format!(".{name}.new"));
    discard(&unfinished).map_err(fault("remove", &unfinished))?;
    let removed = discard(&path).map_err(fault("remove", &path))?;
    locked.sync_all().map_err(fault("write the directory", directory))?;
    Ok(removed)
}

/// Makes `name` another name of the file `target` of `directory`, unless something has that name already.
///
/// # Errors
///
/// [`PlaceError`] if the directory takes no new name.
pub fn alias(directory: &Path, name: &str, target: &str) -> Result<Placed, PlaceError> {
    let path = directory.join(name);
    match symlink(target, &path) {
        Ok(()) => Ok(Placed::Added),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(Placed::Unchanged),
        Err(source) => Err(fault("make link", &path)(source)),
    }
}

/// Removes `name` from `directory` if it is another name of `target`.
///
/// # Errors
///
/// [`PlaceError`] if it stays.
pub fn remove_alias(directory: &Path, name: &str, target: &str) -> Result<Removed, PlaceError> {
    let path = directory.join(name);
    match fs::read_link(&path) {
        Ok(found) if found == Path::new(target) => discard(&path).map_err(fault("remove", &path)),
        // No link, another one, or nothing.
        Ok(_) | Err(_) => Ok(Removed::Absent),
    }
}

/// The content of the file at `path`; `None` if there is no such file.
///
/// # Errors
///
/// [`PlaceError`] if it cannot be read, is no regular file, or is larger than 64 MiB.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, PlaceError> {
    // Without this flag a FIFO that nobody writes to is never opened.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let result = opened.and_then(|file| match file.metadata()?.is_file() {
        true => bounded(file, LARGEST),
        false => Err(io::ErrorKind::InvalidInput.into()),
    });
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(fault("read", path)(source)),
    }
}

fn bounded(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let n_read = file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match u64::try_from(n_read) {
        Ok(n_read) if n_read <= most => Ok(bytes),
        Ok(_) | Err(_) => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// The directory, held against others that install. It is given up when the file is dropped.
fn lock(directory: &Path) -> Result<File, PlaceError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags, Mode::empty()).map(File::from);
    let opened = opened.map_err(io::Error::from).map_err(fault("open directory", directory))?;
    let locked = rustix::fs::flock(&opened, FlockOperation::LockExclusive);
    locked.map_err(io::Error::from).map_err(fault("lock directory", directory))?;
    Ok(opened)
}

fn is_as_wanted(path: &Path, found: &Metadata, bytes: &[u8], mode: u32) -> bool {
    let is_ours = found.is_file()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o7777 == mode
        && usize::try_from(found.len()) == Ok(bytes.len());
    // A file that cannot be read is replaced.
    is_ours && matches!(read(path), Ok(Some(content)) if content == bytes)
}

/// Writes a new file to the disk.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    // The process may have a umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

fn discard(path: &Path) -> io::Result<Removed> {
    let removed = fs::remove_file(path);
    // A read-only file system refuses to remove what is not there, too.
    match (removed, fs::symlink_metadata(path)) {
        (Ok(()), _) => Ok(Removed::Gone),
        (Err(_), Err(gone)) if gone.kind() == io::ErrorKind::NotFound => Ok(Removed::Absent),
        (Err(source), _) => Err(source),
    }
}

fn fault<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PlaceError + use<'a> {
    move |source| PlaceError { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
