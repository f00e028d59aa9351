//! DELs for a daemon that does not answer: files that it applies once it runs again. Their directory
//! and names are a contract, see [`proto::pending`].

use std::io;
use std::path::Path;

use cni::Attachment;
use proto::pending::{PendingDel, directory};

use crate::note;

/// Leaves a DEL for the daemon at `socket`. It is on disk when this returns.
pub(crate) fn leave(socket: &Path, attachment: &Attachment) -> io::Result<()> {
    let pending = pending(attachment);
    let content = serde_json::to_vec(&pending)?;
    let drafted = || failpoint::pass("del", "drafted");
    note::write(&directory(socket), &pending.file_name(), &content, drafted)?;
    failpoint::pass("del", "noted");
    Ok(())
}

/// Removes the file that [`leave`] made for the attachment, if there is one.
pub(crate) fn withdraw(socket: &Path, attachment: &Attachment) -> io::Result<()> {
    note::remove(&directory(socket).join(pending(attachment).file_name())).map(drop)
}

fn pending(attachment: &Attachment) -> PendingDel {
    PendingDel {
        network: attachment.network.as_str().to_owned(),
        container_id: attachment.container_id.as_str().to_owned(),
        ifname: attachment.ifname.as_str().to_owned(),
    }
}
