//! `ipamd status`: the pool of the daemon on this node, as a table or as JSON.

pub(crate) mod json;
pub(crate) mod table;

use std::io::Write as _;
use std::time::SystemTime;

use anyhow::Context as _;
use command_line::{Failure, Output};
use proto::v1::ViewRequest;

use crate::asking;

/// Asks the daemon for its pool and prints it.
pub(crate) fn run(arguments: &asking::Arguments) -> Result<(), Failure> {
    let view = asking::ask(arguments.socket.as_deref(), async |mut client| {
        client.view(ViewRequest {}).await
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
