//! What `ipamd doctor` reads of the kernel and of the daemon's files. Nothing here changes anything.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

pub use datapath::MacAddr;
pub use datapath::examine::{KernelState, SysctlDifference, foreign_rules, state, sysctls};
pub use datapath::pod::{HostLink, host_links};

use crate::state::{LOG, PREVIOUS, lock::LOCK};
use crate::{error_chain, own_file};

/// The files of the daemon in its state directory.
const FILES: [&str; 3] = [LOG, PREVIOUS, LOCK];

/// The daemon's files and directories that others can change, so that the daemon would not read them: each path with
/// the reason. A file that is missing has no fault.
#[must_use]
pub fn unsafe_files(state_directory: &Path) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    let mut note = |path: &Path, fault: String| faults.push((path.display().to_string(), fault));
    if let Ok(metadata) = fs::metadata(state_directory) {
        let mode = metadata.mode() & 0o7777;
        if !own_file::is_ours(&metadata) {
            note(state_directory, format!("it belongs to uid {}", metadata.uid()));
        } else if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            note(
                state_directory,
                format!("others than its owner may write to it (mode {mode:04o})"),
            );
        }
    }
    for name in FILES {
        let path = state_directory.join(name);
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if let Err(fault) = own_file::check(&metadata) {
            note(&path, error_chain(&fault));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_that_others_can_change_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("tidepool.jsonl");
        fs::write(&log, "").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&log, 0o600);
        mode(directory.path(), 0o755);
        assert_eq!(unsafe_files(directory.path()), []);
        mode(&log, 0o666);
        mode(directory.path(), 0o777);
        let faults = unsafe_files(directory.path());
        let paths: Vec<_> = faults.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, [directory.path().to_str().unwrap(), log.to_str().unwrap()]);
        mode(directory.path(), 0o1777);
        assert_eq!(unsafe_files(directory.path()).len(), 1, "a sticky directory is shared");
    }
}
