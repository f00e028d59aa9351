//! Network sysctls of the calling thread's namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::Applied;

/// A sysctl could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("set {} to {value}", path.display())]
pub struct SysctlError {
    path: PathBuf,
    value: String,
    #[source]
    source: io::Error,
}

/// A sysctl could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read {}", path.display())]
pub struct SysctlReadError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl SysctlError {
    /// Whether this kernel lacks the sysctl: IPv6 may be switched off at boot.
    pub(crate) fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl SysctlReadError {
    /// As [`SysctlError::is_missing`].
    pub(crate) fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Where the kernel shows its sysctls.
const KERNEL: &str = "/proc/sys";
/// Where a container that is not privileged has the node's `/proc/sys/net` as a mount: its own `/proc/sys` is read-only.
/// Both show the sysctls of the network namespace of whoever reads them.
const MOUNTED: &str = "/host/proc/sys";

/// The folder with the sysctls that this process may write.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<&Path> = LazyLock::new(|| root_of(Path::new(MOUNTED)));
    *ROOT
}

fn root_of(mounted: &Path) -> &Path {
    // A mount of an empty folder would hide all sysctls.
    if mounted.join("net/ipv4/ip_forward").exists() { mounted } else { Path::new(KERNEL) }
}

/// The value of the sysctl `key`, without the line's end.
pub(crate) fn get(key: &str) -> Result<String, SysctlReadError> {
    get_under(root(), key)
}

/// As [`get`], in a folder like the kernel's.
pub(crate) fn get_under(root: &Path, key: &str) -> Result<String, SysctlReadError> {
    let path = root.join(key);
    match fs::read_to_string(&path) {
        Ok(value) => Ok(value.trim_end().to_owned()),
        Err(source) => Err(SysctlReadError { path, source }),
    }
}

/// Sets the sysctl `key` (such as `net/ipv4/ip_forward`) if it differs. Keys have slashes, since an
/// interface's name may have dots.
pub(crate) fn set(key: &str, value: &str) -> Result<Applied, SysctlError> {
    set_under(root(), key, value)
}

/// As [`set`], in a folder like the kernel's.
pub(crate) fn set_under(root: &Path, key: &str, value: &str) -> Result<Applied, SysctlError> {
    let path = root.join(key);
    let fail = |source| SysctlError { path: path.clone(), value: value.to_owned(), source };
    if fs::read_to_string(&path).map_err(fail)?.trim_end() == value {
        return Ok(Applied::Unchanged);
    }
    fs::write(&path, value).map_err(fail)?;
    Ok(Applied::Updated)
}

/// As [`set`], but a kernel without this sysctl counts as unchanged.
pub(crate) fn set_if_present(key: &str, value: &str) -> Result<Applied, SysctlError> {
    match set(key, value) {
        Err(error) if error.is_missing() => Ok(Applied::Unchanged),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_are_the_mounted_ones_if_there_are_any() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(root_of(root.path()), Path::new(KERNEL));
        fs::create_dir_all(root.path().join("net/ipv4")).unwrap();
        assert_eq!(root_of(root.path()), Path::new(KERNEL));
        fs::write(root.path().join("net/ipv4/ip_forward"), "0").unwrap();
        assert_eq!(root_of(root.path()), root.path());
    }
}
