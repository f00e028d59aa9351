//! One small value in a file of its own. The value may be lost, but must not be misread. The file is one
//! line in the format of the record's log, replaced as a whole. This module must not know what the value
//! means.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::own_file;
use crate::state::{draft, line, sync_directory};

/// Bytes of a file. No value has more than some kilobytes.
const LARGEST: u64 = 1024 * 1024;

/// Reads the value that [`write`] has written. `None` if there is no file.
///
/// # Errors
///
/// If the file cannot be read, if another user may have written it, or if it does not hold exactly what
/// [`write`] wrote.
pub fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let bytes = match own_file::read(path, LARGEST) {
        Ok(bytes) => bytes,
        Err(fault) if fault.is_not_found() => return Ok(None),
        Err(fault) => return Err(fault).with_context(|| format!("read {}", path.display())),
    };
    line::parse(&bytes).map(Some).with_context(|| format!("parse {}", path.display()))
}

/// Replaces the value at `path` by `value`, which is durable when this returns. After a crash, the file
/// has the old value or the new one. Makes the directory if there is none.
///
/// # Errors
///
/// If the file system fails. The file keeps the old value then.
pub fn write<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let directory = path.parent().context("a file lies in a directory")?;
    let unfinished = path.with_extension("new");
    let replace = || {
        own_file::make_directory(directory)?;
        draft(&unfinished, &line::line(value))?.persist(path)?;
        sync_directory(directory)
    };
    replace().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn read_returns_the_written_value_or_fails() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/on/the/way/value.json");
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), None);
        for value in [vec![1, 2, 3], vec![]] {
            write(&path, &value).unwrap();
            assert_eq!(read::<Vec<u32>>(&path).unwrap(), Some(value));
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file");

        let whole = fs::read(&path).unwrap();
        for n in 0..whole.len() {
            fs::write(&path, &whole[..n]).unwrap();
            assert!(read::<Vec<u32>>(&path).is_err(), "cut off after {n} bytes");
            let mut wrong = whole.clone();
            wrong[n] ^= 1;
            fs::write(&path, &wrong).unwrap();
            assert!(read::<Vec<u32>>(&path).is_err(), "byte {n} is wrong");
        }
    }

    #[test]
    fn failed_write_names_the_file_and_keeps_the_old_value() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value.json");
        write(&path, &1).unwrap();
        // A directory has the name of the temporary file.
        fs::create_dir_all(path.with_extension("new").join("x")).unwrap();
        let fault = write(&path, &2).unwrap_err();
        assert!(format!("{fault:#}").starts_with(&format!("write {}: ", path.display())));
        assert_eq!(read(&path).unwrap(), Some(1));
    }

    #[test]
    fn failed_write_leaves_no_draft() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value.json");
        // A directory has the name of the file.
        fs::create_dir_all(path.join("x")).unwrap();
        write(&path, &1).unwrap_err();
        assert!(!path.with_extension("new").exists());
    }
}
