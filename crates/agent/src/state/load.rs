//! Reads a log as far as it is whole.

use std::path::Path;
use std::{fs, io};

use ipam::id::InstanceId;
use ipam::record::{Change, Contradiction, Record};
use tracing::warn;

use super::line::{HeaderError, LineError, check_header, parse};
use super::{LOG, PREVIOUS};

/// Why a log could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    /// The file system does not give it.
    #[error("read it")]
    Unreadable(#[source] io::Error),
    /// Its first line is not this daemon's; nothing of it is used.
    #[error("line 1")]
    Header(#[source] HeaderError),
    /// It was cut off or altered; what comes before is used.
    #[error("line {number}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: LineError,
    },
    /// A line contradicts the ones before it; those are used.
    #[error("line {number}")]
    Contradiction {
        /// Counted from 1.
        number: usize,
        /// Which fact contradicts which.
        #[source]
        source: Contradiction,
    },
}

/// What a log holds up to its end or its first damage.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) record: Record,
    pub(crate) damage: Option<Damage>,
}

/// Reads the log in `directory`; where nothing of it can be used, the last good copy's record is. Without
/// an `instance`, that of any will do. A record that lacks its end says nothing of the ENIs: what has been
/// lost may have said otherwise.
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
            "falling back on the last good copy of the state, which may be out of date",
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
        rest.apply(&Change::EniForgotten { eni }).expect("nothing contradicts that");
    }
    rest
}

/// `None` if there is no such file.
fn read(path: &Path, instance: Option<&InstanceId>) -> Option<Loaded> {
    match fs::read(path) {
        Ok(bytes) => Some(replay(&bytes, instance)),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => None,
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
