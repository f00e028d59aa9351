//! `ipamd status`: the pool of the daemon on this node, as a table or as JSON.

mod json;
mod table;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context as _;
use command_line::{Failure, Output};
use proto::v1::{ViewReply, ViewRequest};

use crate::{asking, introspected};

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the daemon listens. By default the value of `TIDEPOOL_SOCKET`, or its default.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Asks the daemon for its pool and prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let asked = asking::ask(arguments.socket.as_deref(), async |mut client| {
        client.view(ViewRequest {}).await
    });
    let view = asked.or_else(|failure| match arguments.socket {
        // Whoever names a socket asks that daemon and no other.
        Some(_) => Err(failure),
        None => introspected(failure),
    })?;
    let text = match arguments.output {
        Output::Table => table::render(&view, SystemTime::now()),
        Output::Json => json::render(&view).context("write the pool as JSON")?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the pool")?;
    Ok(())
}

/// The view by the introspection, if it answers although the socket has failed.
fn introspected(failure: Failure) -> Result<ViewReply, Failure> {
    let Some((view, from)) = introspected::view() else { return Err(failure) };
    let note = format!("ipamd: {failure}; the introspection on {from} answers\n");
    std::io::stderr().write_all(note.as_bytes()).context("print a note")?;
    Ok(view)
}
