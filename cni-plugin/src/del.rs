//! DEL: tells the daemon, or leaves the DEL on disk for it, and removes the pod's link.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cni::{Attachment, CniError, Del, ErrorCode};
use datapath::pod::{Goes, PodRemoval, Rank};
use proto::v1;
use tokio::time::Instant;

use crate::daemon::{Daemon, DaemonError};
use crate::failure::Failure;
use crate::pod::{Identity, rank};
use crate::{pending, ports, socket};

/// How long a DEL waits for the daemon before it goes on without.
const PATIENCE: Duration = Duration::from_secs(5);

/// Disconnects the pod. Needs neither the daemon nor the pod's namespace, and may be repeated.
///
/// # Errors
///
/// 1. Code 11 if the daemon rejects the call.
/// 2. Code 5 if the daemon does not answer and the DEL cannot be left on disk either.
/// 3. [`Failure::LinkRemoval`] if some of the link is left.
///
/// Every other step was done.
pub(crate) async fn del(del: &Del) -> Result<(), CniError> {
    let mut identity = Identity::of(&del.conf.veth_prefix, &del.attachment, &del.pod)?;
    if let Some(result) = &del.prev_result {
        identity = identity.recorded_in(result, del.attachment.ifname.as_str());
    }
    failpoint::pass("del", "begun");
    let released = release(del).await;
    failpoint::pass("del", "answered");
    let addresses = match &released {
        Ok(reply) if !reply.released.is_empty() => parsed(&reply.released),
        Ok(_) | Err(_) => recorded(del),
    };
    let netns = match rank(del.attachment.ifname.as_str()) {
        Rank::First => None,
        Rank::Further => del.netns.clone(),
    };
    let goes = goes(del, &released);
    // First, so that no port leads to the next pod with the address.
    let closed = ports::close(&del.conf, &identity.owner);
    let removal = PodRemoval { netns, goes, ..identity.removal(addresses) };
    let removed = datapath::pod::del(&removal).await;
    failpoint::pass("del", "unlinked");
    match &released {
        Err(error) if error.is_rejection() => return Err(error.try_again()),
        Err(error) => remember(socket(&del.conf), &del.attachment, error)?,
        Ok(reply) if reply.unrecorded.is_empty() => {}
        Ok(reply) => keep_too(socket(&del.conf), &del.attachment, &reply.unrecorded),
    }
    let removed = removed.map_err(|error| Failure::LinkRemoval.error(error.to_string()))?;
    closed.map_err(|left| Failure::LinkRemoval.error(left))?;
    tracing::info!(link = ?removed.link, addresses = ?removed.addresses, "pod disconnected");
    Ok(())
}

/// A further interface goes at once, since its namespace goes on. A first one goes with its namespace,
/// mostly before the daemon removes it.
fn goes(del: &Del, released: &Result<v1::DelReply, DaemonError>) -> Goes {
    match (rank(del.attachment.ifname.as_str()), released) {
        (Rank::First, Ok(reply)) if reply.removes_links => Goes::Later,
        (Rank::First | Rank::Further, Ok(_) | Err(_)) => Goes::Now,
    }
}

async fn release(del: &Del) -> Result<v1::DelReply, DaemonError> {
    let until = Instant::now() + PATIENCE.min(del.conf.ipamd_timeout);
    let mut daemon = Daemon::connect(socket(&del.conf), until).await?;
    daemon.del(&del.attachment, &del.pod, until).await
}

/// Leaves the DEL on disk for a daemon that did not answer.
///
/// # Errors
///
/// Code 5 if it cannot be written.
pub(crate) fn remember(
    socket: &Path,
    attachment: &Attachment,
    why: &DaemonError,
) -> Result<(), CniError> {
    tracing::warn!(why = crate::failure::error_chain(why), "DEL left on disk for ipamd");
    pending::leave(socket, attachment).map_err(|error| {
        let details = format!("{error}; and {}", crate::failure::error_chain(why));
        CniError::new(ErrorCode::Io, "cannot leave the DEL on disk for ipamd", details)
    })
}

/// Leaves the DEL on disk for the next daemon. The running one remembers it, but could not record it.
/// A fault here is logged: then only the running daemon remembers it.
fn keep_too(socket: &Path, attachment: &Attachment, why: &str) {
    match pending::leave(socket, attachment) {
        Ok(()) => tracing::warn!(why, "DEL left on disk for ipamd"),
        Err(error) => tracing::warn!(why, %error, "only the running ipamd remembers the DEL"),
    }
}

/// The addresses of an answer. A malformed one is left out, since no link can have it.
pub(crate) fn parsed(released: &[v1::PodAddress]) -> Vec<IpAddr> {
    released.iter().filter_map(|released| released.address.parse().ok()).collect()
}

fn recorded(del: &Del) -> Vec<IpAddr> {
    let ifname = del.attachment.ifname.as_str();
    del.prev_result.iter().flat_map(|result| result.addresses_of(ifname)).collect()
}
