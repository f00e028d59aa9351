//! DELs for a daemon that does not answer: files that it applies once it runs again. Their directory
//! and names are a contract, see [`proto::pending`].

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use cni::Attachment;
use proto::pending::{PendingDel, directory};

/// Leaves a DEL for the daemon at `socket`. It is on disk when this returns. A note ends an attachment,
/// so directory and file are for root alone, whatever the umask.
pub(crate) fn leave(socket: &Path, attachment: &Attachment) -> io::Result<()> {
    let pending = pending(attachment);
    let directory = directory(socket);
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    // With the pid, two invocations for one attachment do not write the same file.
    let draft = directory.join(format!("{}.{}", pending.file_name(), std::process::id()));
    // Whatever is there by that name is not opened: an earlier process's draft, a link, a FIFO.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(&serde_json::to_vec(&pending)?)?;
    file.sync_all()?;
    failpoint::pass("del", "drafted");
    fs::rename(&draft, directory.join(pending.file_name()))?;
    File::open(&directory)?.sync_all()?;
    failpoint::pass("del", "noted");
    Ok(())
}

/// Removes the file that [`leave`] made for the attachment, if there is one.
pub(crate) fn withdraw(socket: &Path, attachment: &Attachment) -> io::Result<()> {
    match fs::remove_file(directory(socket).join(pending(attachment).file_name())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn pending(attachment: &Attachment) -> PendingDel {
    PendingDel {
        network: attachment.network.as_str().to_owned(),
        container_id: attachment.container_id.as_str().to_owned(),
        ifname: attachment.ifname.as_str().to_owned(),
    }
}
