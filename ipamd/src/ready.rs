//! `ipamd ready`: whether an ADD would be served now, as an exit code for probes.

use std::path::PathBuf;

use command_line::{Exit, Failure};

use crate::asking::{self, Listener};

/// The arguments of `ready`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the daemon listens. By default the value of `TIDEPOOL_SOCKET`, or its default.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Ask whoever serves this node, even a daemon in another container.
    #[arg(long)]
    any: bool,
}

/// Asks the daemon. Prints nothing if it is ready, and one line if it waits for another one to end: then a rollout
/// may go on, which ends that one.
///
/// # Errors
///
/// [`Exit::NotReady`] with the refusal that an ADD would get, or if only another container's daemon answers.
/// [`Exit::NoAnswer`] if nobody does.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let socket = asking::path(arguments.socket.as_deref())?;
    if !arguments.any && asking::listener(&socket)? == Some(Listener::Elsewhere) {
        let waiting = proto::socket::of_waiting(&socket);
        return match asking::listener(&waiting)? {
            Some(Listener::Here) => {
                eprintln!("ipamd: this daemon waits, and takes over when the one that serves the node ends");
                Ok(())
            }
            Some(Listener::Elsewhere) | None => Err(Failure::new(
                Exit::NotReady,
                "ANOTHER_CONTAINER: the ipamd of another container serves this node, and none waits here".to_owned(),
            )),
        };
    }
    match asking::ready(&socket)? {
        None => Ok(()),
        Some(refused) => Err(Failure::new(Exit::NotReady, asking::refusal(refused))),
    }
}
