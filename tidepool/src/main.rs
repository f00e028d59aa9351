//! The command line of the tool for people at a desk: it answers questions about nodes and clusters
//! without a node and without a call to EC2.
//!
//! It must not know the AWS SDK, the kernel or the daemon.

mod plan;
mod simulate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command_line::Exit;

/// The exit codes that the help names.
const EXITS: &[Exit] = &[Exit::Done, Exit::Failed, Exit::Usage, Exit::Config];

/// Plans and simulates nodes that run ipamd.
#[derive(Debug, Parser)]
#[command(version, after_help = Exit::table(EXITS))]
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
    command_line::main("tidepool", |cli: Cli| match cli.command {
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
    })
}
