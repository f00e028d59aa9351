//! DELs for a daemon that does not answer: files that it applies once it runs again. Their directory
//! and names are a contract, see [`proto::pending`].

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use cni::Attachment;
use proto::pending::{PendingDel, directory};

/// Leaves a DEL for the daemon at `socket`. It is on disk when this returns.
pub(crate) fn leave(socket: &Path, attachment: &Attachment) -> io::Result<()> {
    let pending = pending(attachment);
    let directory = directory(socket);
    fs::create_dir_all(&directory)?;
    // With the pid, two invocations for one attachment do not write the same file.
    let draft = directory.join(format!("{}.{}", pending.file_name(), std::process::id()));
    let mut file = File::create(&draft)?;
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
