//! The command line of the tool for people at a desk: it answers questions about nodes, clusters and address spaces, some
//! before there is a node, some through kubectl, some by reading EC2.
//!
//! It must not know the AWS SDK, the kernel or the daemon's code.

mod cluster;
mod kubectl;
mod max_pods;
mod node;
mod plan;
mod simulate;
mod space;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command_line::{Completions, Exit, Manuals};

/// The exit codes that the help names.
const EXITS: &[Exit] =
    &[Exit::Done, Exit::Failed, Exit::NoAnswer, Exit::Differs, Exit::Usage, Exit::Config];

/// Plans and simulates nodes that run ipamd, and asks them.
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
    /// Print how many pods a node runs: the kubelet's maxPods.
    MaxPods(max_pods::Arguments),
    /// Simulate clusters, and compare with amazon-vpc-cni-k8s on the same load.
    Simulate(simulate::Arguments),
    /// Ask the daemon of one node, through kubectl: tidepool node NODE why default/web-0.
    Node(node::Arguments),
    /// Show what all nodes of a cluster hold, use and leave idle, through kubectl.
    Cluster(cluster::Arguments),
    /// Audit, price and plan an organisation's address space.
    Ipam(space::Arguments),
    /// Print what a shell needs to complete command lines: source <(tidepool completions bash).
    Completions(Completions),
    /// Write the manual pages.
    Manuals(Manuals),
}

fn main() -> ExitCode {
    command_line::main("tidepool", |cli: Cli| match cli.command {
        Command::Plan(arguments) => plan::run(&arguments),
        Command::MaxPods(arguments) => max_pods::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Node(arguments) => node::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Ipam(arguments) => space::run(&arguments),
        Command::Completions(completions) => completions.print::<Cli>("tidepool"),
        Command::Manuals(manuals) => manuals.write::<Cli>(),
    })
}
