//! For tests: named places in the programs at which a process dies or stops, as by `kill -9` in this
//! very moment.
//!
//! They are in builds with debug assertions alone. Every profile that a node gets derives from
//! `release` and has none, so there [`pass`] is empty and no variable is read. A cargo feature would
//! not do: `cargo build --workspace` gives a package the features that any other asks for.
//!
//! ```text
//! $TIDEPOOL_FAILPOINTS/link-made     "kill 2": the second pass from now on is the last
//! ```

mod points;

use std::fs;
use std::io;
use std::path::Path;

pub use crate::points::{IPAMD, PLUGIN};

/// Names the folder in which points are armed. Unset, no point does anything.
pub const VARIABLE: &str = "TIDEPOOL_FAILPOINTS";

/// What happens to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// SIGKILL.
    Kill,
    /// SIGSTOP; it goes on at SIGCONT.
    Stop,
}

/// Lets the `nth` pass from now on, counted from 1, through `point` carry out `order`, once. Without
/// effect on builds without debug assertions.
///
/// # Errors
///
/// If `folder`, or the file in it, cannot be made.
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

/// The process is at the point `place`-`what`.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn pass(_place: &str, _what: &str) {}

/// The process is at the point `place`-`what`.
#[cfg(debug_assertions)]
pub fn pass(place: &str, what: &str) {
    if let Some(folder) = std::env::var_os(VARIABLE) {
        obey(Path::new(&folder), &format!("{place}-{what}"));
    }
}

/// One thread at a time, so that no pass is counted twice. What cannot be read is not armed.
#[cfg(debug_assertions)]
fn obey(folder: &Path, point: &str) {
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
    fn every_point_has_a_name_of_its_own() {
        let names: BTreeSet<_> = IPAMD.iter().chain(PLUGIN).collect();
        assert_eq!(names.len(), IPAMD.len() + PLUGIN.len());
    }

    #[test]
    fn the_second_pass_kills_and_the_point_is_armed_no_more() {
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
