//! The command line of the daemon that runs on every node. Each subcommand has its own file.

mod asking;
mod check_config;
mod config_maps;
mod facts;
mod hints;
mod kubernetes;
mod limits;
mod live;
mod logging;
mod migration;
mod node;
mod ready;
mod run;
mod status;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command_line::{Exit, Failure};

/// The exit codes that the help names.
const EXITS: &[Exit] = &[
    Exit::Done,
    Exit::Failed,
    Exit::NoAnswer,
    Exit::NoRecord,
    Exit::NotReady,
    Exit::Usage,
    Exit::Panicked,
    Exit::NoClient,
    Exit::Config,
];

/// Gives every pod of this node an address of its VPC. Settings: ipamd run --help.
#[derive(Debug, Parser)]
#[command(version, after_help = Exit::table(EXITS))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground.
    #[command(after_help = settings::help())]
    Run,
    /// Show the pool of the daemon that runs on this node.
    Status(status::Arguments),
    /// Ask the daemon whether a pod could get an address now. The exit code says so, for probes.
    Ready(ready::Arguments),
    /// Check the settings, and show where each comes from and what they amount to.
    CheckConfig(check_config::Arguments),
    /// Show which pods the daemon would take over from a checkpoint of amazon-vpc-cni-k8s.
    ImportCheckpoint(migration::ImportArguments),
    /// Hand the pods of this node over to amazon-vpc-cni-k8s, by writing its checkpoint.
    ExportCheckpoint(migration::ExportArguments),
    /// Remove ipamd's nftables table, once amazon-vpc-cni-k8s serves this node again.
    RemoveNat,
    /// Moved to `tidepool plan`.
    #[command(hide = true, disable_help_flag = true)]
    Plan(Moved),
    /// Moved to `tidepool simulate`.
    #[command(hide = true, disable_help_flag = true)]
    Simulate(Moved),
}

/// Any arguments, for a command that has moved to `tidepool`.
#[derive(Debug, clap::Args)]
struct Moved {
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    _ignored: Vec<OsString>,
}

fn main() -> ExitCode {
    command_line::main("ipamd", |cli: Cli| match cli.command {
        Command::Run => run::run(),
        Command::Status(arguments) => status::run(&arguments),
        Command::Ready(arguments) => ready::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::ImportCheckpoint(arguments) => migration::import(&arguments),
        Command::ExportCheckpoint(arguments) => migration::export(&arguments),
        Command::RemoveNat => migration::remove_nat(),
        Command::Plan(Moved { .. }) => Err(moved("plan")),
        Command::Simulate(Moved { .. }) => Err(moved("simulate")),
    })
}

fn moved(command: &str) -> Failure {
    let message = format!("ipamd has no command {command} any more; use `tidepool {command}`");
    Failure::new(Exit::Usage, message)
}
