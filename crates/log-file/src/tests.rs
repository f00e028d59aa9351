//! Logs with bounds of a few bytes.

use std::thread;

use super::*;

fn bounds(file_bytes: u64, n_old: u32) -> Bounds {
    Bounds { file_bytes, n_old }
}

/// Name and text of each file, sorted by name.
fn contents(directory: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut files: Vec<_> =
        entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn full_log_is_rotated_and_the_oldest_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/ipamd.log");
    let mut log = LogFile::open(&path, bounds(10, 4)).unwrap();
    for line in ["one1\n", "two2\n", "three\n", "a line beyond all bounds\n", "five\n", "six6\n"] {
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

#[test]
fn log_is_closed_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/ipamd.log");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let mut log = LogFile::open(&path, bounds(5, 1)).unwrap();
    for line in ["one1\n", "two2\n"] {
        log.write_all(line.as_bytes()).unwrap();
    }
    assert_eq!((mode(&path), mode(&log.old(1))), (0o640, 0o640));
    for (left, expect) in [(0o644, 0o640), (0o666, 0o640), (0o600, 0o600)] {
        fs::set_permissions(&path, Permissions::from_mode(left)).unwrap();
        drop(LogFile::open(&path, bounds(5, 1)).unwrap());
        assert_eq!(mode(&path), expect, "{left:o}");
    }
}

#[test]
fn log_that_is_no_file_neither_waits_nor_changes() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let fault = LogFile::open(&fifo, bounds(5, 1)).unwrap_err();
    assert_eq!(fault.raw_os_error(), Some(rustix::io::Errno::NXIO.raw_os_error()), "{fault}");
    let mode = || fs::metadata("/dev/null").unwrap().mode();
    let before = mode();
    let mut log = LogFile::open(Path::new("/dev/null"), bounds(5, 1)).unwrap();
    log.write_all(b"a line beyond all bounds\n").unwrap();
    assert_eq!(mode(), before);
}

/// What an earlier run has written counts.
#[test]
fn log_that_was_full_before_is_rotated_at_the_first_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ipamd.log");
    fs::write(&path, "from before\n").unwrap();
    let mut log = LogFile::open(&path, bounds(12, 1)).unwrap();
    log.write_all(b"now\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "now\n");
    assert_eq!(fs::read_to_string(log.old(1)).unwrap(), "from before\n");
}

/// Directories have the names that the old files would get.
#[test]
fn log_that_cannot_be_rotated_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ipamd.log");
    let mut log = LogFile::open(&path, bounds(5, 2)).unwrap();
    fs::create_dir(log.old(1)).unwrap();
    fs::create_dir(log.old(2)).unwrap();
    fs::write(log.old(2).join("kept"), "").unwrap();
    for line in ["one1\n", "two2\n"] {
        log.write_all(line.as_bytes()).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "one1\ntwo2\n");
}

/// `logrotate` does that.
#[test]
fn log_whose_file_was_moved_away_begins_anew_when_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ipamd.log");
    let mut log = LogFile::open(&path, bounds(5, 1)).unwrap();
    log.write_all(b"one1\n").unwrap();
    fs::rename(&path, directory.path().join("moved")).unwrap();
    log.write_all(b"two2\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "two2\n");
    assert!(!log.old(1).exists());
}

/// A lock belongs to an open file, so threads that open it themselves are to each other as processes.
#[test]
fn parallel_writers_lose_no_line() {
    const WRITERS: usize = 8;
    const LINES: usize = 500;
    const BOUNDS: Bounds = Bounds { file_bytes: 2000, n_old: 50 };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugin.log");
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let path = &path;
            scope.spawn(move || {
                for line in 0..LINES {
                    // An invocation of the plugin writes a few lines.
                    let mut log = LogFile::open(path, BOUNDS).unwrap();
                    log.write_all(format!("{writer} {line}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    let files = contents(directory.path());
    assert!((2..50).contains(&files.len()), "{} files", files.len());
    let mut found: Vec<_> = files.iter().flat_map(|(_, text)| text.lines()).collect();
    let expect = |writer| (0..LINES).map(move |line| format!("{writer} {line}"));
    let mut expect: Vec<_> = (0..WRITERS).flat_map(expect).collect();
    found.sort_unstable();
    expect.sort_unstable();
    assert_eq!(found, expect);
}

#[test]
fn fifo_without_reader_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    LogFile::open(&fifo, bounds(10, 1)).unwrap_err();
}

#[test]
fn new_log_is_for_owner_and_group_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/l");
    let mut log = LogFile::open(&path, bounds(5, 1)).unwrap();
    for line in ["one\n", "two\n"] {
        log.write_all(line.as_bytes()).unwrap();
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // The umask may take more away.
    assert_eq!((mode(&path) & !0o640, mode(path.parent().unwrap()) & 0o022), (0, 0));
}
