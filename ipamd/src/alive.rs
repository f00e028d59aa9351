//! `ipamd alive`: whether the daemon of this container must be restarted, as an exit code for liveness probes.

use command_line::{Exit, Failure};

use crate::asking::{self, Listener};

/// A daemon that listens must answer. One that does not listen waits for the metadata service, for EC2, or for
/// another daemon to end: a restart would only make it wait from the start.
///
/// # Errors
///
/// [`Exit::NoAnswer`] if this container's daemon listens and does not answer in time.
pub(crate) fn run() -> Result<(), Failure> {
    let socket = asking::path(None)?;
    match asking::listener(&socket)? {
        Some(Listener::Here) => match asking::ready(&socket) {
            Ok(_ready_or_not) => Ok(()),
            // It may have ended meanwhile; then the kubelet knows.
            Err(_) if asking::listener(&socket)? != Some(Listener::Here) => Ok(()),
            Err(failure) => Err(Failure::new(Exit::NoAnswer, failure.to_string())),
        },
        Some(Listener::Elsewhere) | None => Ok(()),
    }
}
