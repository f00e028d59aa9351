//! Files beside the daemon's socket, which it reads.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Writes the file `name`, which is on disk when this returns. `drafted` runs when only its last name is missing. What a
/// note says is believed, so directory and file are for root alone, whatever the umask.
pub(crate) fn write(
    directory: &Path,
    name: &str,
    content: &[u8],
    drafted: impl FnOnce(),
) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // With the pid, two invocations for one attachment do not write the same file.
    let draft = directory.join(format!("{name}.{}", std::process::id()));
    // Whatever is there by that name is not opened: an earlier process's draft, a link, a FIFO.
    remove(&draft)?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    drafted();
    fs::rename(&draft, directory.join(name))?;
    File::open(directory)?.sync_all()
}

/// Removes a note. Returns whether there was one.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
