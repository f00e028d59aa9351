//! A daemon as a child process: started in a network namespace, its output in a file, ended by
//! SIGTERM and, where that does not help, by SIGKILL.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// When something that must happen counts as hung. No test passes or fails by how long anything takes below this.
/// It is shorter than the plugin's default timeout of 75 s, so whoever waits for a waiting ADD counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` with its output at the end of `log`.
    ///
    /// # Errors
    ///
    /// If the log cannot be made or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("share the log")?)
            .stderr(out)
            // A group of its own: Ctrl-C goes only to the program that started this one, and it ends the rest in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// Its process id.
    ///
    /// # Errors
    ///
    /// If it has ended; the error shows its last lines.
    pub fn pid(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended: {}", self.name, self.tail()))
    }

    /// Ends it by SIGTERM; says how it ended.
    ///
    /// # Errors
    ///
    /// If it had to be killed.
    pub async fn stop(&mut self) -> Result<std::process::ExitStatus> {
        self.signal(rustix::process::Signal::TERM)?;
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.with_context(|| format!("wait for {}", self.name)),
            Err(_) => {
                self.child.kill().await.ok();
                bail!("{} did not end within {PATIENCE:?} of SIGTERM: {}", self.name, self.tail())
            }
        }
    }

    /// Ends it by SIGKILL, as a crash would.
    ///
    /// # Errors
    ///
    /// If it cannot be killed.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// Waits until it dies by SIGKILL, which somebody else has sent.
    ///
    /// # Errors
    ///
    /// If it lives on for [`PATIENCE`], or ends in another way.
    pub async fn dies(mut self) -> Result<()> {
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(|status| status.signal() == Some(9)) => Ok(()),
            Ok(status) => bail!("{} ended with {status:?}: {}", self.name, self.tail()),
            Err(_) => bail!("{} still lives after {PATIENCE:?}: {}", self.name, self.tail()),
        }
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()?).context("a pid out of range")?;
        let pid = rustix::process::Pid::from_raw(pid).context("pid 0")?;
        rustix::process::kill_process(pid, signal)
            .with_context(|| format!("signal {} ({pid:?})", self.name))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Waits until `probe` answers `Ok`.
    ///
    /// # Errors
    ///
    /// With the last refusal and the log's end when it does not within [`PATIENCE`], or at once
    /// when the process has ended.
    pub async fn wait_until<T, F: Future<Output = Result<T>>>(
        &mut self,
        what: &str,
        probe: impl FnMut() -> F,
    ) -> Result<T> {
        let name = self.name.clone();
        tokio::select! {
            done = eventually(what, PATIENCE, probe) => {
                done.with_context(|| format!("{name} did not come up: {}", self.tail()))
            }
            status = self.child.wait() => {
                bail!("{name} ended with {status:?} before {what}: {}", self.tail())
            }
        }
    }
}

/// Asks `probe` again and again until it answers `Ok`, at most for `patience`.
///
/// # Errors
///
/// The last refusal.
pub async fn eventually<T, F: Future<Output = Result<T>>>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("no {what} within {patience:?}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Waits for Ctrl-C or SIGTERM, which end nothing from now on.
///
/// # Errors
///
/// That it came, or that it cannot be waited for.
pub async fn interrupted<T>() -> Result<T> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    tokio::select! {
        _ = terminate.recv() => bail!("interrupted by SIGTERM"),
        _ = interrupt.recv() => bail!("interrupted"),
    }
}

/// Waits until a program has stopped at a fail point.
///
/// # Errors
///
/// If it does not.
pub async fn stopped(child: &Child) -> Result<()> {
    let pid = child.id().context("the program has ended")?;
    eventually("stop at a fail point", PATIENCE, async || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        ensure!(state.starts_with('T'), "its state: {stat}");
        Ok(())
    })
    .await
}

/// Lets a program that has stopped go on.
///
/// # Errors
///
/// If it is not there any more.
pub fn go_on(child: &Child) -> Result<()> {
    let pid = i32::try_from(child.id().context("the program has ended")?)?;
    let pid = rustix::process::Pid::from_raw(pid).context("pid 0")?;
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).context("signal it")
}

/// A command that runs `program` in the network namespace `netns`.
///
/// `nsenter` rather than `ip netns exec`: the latter mounts a new /sys, under which a container
/// runtime finds no cgroups.
pub fn in_netns(netns: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg("--").arg(program);
    command
}

/// Runs a command to its end and gives what it printed.
///
/// # Errors
///
/// If it cannot be started or fails; the error carries its output.
pub async fn output(command: &mut Command) -> Result<String> {
    let out = command.output().await.with_context(|| format!("run {command:?}"))?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        bail!("{command:?} ended with {}: {stdout}{stderr}", out.status);
    }
    Ok(stdout)
}

/// One of the project's programs, built beside the running one or in `TIDEPOOL_BIN`.
///
/// # Errors
///
/// If it is not there; the error says how to build it.
pub fn program(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("TIDEPOOL_BIN") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let exe = std::env::current_exe().context("find the running program")?;
            exe.ancestors()
                .skip(1)
                .find(|dir| !dir.ends_with("deps"))
                .map(Path::to_owned)
                .context("the running program lies in no folder")?
        }
    };
    let path = dir.join(name);
    if !path.exists() {
        bail!("{} is not built: run `make build`, or set TIDEPOOL_BIN", path.display());
    }
    Ok(path)
}
