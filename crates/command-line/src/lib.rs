//! What the command lines of `ipamd` and `tidepool` have in common: how they start, print and end.

mod printable;
mod shell;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;
use settings::SettingError;

pub use crate::printable::printable;
pub use crate::shell::{Completions, Manuals};

/// The form in which a command prints: `--output`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs; keys are added, never renamed.
    Json,
}

/// Why a process ends. The number is its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command is done.
    Done = 0,
    /// The command failed.
    Failed = 1,
    /// No daemon answers.
    NoAnswer = 2,
    /// There is no record to export.
    NoRecord = 3,
    /// The daemon answers, but no pod can get an address.
    NotReady = 4,
    /// The daemon knows nothing of the pod.
    UnknownPod = 5,
    /// Something is not as it should be.
    Differs = 6,
    /// The command line is wrong: `EX_USAGE` of sysexits.
    Usage = 64,
    /// The program has panicked: `EX_SOFTWARE` of sysexits.
    Panicked = 70,
    /// No client for EC2 can be set up, for instance with a bad file of certificates: `EX_OSFILE` of sysexits.
    NoClient = 72,
    /// A setting is wrong: `EX_CONFIG` of sysexits.
    Config = 78,
}

impl Exit {
    /// As the table of exit codes shows it.
    fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed; the line on stderr says what was tried",
            Self::NoAnswer => "no daemon answers",
            Self::NoRecord => "export-checkpoint: there is no record, and nothing was written",
            Self::NotReady => "ready: no pod can get an address now; stderr says why",
            Self::UnknownPod => "why: the daemon has never heard of the pod",
            Self::Differs => "doctor, ipam: something is not as it should be; stdout names it",
            Self::Usage => "the command line is wrong",
            Self::Panicked => "a fault in the program; its log says where",
            Self::NoClient => "run: the client for EC2 cannot be set up; stderr says why",
            Self::Config => "a setting is wrong",
        }
    }

    /// The table of exit codes for a program's help.
    #[must_use]
    pub fn table(exits: &[Self]) -> String {
        let lines = exits.iter().map(|exit| format!("\n  {:>2}  {}", *exit as u8, exit.meaning()));
        format!("Exit codes:{}", lines.collect::<String>())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An end other than [`Exit::Done`], with one line for people.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure with the line that stderr shows.
    #[must_use]
    pub fn new(exit: Exit, message: String) -> Self {
        Self { exit, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<settings::Error> for Failure {
    fn from(error: settings::Error) -> Self {
        Self::new(Exit::Config, format!("{:#}", anyhow::Error::new(error)))
    }
}

impl From<SettingError> for Failure {
    fn from(error: SettingError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    /// The message is the whole chain of causes in one line.
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}

/// The `main` of a program: reads the command line, runs the command, and reports a failure as
/// `program: message` on stderr.
pub fn main<C: Parser>(program: &str, run: impl FnOnce(C) -> Result<(), Failure>) -> ExitCode {
    let cli = match C::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version come this way too. A failure to print them has nowhere to go.
            let _ = usage.print();
            return if usage.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    // A panic is reported by its hook.
    match catch_unwind(AssertUnwindSafe(|| run(cli))) {
        Ok(Ok(())) => Exit::Done.into(),
        Ok(Err(failure)) => {
            eprintln!("{program}: {}", printable(&failure.message));
            failure.exit.into()
        }
        Err(_panic) => Exit::Panicked.into(),
    }
}
