//! The exit codes of `ipamd`.

use std::fmt;
use std::process::ExitCode;

use agent::error_chain;
use settings::SettingError;

/// As the help shows it.
pub(crate) const TABLE: &str = "\
Exit codes:
   0  done
   1  failed; the line on stderr says what was tried
   2  status: no daemon answers
   3  export-checkpoint: there is no record, and nothing was written
  64  the command line is wrong
  78  a setting is wrong";

/// Why a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    NoAnswer = 2,
    NoRecord = 3,
    /// `EX_USAGE` of sysexits.
    Usage = 64,
    /// `EX_CONFIG` of sysexits.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An end other than [`Exit::Done`], with one line for people.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: String) -> Self {
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
        Self::new(Exit::Config, error_chain(&error))
    }
}

impl From<SettingError> for Failure {
    fn from(error: SettingError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}
