//! The command line of the tool for people at a desk: it answers questions about nodes and clusters
//! without a node and without a call to EC2.
//!
//! It must not know the AWS SDK, the kernel or the daemon.

mod exit;
mod output;
mod plan;
mod simulate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::Exit;

/// Plans and simulates nodes that run ipamd.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::TABLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what a node would hold, and what that costs.
    Plan(plan::Arguments),
    /// Simulate clusters, and compare with amazon-vpc-cni-k8s on the same load.
    Simulate(simulate::Arguments),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version come this way too. A failure to print them has nowhere to go.
            let _ = usage.print();
            return if usage.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let result = match cli.command {
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
    };
    match result {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            eprintln!("tidepool: {failure}");
            failure.exit.into()
        }
    }
}
