//! The log: JSON lines, each written with one write so that parallel invocations do not mix theirs,
//! to `pluginLogFile` or stderr. Never stdout, which belongs to the result.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use cni::{Attachment, NetConf, Request, Verb};
use tracing::Span;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::prelude::*;

/// Bytes after which the file is begun anew.
const LARGEST: u64 = 20 * 1024 * 1024;

/// Starts to log as the configuration says. A log that cannot be opened is no reason to fail a
/// pod: stderr takes its place.
pub(crate) fn start(conf: &NetConf) {
    let file = conf.log_file.as_deref().map(open);
    let (writer, fault) = match file {
        None => (BoxMakeWriter::new(io::stderr), None),
        Some(Ok(file)) => (BoxMakeWriter::new(Arc::new(file)), None),
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

/// Where the file is full, it becomes `NAME.1` in place of the one before.
fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let append = || OpenOptions::new().create(true).append(true).open(path);
    let file = append()?;
    let metadata = file.metadata()?;
    // Unless another invocation has begun anew meanwhile.
    let is_still_there = || fs::metadata(path).is_ok_and(|there| there.ino() == metadata.ino());
    if metadata.len() < LARGEST || !is_still_there() {
        return Ok(file);
    }
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    // A file that cannot be renamed takes more lines.
    fs::rename(path, old).and_then(|()| append()).or(Ok(file))
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
        tracing::info_span!("cni", verb = verb.as_str(), container_id, ifname, pid)
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
    fn a_full_log_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) =
            (directory.path().join("plugin.log"), directory.path().join("plugin.log.1"));
        let of_len = |bytes| File::create(&path).unwrap().set_len(bytes).unwrap();
        of_len(LARGEST - 1);
        assert_eq!(open(&path).unwrap().metadata().unwrap().len(), LARGEST - 1);
        assert!(!old.exists());
        for len in [LARGEST, LARGEST + 1] {
            of_len(len);
            assert_eq!(open(&path).unwrap().metadata().unwrap().len(), 0);
            assert_eq!(
                fs::metadata(&old).unwrap().len(),
                len,
                "it takes the place of the one before"
            );
        }
    }

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
