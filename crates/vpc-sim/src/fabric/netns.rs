//! Network namespaces, named under `/run/netns` as `ip netns` does it. So `ip netns exec` finds
//! ours, and we find those that `ip netns` made.
//!
//! This module must not know links, ENIs or the VPC.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;

use rustix::fs::FlockOperation;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use serde::Deserialize;

use super::error::{KernelError, NameError};

/// Where `ip netns` keeps a file for each named namespace.
const DIRECTORY: &str = "/run/netns";

/// `NSFS_MAGIC` of `linux/magic.h`: the file system type of a file that is a namespace.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Name of a network namespace: 1 to 64 letters, digits, `-`, `_` and `.`; not `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct NetnsName(String);

impl NetnsName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.0)
    }
}

impl TryFrom<String> for NetnsName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if matches!(name.as_str(), "" | "." | "..") || name.len() > 64 || !name.chars().all(plain) {
            return Err(NameError(name));
        }
        Ok(Self(name))
    }
}

impl FromStr for NetnsName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        name.to_owned().try_into()
    }
}

impl std::fmt::Display for NetnsName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this process holds a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// This process holds it until the [`Netns`] is dropped or the process ends in any way.
    Ours,
    /// Another live process (or another `Netns` of this one) holds it.
    Theirs,
}

/// An open network namespace. It lives at least as long as this value, named or not.
#[derive(Debug)]
pub(super) struct Netns(File);

impl Netns {
    /// A new namespace without a name. It leaves no trace when dropped, unless [`Netns::publish`]
    /// was called.
    pub(super) fn unnamed() -> Result<Self, KernelError> {
        let made = thread::scope(|scope| {
            join(scope.spawn(|| {
                #[expect(unsafe_code, reason = "unshare is only offered as unsafe")]
                // SAFETY: only `UnshareFlags::FILES` makes the call unsafe, and it is not set.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
                File::open("/proc/thread-self/ns/net")
            }))
        });
        made.map(Self).map_err(KernelError::Make)
    }

    /// The namespace of this name, if there is one.
    pub(super) fn open(name: &NetnsName) -> Result<Option<Self>, KernelError> {
        let path = name.path();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KernelError::File { path, source }),
        };
        match rustix::fs::fstatfs(&file) {
            Ok(stat) if stat.f_type == NSFS_MAGIC => Ok(Some(Self(file))),
            Ok(_) => Err(KernelError::NotANamespace { path }),
            Err(errno) => Err(KernelError::File { path, source: errno.into() }),
        }
    }

    /// Another handle on the same namespace.
    pub(super) fn another(&self) -> Result<Self, KernelError> {
        self.0.try_clone().map(Self).map_err(KernelError::Enter)
    }

    /// Gives the namespace a name, which must be free.
    pub(super) fn publish(&self, name: &NetnsName) -> Result<(), KernelError> {
        prepare_directory().map_err(KernelError::Directory)?;
        let path = name.path();
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(KernelError::Exists { path });
            }
            Err(source) => return Err(KernelError::File { path, source }),
        }
        let this = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        rustix::mount::mount_bind(this, &path).map_err(|errno| {
            let _ = fs::remove_file(&path);
            KernelError::File { path, source: errno.into() }
        })
    }

    /// Runs `work` in the namespace on a separate thread, and waits for it. The overhead is about
    /// 0.1 ms.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, KernelError> {
        thread::scope(|scope| {
            join(scope.spawn(|| {
                rustix::thread::move_into_link_name_space(
                    self.0.as_fd(),
                    Some(LinkNameSpaceType::Network),
                )?;
                Ok(work())
            }))
        })
        .map_err(KernelError::Enter)
    }

    /// Writes settings under `/proc/sys/net`, each as path and value.
    pub(super) fn write_sysctls(
        &self,
        settings: &[(impl AsRef<str> + Sync, &str)],
    ) -> Result<(), KernelError> {
        self.run(|| {
            settings.iter().try_for_each(|(path, value)| {
                let path = path.as_ref();
                fs::write(Path::new("/proc/sys/net").join(path), value)
                    .map_err(|source| KernelError::Sysctl { path: path.to_owned(), source })
            })
        })?
    }

    /// Locks the namespace for this process. The kernel releases the lock when the process ends, so
    /// a namespace that can be locked has no owner.
    pub(super) fn claim(&self) -> Result<Claim, KernelError> {
        match rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Claim::Ours),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Claim::Theirs),
            Err(errno) => Err(KernelError::Claim(errno.into())),
        }
    }

    /// The number of the file descriptor, for netlink attributes that name a namespace by it.
    pub(super) fn raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Removes the name. The namespace lives on while a process or a [`Netns`] uses it. A missing name
/// is not an error.
pub(super) fn unpublish(name: &NetnsName) -> Result<(), KernelError> {
    let path = name.path();
    // EINVAL means that it is not a mount point, so only the file is left to remove.
    match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(KernelError::File { path, source: errno.into() }),
    }
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::File { path, source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// All names in use, sorted. Files with other names are skipped.
pub(super) fn published() -> Result<Vec<NetnsName>, KernelError> {
    let files = match fs::read_dir(DIRECTORY) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(KernelError::Directory(error)),
    };
    let mut names: Vec<NetnsName> =
        files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok()).collect();
    names.sort();
    Ok(names)
}

/// Makes `/run/netns` a shared mount point, as `ip netns add` does. Then other mount namespaces see
/// later names and can remove them.
fn prepare_directory() -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    // Two processes that both bind the directory onto itself would hide each other's names. `ip`
    // takes the same lock.
    let directory = File::open(DIRECTORY)?;
    rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
    let share = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match rustix::mount::mount_change(DIRECTORY, share) {
        Err(rustix::io::Errno::INVAL) => {
            rustix::mount::mount_bind_recursive(DIRECTORY, DIRECTORY)?;
            Ok(rustix::mount::mount_change(DIRECTORY, share)?)
        }
        result => Ok(result?),
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netns_name_is_plain_file_name() {
        let check = |name: &str, expect: bool| {
            assert_eq!(name.parse::<NetnsName>().is_ok(), expect, "{name:?}");
        };
        check("vpc-fabric", true);
        check("node_a.1", true);
        check(&"x".repeat(64), true);
        check(&"x".repeat(65), false);
        check("", false);
        check(".", false);
        check("..", false);
        check("../init", false);
        check("a b", false);
    }
}
