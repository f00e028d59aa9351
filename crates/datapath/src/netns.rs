//! Network namespaces by path, and how to run code inside one. It must not know what runs there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::netlink::Netlink;

/// The calling thread's namespace. `/proc/self` would be the main thread's.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive while this exists.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
}

/// A network namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path does not exist or cannot be opened.
    #[error("open network namespace {}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The file at the path is not a network namespace, or may not be entered.
    #[error("enter network namespace {}", path.display())]
    Enter {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// No netlink socket could be opened inside.
    #[error("open a netlink socket in network namespace {}", path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl Netns {
    /// Opens the namespace at `path`, such as `/var/run/netns/cni-…` or `/proc/<pid>/ns/net`.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Open`].
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        // Without this flag a FIFO that nobody writes to is never opened.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let open = || File::options().read(true).custom_flags(flags).open(path);
        let file = open().map_err(|source| NetnsError::Open { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Open`], if /proc is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new(CURRENT))
    }

    /// The path by which it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both are the same namespace; their paths may differ.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Open`], if the kernel does not answer.
    pub fn is_same(&self, other: &Self) -> Result<bool, NetnsError> {
        Ok(self.identity()? == other.identity()?)
    }

    fn identity(&self) -> Result<(u64, u64), NetnsError> {
        let metadata = self
            .file
            .metadata()
            .map_err(|source| NetnsError::Open { path: self.path.clone(), source })?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// Runs `work` inside. `work` cannot await, so no other task of the thread runs in this namespace.
    /// Costs two system calls beside the work.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Open`] or [`NetnsError::Enter`]; then `work` has not run.
    ///
    /// # Aborts
    ///
    /// If the thread cannot return, the process aborts: it would change the network of the wrong
    /// namespace.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetnsError> {
        let _return = ReturnTo(Self::current()?);
        self.enter()?;
        Ok(work())
    }

    fn enter(&self) -> Result<(), NetnsError> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| NetnsError::Enter { path: self.path.clone(), source: errno.into() })
    }

    /// A netlink socket inside. It stays there when the thread returns.
    pub(crate) fn netlink(&self) -> Result<Netlink, NetnsError> {
        self.run(Netlink::open)?
            .map_err(|source| NetnsError::Socket { path: self.path.clone(), source })
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Returns the thread to its namespace when dropped, also by a panic.
struct ReturnTo(Netns);

impl Drop for ReturnTo {
    fn drop(&mut self) {
        if self.0.enter().is_err() {
            std::process::abort();
        }
    }
}
