//! Files beside the daemon's socket, which it reads.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
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
    let replace = || {
        file.write_all(content)?;
        file.sync_all()?;
        drafted();
        fs::rename(&draft, directory.join(name))
    };
    replace().inspect_err(|_| {
        // On a full disk it would keep bytes that the next note needs. The first fault counts.
        let _ = remove(&draft);
    })?;
    File::open(directory)?.sync_all()
}

/// Bytes of a note. The longest are those of host ports, with some 80 for each.
const LARGEST: u64 = 1 << 20;

/// Removes a note, and returns what it said: nothing if it could not be read. `None` if there was none.
pub(crate) fn take(path: &Path) -> io::Result<Option<String>> {
    let said = read(path).unwrap_or_default();
    Ok(remove(path)?.then_some(said))
}

/// Whatever else has the name of a note is not opened: nobody might ever write to a FIFO.
fn read(path: &Path) -> io::Result<String> {
    let mut said = String::new();
    if fs::symlink_metadata(path)?.is_file() {
        File::open(path)?.take(LARGEST).read_to_string(&mut said)?;
    }
    Ok(said)
}

/// Removes a note. Returns whether there was one.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
