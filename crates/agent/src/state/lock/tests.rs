//! Who can hold the lock, and what a second daemon does meanwhile.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;

const NOBODY: u32 = 65_534;
/// When a wait counts as hung.
const DEADLINE: Duration = Duration::from_secs(60);

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let lock = directory.path().join(LOCK);
    (directory, lock)
}

/// A process of the user `uid` that holds the lock of the file at `path`.
struct Locker(Child);

impl Locker {
    fn start(uid: u32, path: &Path) -> Self {
        let mut flock = Command::new("flock");
        let child = flock.arg("--no-fork").arg(path).args(["sleep", "600"]).uid(uid).spawn();
        let locker = Self(child.unwrap());
        let started = Instant::now();
        let is_held = |holder: Holder| holder.pid == locker.pid() && holder.name == "sleep";
        while !Holder::of(&File::open(path).unwrap()).is_some_and(is_held) {
            assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} for the lock");
            std::thread::yield_now();
        }
        locker
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn lock_file_is_closed_to_others() {
    let (directory, lock) = directory();
    drop(StateDirectory::try_take(directory.path()).unwrap());
    assert_eq!(mode(&lock), 0o600);
    // As earlier builds made it. Whoever has opened it cannot lock the file that replaces it.
    chmod(&lock, 0o644);
    let opened = File::open(&lock).unwrap();
    let taken = StateDirectory::try_take(directory.path()).unwrap();
    assert!(taken.is_locked());
    assert_eq!(mode(&lock), 0o600);
    flock(&opened, FlockOperation::NonBlockingLockExclusive).unwrap();
    drop(taken);
    assert!(StateDirectory::try_take(directory.path()).unwrap().is_locked());
}

#[test]
fn lock_of_another_user_stops_no_daemon() {
    let (directory, lock) = directory();
    chmod(directory.path(), 0o755);
    fs::write(&lock, "").unwrap();
    chmod(&lock, 0o644);
    let _locker = Locker::start(NOBODY, &lock);
    let taken = StateDirectory::try_take(directory.path()).unwrap();
    assert!(taken.is_locked());
    assert_eq!(mode(&lock), 0o600);
    assert!(StateDirectory::try_take(directory.path()).is_err());
}

#[test]
fn holder_of_the_lock_is_named() {
    let (directory, lock) = directory();
    drop(StateDirectory::try_take(directory.path()).unwrap());
    let locker = Locker::start(0, &lock);
    let fault = StateDirectory::try_take(directory.path()).unwrap_err().to_string();
    let expect = format!("pid {} (\"sleep\", uid 0)", locker.pid());
    assert!(fault.contains(&expect) && fault.contains(LOCK), "{fault}");
}

#[test]
fn what_a_lock_link_points_to_is_left_alone() {
    let (directory, lock) = directory();
    let precious = directory.path().join("precious");
    fs::write(&precious, "content").unwrap();
    symlink(&precious, &lock).unwrap();
    assert!(StateDirectory::try_take(directory.path()).unwrap().is_locked());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "content");
    assert!(fs::symlink_metadata(&lock).unwrap().is_file());
    fs::write(&lock, "never truncated").unwrap();
    assert!(StateDirectory::try_take(directory.path()).unwrap().is_locked());
    assert_eq!(fs::read_to_string(&lock).unwrap(), "never truncated");
}

#[tokio::test]
async fn second_daemon_waits_for_the_first() {
    let (directory, lock) = directory();
    let socket = directory.path().join("ipamd.sock");
    let first = StateDirectory::take(directory.path(), &socket, None).await.unwrap();
    let path = directory.path().to_owned();
    let second = tokio::spawn(async move { StateDirectory::take(&path, &socket, None).await });
    // It waits in the kernel once a line of this kind exists.
    let waits = || {
        let waiting = |line: &str| line.contains("-> FLOCK") && line.contains(&ino(&lock));
        fs::read_to_string(LOCKS).unwrap().lines().any(waiting)
    };
    let started = Instant::now();
    while !waits() {
        assert!(!second.is_finished() && started.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
    drop(first);
    let second = tokio::time::timeout(DEADLINE, second).await.unwrap().unwrap().unwrap();
    assert!(second.is_locked());
}

/// The kernel does not show a process of another PID namespace, so the daemon's own account names it.
#[test]
fn holder_in_another_pid_namespace_is_named() {
    let (directory, _) = directory();
    let _taken = StateDirectory::try_take(directory.path()).unwrap();
    let asked = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount", "--mount-proc"]);
        unshare.arg(std::env::current_exe().unwrap());
        unshare.args(["--exact", "state::lock::tests::asker", "--ignored", "--nocapture"]);
        let asked = unshare.env("TEST_DIRECTORY", directory.path()).output().unwrap();
        String::from_utf8_lossy(&asked.stderr).into_owned()
    };
    let unnamed = asked();
    assert!(unnamed.contains("state directory: a process in another container\n"), "{unnamed}");
    let account = Account::of_this_process(Some("aws-node-1"));
    crate::checked_file::write(&directory.path().join("tidepool-holder.json"), &account).unwrap();
    let named = asked();
    assert!(named.contains("by its own account ipamd ") && named.contains("aws-node-1"), "{named}");
}

/// Another program in the test above. Alone it is no test.
#[test]
#[ignore = "another test runs it as a child process"]
fn asker() {
    let directory = std::env::var("TEST_DIRECTORY").unwrap();
    eprintln!("{}", StateDirectory::try_take(Path::new(&directory)).unwrap_err());
}

fn ino(path: &Path) -> String {
    format!(":{} ", fs::metadata(path).unwrap().ino())
}

#[test]
fn holder_is_found_in_the_kernels_list() {
    let locks = "1: FLOCK  ADVISORY  WRITE 6128 00:19:1234 0 EOF\n\
                 1: -> FLOCK  ADVISORY  WRITE 7000 00:19:1234 0 EOF\n\
                 2: POSIX  ADVISORY  WRITE 12 fd:01:99 0 EOF\n\
                 3: FLOCK  ADVISORY  WRITE 77 fd:01:99 0 EOF\n\
                 4: FLOCK";
    let pid = |major, minor, inode| pid_of_holder(locks, rustix::fs::makedev(major, minor), inode);
    assert_eq!(pid(0, 0x19, 1234), Some(6128));
    assert_eq!(pid(0xfd, 1, 99), Some(77));
    assert_eq!(pid(0xfd, 1, 1234), None);
}
