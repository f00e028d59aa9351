//! Files that are put, in directories of every kind.

use std::thread;

use super::*;

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn file_is_added_replaced_and_left_alone() {
    let host = tempfile::tempdir().unwrap();
    // Directories that are missing are made.
    let directory = host.path().join("etc/net.d");
    let check = |bytes: &[u8], mode, expect| {
        assert_eq!(put(&directory, "file", bytes, mode).unwrap(), expect, "{bytes:?} {mode:o}");
        let path = directory.join("file");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        assert_eq!(names(&directory), ["file"]);
    };
    check(b"one", 0o644, Placed::Added);
    check(b"one", 0o644, Placed::Unchanged);
    check(b"two", 0o644, Placed::Replaced);
    check(b"two", 0o755, Placed::Replaced);
    check(b"", 0o755, Placed::Replaced);
    // A process that was killed has left half a file, also beside one that is as wanted.
    fs::write(directory.join(".file.new"), "tw").unwrap();
    check(b"", 0o755, Placed::Unchanged);
    fs::write(directory.join(".file.new"), "tw").unwrap();
    check(b"three", 0o755, Placed::Replaced);
}

#[test]
fn symlink_is_replaced_and_its_target_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (directory, target) = (directory.path(), directory.path().join("elsewhere"));
    fs::write(&target, "theirs").unwrap();
    symlink(&target, directory.join("file")).unwrap();
    symlink(&target, directory.join(".file.new")).unwrap();
    assert_eq!(put(directory, "file", b"ours", 0o644).unwrap(), Placed::Replaced);
    assert!(fs::symlink_metadata(directory.join("file")).unwrap().is_file());
    assert_eq!(fs::read_to_string(target).unwrap(), "theirs");
}

#[test]
fn step_that_fails_is_named_and_leaves_what_was_there() {
    let host = tempfile::tempdir().unwrap();
    let check = |directory: &Path, name: &str, expect: &str| {
        let error = put(directory, name, b"new", 0o644).unwrap_err();
        assert_eq!(error.to_string().replace(host.path().to_str().unwrap(), ""), expect);
    };
    fs::create_dir(host.path().join("taken")).unwrap();
    check(host.path(), "taken", "rename a file to /taken");
    fs::create_dir(host.path().join(".blocked.new")).unwrap();
    fs::write(host.path().join("blocked"), "old").unwrap();
    check(host.path(), "blocked", "remove /.blocked.new");
    assert_eq!(fs::read_to_string(host.path().join("blocked")).unwrap(), "old");
    fs::write(host.path().join("a-file"), "").unwrap();
    check(&host.path().join("a-file"), "x", "make directory /a-file");
    // `/proc` stands for a file system that takes no file.
    let read_only = put(Path::new("/proc"), "x", b"new", 0o644).unwrap_err();
    assert_eq!(read_only.to_string(), "write /proc/.x.new");
    assert_eq!(names(host.path()), [".blocked.new", "a-file", "blocked", "taken"]);
}

#[test]
fn reader_finds_one_of_the_files_whole() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let contents = [vec![b'a'; 300_000], vec![b'b'; 200_000]];
    put(directory, "file", &contents[0], 0o644).unwrap();
    thread::scope(|scope| {
        // Two installers, as during a rolling update.
        for content in &contents {
            scope.spawn(move || {
                for _ in 0..40 {
                    put(directory, "file", content, 0o644).unwrap();
                }
            });
        }
        for _ in 0..400 {
            let found = fs::read(directory.join("file")).unwrap();
            assert!(contents.contains(&found), "{} bytes", found.len());
        }
    });
    assert_eq!(names(directory), ["file"]);
}

#[test]
fn program_that_runs_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let sleep = fs::read("/bin/sleep").unwrap();
    put(directory, "plugin", &sleep, 0o755).unwrap();
    let mut running =
        std::process::Command::new(directory.join("plugin")).arg("60").spawn().unwrap();
    assert_eq!(put(directory, "plugin", b"newer", 0o755).unwrap(), Placed::Replaced);
    assert_eq!(running.try_wait().unwrap(), None);
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn removal_takes_the_file_and_what_was_left_of_it() {
    let host = tempfile::tempdir().unwrap();
    let missing = host.path().join("missing");
    assert_eq!(remove(&missing, "file").unwrap(), Removed::Absent);
    put(host.path(), "file", b"x", 0o644).unwrap();
    fs::write(host.path().join(".file.new"), "x").unwrap();
    assert_eq!(remove(host.path(), "file").unwrap(), Removed::Gone);
    assert_eq!(names(host.path()), [""; 0]);
    assert_eq!(remove(host.path(), "file").unwrap(), Removed::Absent);
    fs::create_dir(host.path().join("file")).unwrap();
    let error = remove(host.path(), "file").unwrap_err();
    assert!(error.to_string().starts_with("remove /"), "{error}");
}

#[test]
fn alias_is_made_once_and_removed_only_if_ours() {
    let host = tempfile::tempdir().unwrap();
    let path = host.path().join("loopback");
    assert_eq!(alias(host.path(), "loopback", "aws-cni").unwrap(), Placed::Added);
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("aws-cni"));
    assert_eq!(alias(host.path(), "loopback", "aws-cni").unwrap(), Placed::Unchanged);
    assert_eq!(remove_alias(host.path(), "loopback", "aws-cni").unwrap(), Removed::Gone);
    assert_eq!(remove_alias(host.path(), "loopback", "aws-cni").unwrap(), Removed::Absent);
    fs::write(&path, "theirs").unwrap();
    assert_eq!(alias(host.path(), "loopback", "aws-cni").unwrap(), Placed::Unchanged);
    assert_eq!(remove_alias(host.path(), "loopback", "aws-cni").unwrap(), Removed::Absent);
    assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    let missing = alias(&host.path().join("missing"), "loopback", "aws-cni").unwrap_err();
    assert!(missing.to_string().starts_with("make link /"), "{missing}");
}

#[test]
fn file_of_another_kind_or_size_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    assert_eq!(read(&path).unwrap(), None);
    File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
    assert_eq!(read(&path).unwrap_err().source.kind(), io::ErrorKind::FileTooLarge);
    let kind = |path: &Path| read(path).unwrap_err().source.kind();
    assert_eq!(kind(directory.path()), io::ErrorKind::InvalidInput);
    let fifo = directory.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    assert_eq!(kind(&fifo), io::ErrorKind::InvalidInput);
}
