//! One line of the log: `["crc",payload]`. `crc` is the CRC-32 of the text `payload`, as eight lower-case
//! hexadecimal digits.

use ipam::id::InstanceId;
use ipam::record::Change;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The value of `Header::format`.
const FORMAT: &str = "tidepool";
/// Goes up when an older daemon can no longer read the lines. Version 2 added ENIs. Version 3 allows several
/// addresses for a pod, each with its route (`Via`). Version 4 added calls that set security groups, and the VPC's
/// ranges.
const VERSION: u32 = 5;
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
    /// The line has no newline, so it was cut off.
    #[error("unfinished line")]
    Unfinished,
    /// The text is not `["crc",payload]`.
    #[error("not a line of a state log")]
    Shape,
    /// The content has changed since it was written.
    #[error("checksum {found:08x} instead of {expected:08x}")]
    Checksum {
        /// The checksum of the content.
        found: u32,
        /// The checksum in the line.
        expected: u32,
    },
    /// The line is whole, but this version cannot parse its content.
    #[error("unknown content")]
    Content(#[source] serde_json::Error),
}

/// A first line that is not a header for this daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The line is not a header.
    #[error("no header")]
    Line(#[from] LineError),
    /// The file is another program's.
    #[error("format {0:?}")]
    Format(String),
    /// A newer daemon wrote the file.
    #[error("version {0}; this ipamd reads versions {OLDEST} to {VERSION}")]
    Version(u32),
    /// Another instance wrote the file, for instance before a disk image was made.
    #[error("written on {found}; this is {expected}")]
    Instance {
        /// The instance in the header.
        found: InstanceId,
        /// This instance.
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

/// Parses the header line and checks that the file is for `instance`, if one is given.
///
/// # Errors
///
/// [`HeaderError`] if this daemon must not read the lines after it.
pub(super) fn check_header(line: &[u8], instance: Option<&InstanceId>) -> Result<(), HeaderError> {
    // Parse the fields of every version first, so that a newer version does not look like damage.
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

/// Parses the payload of a line. `line` includes its newline.
///
/// # Errors
///
/// [`LineError`] if the line is not exactly as it was written, or does not hold a `T`.
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
    // `from_str_radix` also takes `A` for `a`, so it would miss the change of one bit.
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
