//! Reads a log up to its end or its first damage.

use std::path::Path;

use ipam::id::InstanceId;
use ipam::record::{Change, Contradiction, Record};
use tracing::warn;

use super::line::{HeaderError, LineError, check_header, parse};
use super::{LOG, PREVIOUS};
use crate::own_file::{self, ReadError};

/// Bytes of a log. A line has some 400 bytes, and a snapshot is due after some thousand lines.
const LARGEST_LOG: u64 = 256 * 1024 * 1024;

/// Why a log could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    /// The file cannot be read, or another user may have written it.
    #[error("read the log")]
    Unreadable(#[source] ReadError),
    /// Its first line is not a header for this daemon. Nothing of the log is used.
    #[error("line 1")]
    Header(#[source] HeaderError),
    /// A line was cut off or altered. The lines before it are used.
    #[error("line {number}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong with the line.
        #[source]
        source: LineError,
    },
    /// A line contradicts the lines before it. Those lines are used.
    #[error("line {number}")]
    Contradiction {
        /// Counted from 1.
        number: usize,
        /// Which fact contradicts which.
        #[source]
        source: Contradiction,
    },
}

/// The content of a log up to its end or its first damage.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) record: Record,
    pub(crate) damage: Option<Damage>,
}

/// Reads the log in `directory`. If no line of it can be used, the last good copy counts. With an
/// `instance`, the log must be of that instance.
///
/// A record without its end is returned without ENIs, since the lost lines may have changed them.
pub(crate) fn load(directory: &Path, instance: Option<&InstanceId>) -> Loaded {
    let loaded = read(&directory.join(LOG), instance);
    let missing = match &loaded {
        None => true,
        Some(Loaded { damage: Some(Damage::Unreadable(_) | Damage::Header(_)), .. }) => true,
        Some(_) => false,
    };
    let mut loaded = loaded.unwrap_or_default();
    if missing && let Some(previous) = read(&directory.join(PREVIOUS), instance) {
        warn!(
            directory = %directory.display(),
            assignments = previous.record.assignments().len(),
            "the last good copy of the state is used, which may be out of date",
        );
        loaded.record = previous.record;
    }
    if missing || loaded.damage.is_some() {
        loaded.record = without_enis(&loaded.record);
    }
    loaded
}

pub(super) fn without_enis(record: &Record) -> Record {
    let mut rest = record.clone();
    for eni in record.enis().keys().cloned() {
        rest.apply(&Change::EniForgotten { eni })
            .expect("no fact contradicts that an ENI is forgotten");
    }
    rest
}

/// `None` if there is no such file.
fn read(path: &Path, instance: Option<&InstanceId>) -> Option<Loaded> {
    match own_file::read(path, LARGEST_LOG) {
        Ok(bytes) => Some(replay(&bytes, instance)),
        Err(fault) if fault.is_not_found() => None,
        Err(fault) => Some(Loaded { damage: Some(Damage::Unreadable(fault)), ..Loaded::default() }),
    }
}

pub(super) fn replay(bytes: &[u8], instance: Option<&InstanceId>) -> Loaded {
    let mut record = Record::default();
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let damage = match check_header(lines.next().unwrap_or_default(), instance) {
        Err(fault) => Some(Damage::Header(fault)),
        Ok(()) => (2..).zip(lines).find_map(|(number, line)| step(&mut record, number, line).err()),
    };
    Loaded { record, damage }
}

fn step(record: &mut Record, number: usize, line: &[u8]) -> Result<(), Damage> {
    let change: Change = parse(line).map_err(|source| Damage::Line { number, source })?;
    record.apply(&change).map_err(|source| Damage::Contradiction { number, source })
}
