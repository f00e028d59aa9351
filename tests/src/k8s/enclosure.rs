//! What a run is enclosed in, so that nothing outlives it, whichever way it ends, `kill -9` included: namespaces that the
//! kernel takes down with their first process, and a helper that removes cgroups and files.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use crate::process::output;

/// Set inside: the run's name.
const VARIABLE: &str = "TIDEPOOL_K8S_RUN";

/// What is left of a run named `$0`, with its files in `$1`, goes once nobody holds the other end of stdin. A cgroup can
/// only go after its processes, and a file after whoever still writes it.
const CLEAN: &str = r#"
cat >/dev/null
for _ in $(seq 300); do
  left=$(find /sys/fs/cgroup -depth -type d -path "*/$0-*")
  [ -n "$left" ] || [ -e "$1" ] || exit 0
  [ -z "$left" ] || rmdir $left 2>/dev/null
  rm -rf --one-file-system "$1" 2>/dev/null
  sleep 0.1
done
echo "left behind: $left $(ls -d "$1")" >&2
exit 1
"#;

/// The name of the run in which this program is enclosed: short, and unique on the machine.
#[must_use]
pub fn name() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// Where a run keeps its files. On a disk, since the kubelet cannot measure a tmpfs.
pub(super) fn directory(name: &str) -> PathBuf {
    PathBuf::from("/var/tmp").join(name)
}

/// Runs this program once more with `arguments`, enclosed, and returns how it ended. Nothing of it is left then.
///
/// # Errors
///
/// If it cannot be started, or something cannot be removed.
pub fn run_enclosed(arguments: &[&str]) -> Result<ExitStatus> {
    let name = format!("k8s{}", std::process::id());
    let mut cleaner = cleaner(&name)?;
    let this = std::env::current_exe().context("find the running program")?;
    // The first process of a PID namespace takes all others with it. Its parent's end takes it, and so does ours.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(this)
        .args(arguments)
        .env(VARIABLE, &name);
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    drop(cleaner.stdin.take());
    let cleaned = cleaner.wait().context("wait for the end of the cleaning")?;
    anyhow::ensure!(cleaned.success(), "the run has left something behind");
    Ok(status)
}

/// A process that outlives this one, but not for long.
fn cleaner(name: &str) -> Result<Child> {
    let mut command = Command::new("bash");
    command.args(["-c", CLEAN, name]).arg(directory(name)).stdin(Stdio::piped());
    // A group of its own: Ctrl-C must not end it.
    command.process_group(0).spawn().context("start the cleaner")
}

/// What only an enclosed program may do: hides the machine's /run, with its named network namespaces, its sockets and its
/// locks, and makes the run's directory.
///
/// # Errors
///
/// If it cannot.
pub(super) async fn furnish(name: &str) -> Result<PathBuf> {
    let mut mount = tokio::process::Command::new("mount");
    output(mount.args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])).await?;
    let dir = directory(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    Ok(dir)
}
