//! `ipamd ready`: whether an ADD would be served now, as an exit code for probes.

use std::path::PathBuf;

use command_line::{Exit, Failure};
use proto::v1::{ReadyRequest, Refused};

use crate::asking;

/// The arguments of `ready`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the daemon listens. By default the value of `TIDEPOOL_SOCKET`, or its default.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Asks the daemon. Prints nothing if it is ready.
///
/// # Errors
///
/// [`Exit::NotReady`] with the refusal that an ADD would get, or [`Exit::NoAnswer`].
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client_version = proto::VERSION.to_owned();
    let reply = asking::ask(arguments.socket.as_deref(), async |mut client| {
        client.ready(ReadyRequest { client_version }).await
    })?;
    match reply.not_ready {
        None => Ok(()),
        Some(Refused { code, message, .. }) => {
            Err(Failure::new(Exit::NotReady, format!("{code}: {message}")))
        }
    }
}
