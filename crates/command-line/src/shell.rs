//! What comes from the declaration of a command line beside its help: completions for shells, and manual pages. Both are
//! made when they are asked for, so they are never out of date.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::Failure;

/// The arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// The arguments of `manuals`.
#[derive(Debug, clap::Args)]
pub struct Manuals {
    /// The directory to write them to, such as /usr/local/share/man/man1.
    directory: PathBuf,
}

impl Completions {
    /// Prints the script that makes the shell complete command lines of `program`.
    ///
    /// # Errors
    ///
    /// If it cannot be printed.
    pub fn print<C: CommandFactory>(&self, program: &str) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut C::command(), program, &mut script);
        std::io::stdout().write_all(&script).context("print the completions")?;
        Ok(())
    }
}

impl Manuals {
    /// Writes a page for the program and one for each of its commands, in place of those that are there.
    ///
    /// # Errors
    ///
    /// If one cannot be written.
    pub fn write<C: CommandFactory>(&self) -> Result<(), Failure> {
        let directory = &self.directory;
        clap_mangen::generate_to(C::command(), directory)
            .with_context(|| format!("write the manual pages to {}", directory.display()))?;
        Ok(())
    }
}
