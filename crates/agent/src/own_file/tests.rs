//! What other users can do to a file or a directory.

use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, mknodat};
use tempfile::TempDir;

use super::*;

const NOBODY: u32 = 65_534;

fn file(directory: &TempDir, mode: u32) -> PathBuf {
    let path = directory.path().join("file");
    fs::write(&path, "content").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

fn refused(path: &Path) -> Refused {
    match read(path, 7).unwrap_err() {
        ReadError::Refused(refused) => refused,
        ReadError::Io(fault) => panic!("{fault}"),
    }
}

#[test]
fn file_that_others_cannot_change_is_read() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o600, 0o400, 0o640, 0o644] {
        assert_eq!(read(&file(&directory, mode), 7).unwrap(), b"content");
    }
    assert!(read(&directory.path().join("none"), 7).unwrap_err().is_not_found());
}

#[test]
fn file_that_others_can_change_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o620, 0o602, 0o666] {
        assert_eq!(refused(&file(&directory, mode)), Refused::Mode(mode));
    }
    let path = file(&directory, 0o600);
    chown(&path, Some(NOBODY), None).unwrap();
    assert_eq!(refused(&path), Refused::Owner(NOBODY));
}

#[test]
fn file_of_another_kind_or_size_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, 0o600);
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    let fifo = directory.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    for other in [&link, &fifo, Path::new("/dev/zero"), directory.path()] {
        assert_eq!(refused(other), Refused::NotAFile, "{}", other.display());
    }
    fs::write(&path, "8 bytes.").unwrap();
    assert_eq!(refused(&path), Refused::Size(7));
}

#[test]
fn directory_that_others_can_write_to_is_set_right() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/b");
    let state = || {
        let metadata = fs::metadata(&directory).unwrap();
        (metadata.mode() & 0o7777, metadata.uid())
    };
    let own = rustix::process::geteuid().as_raw();
    make_directory(&directory).unwrap();
    assert_eq!((state().0 & OTHERS_WRITE, state().1), (0, own));
    for (mode, expect) in [(0o777, 0o755), (0o775, 0o755), (0o700, 0o700), (0o1777, 0o1777)] {
        fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        make_directory(&directory).unwrap();
        assert_eq!(state(), (expect, own), "{mode:o}");
    }
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    chown(&directory, Some(NOBODY), None).unwrap();
    secure_directory(&directory);
    assert_eq!(state(), (0o755, own));
}
