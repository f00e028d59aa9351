//! `tidepool ipam`: an organisation's address space, from EC2 or from a file.

mod apply;
mod audit;
mod cost;
mod need;
mod plan;
mod source;
mod targets;

use clap::Subcommand;
use command_line::Failure;

/// The arguments of `ipam`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find overlaps, full and fragmented subnets, quotas, broken rules of pools, and idle addresses of nodes.
    Audit(audit::Arguments),
    /// Count active addresses, and say what they cost by VPC, cluster and node, and with other targets.
    Cost(cost::Arguments),
    /// Lay a plan of pools, VPCs and clusters out into ranges, check it, compare it with what is there, export it.
    Plan(Box<plan::Arguments>),
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Audit(arguments) => audit::run(arguments),
        Command::Cost(arguments) => cost::run(arguments),
        Command::Plan(arguments) => plan::run(arguments),
    }
}
