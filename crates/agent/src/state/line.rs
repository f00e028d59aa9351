//! One line of the log: `["crc",payload]`, where `crc` is the CRC-32 of `payload` as text, in
//! eight lower-case hexadecimal digits.

use ipam::id::InstanceId;
use ipam::record::Change;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What `Header::format` always says.
const FORMAT: &str = "tidepool";
/// Goes up when an older daemon could no longer read the lines. Version 2 added ENIs. Version 3 has several
/// addresses for a pod, each with the way it is reached.
const VERSION: u32 = 3;
/// The oldest version that this daemon reads.
const OLDEST: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    instance: InstanceId,
}

/// A line that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// It was cut off before its end.
    #[error("unfinished line")]
    Unfinished,
    /// It does not have the shape of a line.
    #[error("not a line of a state log")]
    Shape,
    /// Its content is not what was written.
    #[error("checksum {found:08x} where {expected:08x} is written")]
    Checksum {
        /// Of the content.
        found: u32,
        /// As the line says.
        expected: u32,
    },
    /// It is whole, but this version cannot read it.
    #[error("unknown content")]
    Content(#[source] serde_json::Error),
}

/// A first line that is not this daemon's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// It is no header line.
    #[error("no header")]
    Line(#[from] LineError),
    /// Another program's file.
    #[error("format {0:?}")]
    Format(String),
    /// A later daemon's file.
    #[error("version {0}; this ipamd reads versions {OLDEST} to {VERSION}")]
    Version(u32),
    /// Another machine's file, as from a disk image.
    #[error("written on {found}; this is {expected}")]
    Instance {
        /// As the header says.
        found: InstanceId,
        /// This machine.
        expected: InstanceId,
    },
}

/// The header line, with its newline.
pub(super) fn header(instance: &InstanceId) -> Vec<u8> {
    line(&Header { format: FORMAT.to_owned(), version: VERSION, instance: instance.clone() })
}

/// One line for each change, with newlines.
pub(super) fn lines(changes: &[Change]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for change in changes {
        push(&mut bytes, change);
    }
    bytes
}

/// One line with `payload`, with its newline.
pub(crate) fn line(payload: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    push(&mut bytes, payload);
    bytes
}

/// Reads the header line and sees that the file is for `instance`, if one is given.
///
/// # Errors
///
/// [`HeaderError`] if the lines after it are not for this daemon.
pub(super) fn check_header(line: &[u8], instance: Option<&InstanceId>) -> Result<(), HeaderError> {
    // Read first what every version has, so that a later version is told from a damaged file.
    #[derive(Deserialize)]
    struct AnyVersion {
        format: String,
        version: u32,
    }
    let any: AnyVersion = parse(line)?;
    if any.format != FORMAT {
        return Err(HeaderError::Format(any.format));
    }
    if !(OLDEST..=VERSION).contains(&any.version) {
        return Err(HeaderError::Version(any.version));
    }
    let header: Header = parse(line)?;
    match instance.filter(|instance| **instance != header.instance) {
        None => Ok(()),
        Some(expected) => {
            Err(HeaderError::Instance { found: header.instance, expected: expected.clone() })
        }
    }
}

/// Reads the payload of a line; `line` includes its newline.
///
/// # Errors
///
/// [`LineError`] if it is not what was written.
pub(crate) fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, LineError> {
    let line = line.strip_suffix(b"\n").ok_or(LineError::Unfinished)?;
    let (crc, payload) = split(line).ok_or(LineError::Shape)?;
    let expected = u32::from_str_radix(crc, 16).map_err(|_| LineError::Shape)?;
    let found = crc32fast::hash(payload);
    if found != expected {
        return Err(LineError::Checksum { found, expected });
    }
    serde_json::from_slice(payload).map_err(LineError::Content)
}

fn split(line: &[u8]) -> Option<(&str, &[u8])> {
    let rest = line.strip_prefix(b"[\"")?.strip_suffix(b"]")?;
    let (crc, rest) = rest.split_at_checked(8)?;
    // As it is written and not otherwise: `from_str_radix` takes `A` for `a`, one bit away.
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let crc = crc.iter().all(digit).then(|| std::str::from_utf8(crc).ok())??;
    Some((crc, rest.strip_prefix(b"\",")?))
}

fn push(bytes: &mut Vec<u8>, payload: &impl Serialize) {
    let payload = serde_json::to_vec(payload)
        .expect("every payload has string keys only and its fields always serialise");
    bytes.extend(format!("[\"{:08x}\",", crc32fast::hash(&payload)).as_bytes());
    bytes.extend(payload);
    bytes.extend(b"]\n");
}
