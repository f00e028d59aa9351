//! For tests: named points in the programs where a process can be killed or stopped.
//!
//! Only builds with debug assertions have them. Every shipped profile derives from `release`: there
//! [`pass`] is empty and reads no variable. A cargo feature would not work, because
//! `cargo build --workspace` gives a package the features that any other package requests.
//!
//! ```text
//! $TIDEPOOL_FAILPOINTS/link-made     "kill 2": the process dies at the second pass from now on
//! ```

mod points;

use std::fs;
use std::io;
use std::path::Path;

pub use crate::points::{IPAMD, PLUGIN};

/// The environment variable with the folder of armed points. If it is unset, no point is armed.
pub const VARIABLE: &str = "TIDEPOOL_FAILPOINTS";

/// What an armed point does to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// SIGKILL.
    Kill,
    /// SIGSTOP. The process continues at SIGCONT.
    Stop,
}

/// Arms `point`: its `nth` pass from now on, counted from 1, executes `order` once. It has no effect
/// on builds without debug assertions.
///
/// # Errors
///
/// If `folder` or the file in it cannot be created.
pub fn arm(folder: &Path, point: &str, order: Order, nth: u32) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(point), armed(order, nth))
}

fn armed(order: Order, nth: u32) -> String {
    match order {
        Order::Kill => format!("kill {nth}"),
        Order::Stop => format!("stop {nth}"),
    }
}

/// Marks the point `place`-`what`: if it is armed, the process dies or stops here.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn pass(_place: &str, _what: &str) {}

/// Marks the point `place`-`what`: if it is armed, the process dies or stops here.
#[cfg(debug_assertions)]
pub fn pass(place: &str, what: &str) {
    if let Some(folder) = std::env::var_os(VARIABLE) {
        trigger(Path::new(&folder), &format!("{place}-{what}"));
    }
}

/// Executes the order of a point, if it is armed and its pass is due. A file that cannot be read
/// arms nothing. The lock keeps two threads from counting one pass twice.
#[cfg(debug_assertions)]
fn trigger(folder: &Path, point: &str) {
    use rustix::process::{Signal, getpid, kill_process};

    static COUNTING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _counting = COUNTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let file = folder.join(point);
    let Ok(text) = fs::read_to_string(&file) else { return };
    let (order, signal) = match text.split_once(' ') {
        Some(("kill", _)) => (Order::Kill, Signal::KILL),
        Some(("stop", _)) => (Order::Stop, Signal::STOP),
        Some(_) | None => return,
    };
    let nth: u32 = text[5..].parse().unwrap_or(1);
    if nth > 1 {
        let _ = fs::write(&file, armed(order, nth - 1));
    } else if fs::remove_file(&file).is_ok() {
        let _ = kill_process(getpid(), signal);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn point_names_are_unique() {
        let names: BTreeSet<_> = IPAMD.iter().chain(PLUGIN).collect();
        assert_eq!(names.len(), IPAMD.len() + PLUGIN.len());
    }

    #[test]
    fn second_pass_kills_once() {
        let folder = tempfile::tempdir().unwrap();
        arm(folder.path(), "link-made", Order::Kill, 2).unwrap();
        let run = || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--ignored", "--exact", "tests::passes_twice"]);
            command.env(VARIABLE, folder.path()).output().unwrap()
        };
        let first = run();
        assert_eq!(first.status.signal(), Some(9));
        assert!(!folder.path().join("link-made").exists());
        let second = run();
        assert!(second.status.success(), "{second:?}");
    }

    #[test]
    #[ignore = "a part of the test above"]
    fn passes_twice() {
        pass("link", "made");
        pass("link", "routed");
        pass("link", "made");
    }
}
