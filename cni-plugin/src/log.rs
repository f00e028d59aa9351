//! The log: JSON lines, each written with one write so that parallel invocations do not mix theirs,
//! to `pluginLogFile` or stderr. Never stdout, which belongs to the result.

use std::io;
use std::sync::Mutex;

use cni::{Attachment, NetConf, Request, Verb};
use log_file::{Bounds, LogFile};
use tracing::Span;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::prelude::*;

/// 40 MiB in all.
const BOUNDS: Bounds = Bounds { file_bytes: 20 * 1024 * 1024, n_old: 1 };

/// Starts to log as the configuration says. A log that cannot be opened is no reason to fail a
/// pod: stderr takes its place.
pub(crate) fn start(conf: &NetConf) {
    let file = conf.log_file.as_deref().map(|path| LogFile::open(path, BOUNDS));
    let (writer, fault) = match file {
        None => (BoxMakeWriter::new(io::stderr), None),
        Some(Ok(file)) => (BoxMakeWriter::new(Mutex::new(file)), None),
        Some(Err(error)) => (BoxMakeWriter::new(io::stderr), Some(error)),
    };
    let level = level(conf.log_level.as_deref());
    // The libraries below have nothing to say that a node's operator would look for.
    let ours = Targets::new().with_target("aws_cni", level).with_target("datapath", level);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_writer(writer);
    tracing_subscriber::registry().with(lines.with_filter(ours)).init();
    if let (Some(error), Some(path)) = (fault, &conf.log_file) {
        tracing::warn!(path = %path.display(), %error, "log file cannot be opened");
    }
}

fn level(text: Option<&str>) -> LevelFilter {
    text.and_then(|text| text.parse().ok()).unwrap_or(LevelFilter::INFO)
}

/// What every event of this invocation carries.
pub(crate) fn span(request: &Request) -> Span {
    let span = |verb: Verb, attachment: Option<&Attachment>| {
        let container_id = attachment.map(|a| a.container_id.as_str());
        let ifname = attachment.map(|a| a.ifname.as_str());
        let pid = std::process::id();
        let trace_id =
            crate::trace::context().map(|context| tracing::field::display(context.trace));
        tracing::info_span!("cni", verb = verb.as_str(), container_id, ifname, pid, trace_id)
    };
    match request {
        Request::Add(add) => span(Verb::Add, Some(&add.attachment)),
        Request::Del(del) => span(Verb::Del, Some(&del.attachment)),
        Request::Check(check) => span(Verb::Check, Some(&check.attachment)),
        Request::Status(_) => span(Verb::Status, None),
        Request::Gc(_) => span(Verb::Gc, None),
        Request::Version(_) => span(Verb::Version, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for (text, expect) in [
            (None, LevelFilter::INFO),
            (Some("DEBUG"), LevelFilter::DEBUG),
            (Some("debug"), LevelFilter::DEBUG),
            (Some("Error"), LevelFilter::ERROR),
            (Some("loud"), LevelFilter::INFO),
        ] {
            assert_eq!(level(text), expect, "{text:?}");
        }
    }
}
