//! A log file of bounded size. A full file becomes `NAME.1`, the earlier `NAME.1` becomes `NAME.2`, and so
//! on; the oldest is deleted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes after which a file is full. No line is split, so the first line may exceed it.
const LARGEST: u64 = 20 * 1024 * 1024;
/// How many full files are kept.
const N_OLD: u32 = 4;

/// A log file that is appended to.
#[derive(Debug)]
pub(super) struct BoundedFile {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    len: u64,
    largest: u64,
}

impl BoundedFile {
    /// Opens or creates the file, and creates the directories above it.
    ///
    /// # Errors
    /// If a directory cannot be created or the file cannot be opened.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = append_to(path)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, len, largest: LARGEST })
    }

    /// Starts a new file. If that fails, the old file goes on and may grow by the same size again.
    fn rotate(&mut self) {
        self.len = 0;
        for number in (1..N_OLD).rev() {
            // A file that does not exist yet cannot be renamed.
            let _ = fs::rename(self.old(number), self.old(number + 1));
        }
        let rotated = fs::rename(&self.path, self.old(1)).and_then(|()| append_to(&self.path));
        if let Ok(file) = rotated {
            self.file = file;
        }
    }

    fn old(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// The subscriber writes each line with one call, so a line is never split over two files.
impl Write for BoundedFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let len = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.len > 0 && self.len.saturating_add(len) > self.largest {
            self.rotate();
        }
        self.len = self.len.saturating_add(len);
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(directory: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut files: Vec<_> =
            entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect();
        files.sort();
        files
    }

    #[test]
    fn full_log_is_rotated_and_the_oldest_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/ipamd.log");
        let mut log = BoundedFile::open(&path).unwrap();
        log.largest = 10;
        for line in
            ["one1\n", "two2\n", "three\n", "a line beyond all bounds\n", "five\n", "six6\n"]
        {
            log.write_all(line.as_bytes()).unwrap();
        }
        let files = contents(path.parent().unwrap());
        let files: Vec<_> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
        let expect = [
            ("ipamd.log", "five\nsix6\n"),
            ("ipamd.log.1", "a line beyond all bounds\n"),
            ("ipamd.log.2", "three\n"),
            ("ipamd.log.3", "one1\ntwo2\n"),
        ];
        assert_eq!(files, expect);
        for _ in 0..20 {
            log.write_all(b"0123456789").unwrap();
        }
        assert_eq!(contents(path.parent().unwrap()).len(), 5);
    }

    /// The size of a file that an earlier run has written counts too.
    #[test]
    fn log_full_at_start_is_rotated_at_the_first_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipamd.log");
        fs::write(&path, "from before\n").unwrap();
        let mut log = BoundedFile::open(&path).unwrap();
        log.largest = 12;
        log.write_all(b"now\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "now\n");
    }

    /// Directories have the names that the old files would get.
    #[test]
    fn log_that_cannot_be_rotated_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipamd.log");
        fs::create_dir(directory.path().join("ipamd.log.1")).unwrap();
        fs::create_dir(directory.path().join("ipamd.log.2")).unwrap();
        fs::write(directory.path().join("ipamd.log.2/kept"), "").unwrap();
        let mut log = BoundedFile::open(&path).unwrap();
        log.largest = 5;
        for line in ["one1\n", "two2\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert!(fs::read_to_string(&path).unwrap().ends_with("two2\n"));
    }
}
