//! `ipamd enis`: the ENIs of the node and what they carry.

use anyhow::Context as _;
use command_line::{Failure, Output, printable};
use proto::v1::{ViewReply, ViewRequest};
use serde::Serialize;

use crate::asking;
use crate::status::{json, print, table};

/// Keys are added, never renamed or removed.
#[derive(Serialize)]
struct Enis<'a> {
    /// As in `ipamd status`.
    enis: Vec<json::Eni<'a>>,
    /// Ids of ENIs on this instance that the daemon does not manage.
    foreign_enis: &'a [String],
}

/// Asks the daemon for its pool and prints the ENIs.
pub(crate) fn run(arguments: &asking::Arguments) -> Result<(), Failure> {
    let view = asking::ask(arguments.socket.as_deref(), async |mut client| {
        client.view(ViewRequest {}).await
    })?;
    let text = match arguments.output {
        Output::Table => render(&view),
        Output::Json => {
            let enis = view.enis.iter().map(json::eni).collect();
            let enis = Enis { enis, foreign_enis: &view.foreign_enis };
            json::pretty(&enis).context("write the ENIs as JSON")?
        }
    };
    print(&text)
}

fn render(view: &ViewReply) -> String {
    let mut text = format!("{}\n", table::enis(view));
    if view.enis.iter().flat_map(|eni| &eni.blocks).any(table::is_prefix) {
        text.push_str(&format!("\n{}\n", table::prefixes(view)));
    }
    let foreign = view.foreign_enis.iter();
    text.extend(foreign.map(|eni| format!("foreign ENI: {}\n", printable(eni))));
    text
}
