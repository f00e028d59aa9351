//! Network sysctls of the calling thread's namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
pub(crate) const ROOT: &str = "/proc/sys";

/// The value of the sysctl `key`, without the line's end.
pub(crate) fn get(key: &str) -> Result<String, SysctlReadError> {
    get_under(Path::new(ROOT), key)
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
    set_under(Path::new(ROOT), key, value)
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
