//! What the daemon that uses the state directory says of itself. One in another container does not see the process
//! that holds the lock. It must not know what the lock is for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{checked_file, own_file};

/// The file's name in the state directory. Only root can have written what is read from it.
const HOLDER: &str = "tidepool-holder.json";

/// Source: proc(5).
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// In bytes. Source: gethostname(2), 64 and the end of the line.
const LONGEST_NAME: u64 = 65;

/// A daemon, by its own account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// In its own PID namespace.
    pid: u32,
    /// Its pod's name, if its manifest sets `MY_POD_NAME`.
    pod: Option<String>,
    /// The name of the host or of the container.
    host: String,
    version: String,
    /// When it has taken the directory, in milliseconds since the Unix epoch.
    since_ms: u64,
}

impl Account {
    /// That of this process, which has taken the directory just now.
    pub(crate) fn of_this_process(pod: Option<&str>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            pid: std::process::id(),
            pod: pod.map(str::to_owned),
            host: host_name(),
            version: proto::VERSION.to_owned(),
            since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Writes it, in a thread of its own: nothing depends on the file, and the disk may hang.
    pub(crate) fn write(self, directory: &Path) {
        let file = path(directory);
        let write = move || {
            if let Err(fault) = checked_file::write(&file, &self) {
                let fault = format!("{fault:#}");
                tracing::debug!(fault, "a second daemon cannot read who holds the lock");
            }
        };
        // Without a thread the file stays as it is.
        let _ = std::thread::Builder::new().name("lock-holder".to_owned()).spawn(write);
    }

    /// That of the last daemon that has written one. It may have ended since.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        checked_file::read(&path(directory)).ok()?
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, pod, host, version, since_ms } = self;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = now.saturating_sub(Duration::from_millis(*since_ms)).as_secs();
        write!(f, "ipamd {version:?} of ")?;
        if let Some(pod) = pod {
            write!(f, "pod {pod:?} on ")?;
        }
        write!(f, "host {host:?}, pid {pid} there, which took it {seconds} s ago")
    }
}

/// Empty if the kernel does not show it.
fn host_name() -> String {
    let name = own_file::read(Path::new(HOST_NAME), LONGEST_NAME).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}

fn path(directory: &Path) -> PathBuf {
    directory.join(HOLDER)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn account_of_the_holder_is_read_as_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Account::read(directory.path()), None);
        let account = Account::of_this_process(Some("aws-node-7xk2p"));
        checked_file::write(&path(directory.path()), &account).unwrap();
        assert_eq!(Account::read(directory.path()), Some(account.clone()));
        let shown = account.to_string();
        let pid = format!("pid {} there", std::process::id());
        assert!(
            shown.contains("pod \"aws-node-7xk2p\" on host ") && shown.contains(&pid),
            "{shown}"
        );
    }

    #[test]
    fn account_that_another_user_may_have_written_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = path(directory.path());
        checked_file::write(&file, &Account::of_this_process(None)).unwrap();
        chown(&file, Some(65_534), None).unwrap();
        assert_eq!(Account::read(directory.path()), None);
    }
}
