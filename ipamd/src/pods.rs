//! `ipamd pods`: the attachments that have addresses.

use std::time::SystemTime;

use anyhow::Context as _;
use command_line::{Failure, Output};
use proto::v1::{PodView, ViewRequest};
use serde::Serialize;

use crate::asking;
use crate::status::{json, print, table};

/// The arguments of `pods`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    asking: asking::Arguments,
    /// Only pods of this namespace.
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// Keys are added, never renamed or removed.
#[derive(Serialize)]
struct Pods<'a> {
    /// As in `ipamd status`.
    pods: Vec<json::Pod<'a>>,
}

/// Asks the daemon for its pool and prints the pods.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { asking, namespace } = arguments;
    let view = asking::ask(asking.socket.as_deref(), async |mut client| {
        client.view(ViewRequest {}).await
    })?;
    let is_shown = |pod: &&PodView| match (namespace, &pod.pod) {
        (None, _) => true,
        (Some(namespace), Some(pod)) => pod.namespace == *namespace,
        (Some(_), None) => false,
    };
    let pods = view.pods.iter().filter(is_shown);
    let text = match asking.output {
        Output::Table => format!("{}\n", table::pods(pods, SystemTime::now())),
        Output::Json => json::pretty(&Pods { pods: pods.map(json::pod).collect() })
            .context("write the pods as JSON")?,
    };
    print(&text)
}
