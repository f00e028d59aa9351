//! The command line of the per-node daemon. Each subcommand has its own file; how a process ends is
//! told by one table, `exit`.

mod check_config;
mod exit;
mod facts;
mod hints;
mod limits;
mod logging;
mod migration;
mod node;
mod output;
mod plan;
mod run;
mod settings;
mod simulate;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::Exit;

/// Gives every pod of this node an address of its VPC.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::TABLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground. Settings come from the environment.
    Run,
    /// Show the pool of the daemon that runs on this node.
    Status(status::Arguments),
    /// Check the settings in the environment and show what they amount to.
    CheckConfig(check_config::Arguments),
    /// Show what a node would hold, and what that costs.
    Plan(plan::Arguments),
    /// Simulate clusters, and compare with amazon-vpc-cni-k8s on the same load.
    Simulate(simulate::Arguments),
    /// Show what would be taken over from a checkpoint of amazon-vpc-cni-k8s.
    ImportCheckpoint(migration::ImportArguments),
    /// Hand the pods of this node over to amazon-vpc-cni-k8s, by writing its checkpoint.
    ExportCheckpoint(migration::ExportArguments),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version come this way too; nobody is left to tell if they cannot be shown.
            let _ = usage.print();
            return if usage.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let result = match cli.command {
        Command::Run => run::run(),
        Command::Status(arguments) => status::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::ImportCheckpoint(arguments) => migration::import(&arguments),
        Command::ExportCheckpoint(arguments) => migration::export(&arguments),
    };
    match result {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            eprintln!("ipamd: {failure}");
            failure.exit.into()
        }
    }
}
