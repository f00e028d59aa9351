//! `ipamd status`: the pool of the daemon on this node, as a table or as JSON.

pub(crate) mod json;
pub(crate) mod table;

use std::io::Write as _;
use std::time::SystemTime;

use anyhow::Context as _;
use command_line::{Failure, Output};
use proto::v1::{ViewReply, ViewRequest};

use crate::{asking, introspected};

/// Asks the daemon for its pool and prints it.
pub(crate) fn run(arguments: &asking::Arguments) -> Result<(), Failure> {
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
    print(&text)
}

/// Prints an answer of the daemon.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).context("print the daemon's answer")?;
    Ok(())
}

/// The view by the introspection, if it answers although the socket has failed.
fn introspected(failure: Failure) -> Result<ViewReply, Failure> {
    let Some((view, from)) = introspected::view() else { return Err(failure) };
    let note = format!("ipamd: {failure}; the introspection on {from} answers\n");
    std::io::stderr().write_all(note.as_bytes()).context("print a note")?;
    Ok(view)
}
