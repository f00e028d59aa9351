//! GC: removes what the runtime does not list, as a DEL for each would.

use cni::{CniError, Gc};
use datapath::pod::{Goes, PodRemoval};
use proto::v1;
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::failure::{Failure, error_chain};
use crate::pod::Identity;
use crate::{del, ports, socket};

/// Lets the daemon release the attachments that are not listed, and removes their links, all together.
///
/// # Errors
///
/// Code 11 if the daemon does not answer. [`Failure::LinkRemoval`] with every removal that failed; the
/// others were done.
pub(crate) async fn gc(gc: &Gc) -> Result<(), CniError> {
    let until = Instant::now() + gc.conf.ipamd_timeout;
    let daemon = Daemon::connect(socket(&gc.conf), until).await;
    let mut daemon = daemon.map_err(|e| e.try_again())?;
    let collected = daemon.gc(gc.conf.name.as_str(), valid(gc), until).await;
    failpoint::pass("gc", "collected");
    let mut failures = Vec::new();
    for collected in collected.map_err(|e| e.try_again())? {
        match remove_link(gc, &collected).await {
            Ok(()) => tracing::info!(attachment = ?collected.attachment, "attachment collected"),
            Err(failure) => failures.push(failure),
        }
    }
    if let Err(error) = datapath::retired::sweep().await {
        failures.push(error_chain(&error));
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::LinkRemoval.error(failures.join("; "))) }
}

fn valid(gc: &Gc) -> Vec<v1::Attachment> {
    let wire = |valid: &cni::ValidAttachment| v1::Attachment {
        network: gc.conf.name.as_str().to_owned(),
        container_id: valid.container_id.clone(),
        ifname: valid.ifname.clone(),
    };
    gc.valid.iter().map(wire).collect()
}

async fn remove_link(gc: &Gc, collected: &v1::Collected) -> Result<(), String> {
    let identity = Identity::of_collected(&gc.conf.veth_prefix, collected);
    let identity = identity.map_err(|e| e.to_string())?;
    let closed = ports::close(&gc.conf, &identity.owner);
    let removal = identity.removal(del::parsed(&collected.released));
    let removal = PodRemoval { goes: Goes::Later, ..removal };
    let removed = datapath::pod::del(&removal).await.map_err(|e| e.to_string());
    let left: Vec<_> = [closed.err(), removed.err()].into_iter().flatten().collect();
    if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
}
