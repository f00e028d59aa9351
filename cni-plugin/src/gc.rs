//! GC: what the runtime does not list goes, as by a DEL each.

use cni::{CniError, Gc};
use proto::v1;
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::pod::Identity;
use crate::{del, socket};

/// Lets the daemon collect, and takes the links of what it collected down.
///
/// # Errors
///
/// Code 11 if the daemon does not answer; [`Failure::LinkRemoval`] with everything that failed, after
/// all else was done.
pub(crate) async fn gc(gc: &Gc) -> Result<(), CniError> {
    let until = Instant::now() + gc.conf.ipamd_timeout;
    let daemon = Daemon::connect(socket(&gc.conf), until).await;
    let mut daemon = daemon.map_err(|e| e.try_again())?;
    let collected = daemon.gc(gc.conf.name.as_str(), valid(gc), until).await;
    failpoint::pass("gc", "collected");
    let mut failures = Vec::new();
    for collected in collected.map_err(|e| e.try_again())? {
        match take_down(gc, &collected).await {
            Ok(()) => tracing::info!(attachment = ?collected.attachment, "attachment collected"),
            Err(failure) => failures.push(failure),
        }
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

async fn take_down(gc: &Gc, collected: &v1::Collected) -> Result<(), String> {
    let identity = Identity::of_collected(&gc.conf.veth_prefix, collected);
    let addresses = del::parsed(&collected.released);
    let removal = identity.map_err(|e| e.to_string())?.removal(addresses);
    datapath::pod::del(&removal).await.map(|_| ()).map_err(|e| e.to_string())
}
