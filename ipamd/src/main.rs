//! The command line of the daemon that runs on every node. Each subcommand has its own file.

mod alive;
mod asking;
mod check_config;
mod cloud;
mod config_maps;
mod doctor;
mod enis;
mod facts;
mod health;
mod hints;
mod install;
mod introspected;
mod kubernetes;
mod limits;
mod live;
mod logging;
mod migration;
mod node;
mod pods;
mod ready;
mod run;
mod status;
mod subnets;
mod support_bundle;
mod traces;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command_line::{Completions, Exit, Failure, Manuals};

/// The exit codes that the help names.
const EXITS: &[Exit] = &[
    Exit::Done,
    Exit::Failed,
    Exit::NoAnswer,
    Exit::NoRecord,
    Exit::NotReady,
    Exit::UnknownPod,
    Exit::Differs,
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
    Run(run::Arguments),
    /// Show the pool of the daemon that runs on this node.
    Status(asking::Arguments),
    /// Show the pods that have addresses.
    Pods(pods::Arguments),
    /// Show the ENIs and what they carry.
    Enis(asking::Arguments),
    /// Show the subnets of the node: which of them serve new ENIs, and how many addresses are free.
    Subnets(asking::Arguments),
    /// Tell which address a pod has, or why it has none yet.
    Why(why::Arguments),
    /// Compare record, kernel, EC2 and metadata service, and check what daemon and plugin need.
    Doctor(doctor::Arguments),
    /// Gather what somebody elsewhere needs to find a fault, without secrets, in one archive.
    SupportBundle(support_bundle::Arguments),
    /// Ask the daemon whether a pod could get an address now. The exit code says so, for probes.
    Ready(ready::Arguments),
    /// Fail if the daemon of this container hangs, for liveness probes. One that does not serve yet is alive.
    Alive,
    /// Put the plugin on the node, before the daemon starts: for init containers.
    Init,
    /// Put plugin and conflist on the node. The conflist only if a pod could get an address now.
    Install,
    /// Remove conflist and plugin from the node, if no pod of it has an address any more.
    Uninstall(install::UninstallArguments),
    /// Check the settings, and show where each comes from and what they amount to.
    CheckConfig(check_config::Arguments),
    /// Show which pods the daemon would take over from a checkpoint of amazon-vpc-cni-k8s.
    ImportCheckpoint(migration::ImportArguments),
    /// Hand the pods of this node over to amazon-vpc-cni-k8s, by writing its checkpoint.
    ExportCheckpoint(migration::ExportArguments),
    /// Remove ipamd's nftables table, once amazon-vpc-cni-k8s serves this node again.
    RemoveNat,
    /// Print what a shell needs to complete command lines: source <(ipamd completions bash).
    Completions(Completions),
    /// Write the manual pages.
    Manuals(Manuals),
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
    if let Some(arguments) = health::asked(std::env::args_os()) {
        return health::run(arguments);
    }
    command_line::main("ipamd", |cli: Cli| match cli.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Pods(arguments) => pods::run(&arguments),
        Command::Enis(arguments) => enis::run(&arguments),
        Command::Subnets(arguments) => subnets::run(&arguments),
        Command::Why(arguments) => why::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::SupportBundle(arguments) => support_bundle::run(&arguments),
        Command::Ready(arguments) => ready::run(&arguments),
        Command::Alive => alive::run(),
        Command::Init => install::init(),
        Command::Install => install::install(),
        Command::Uninstall(arguments) => install::uninstall(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::ImportCheckpoint(arguments) => migration::import(&arguments),
        Command::ExportCheckpoint(arguments) => migration::export(&arguments),
        Command::RemoveNat => migration::remove_nat(),
        Command::Completions(completions) => completions.print::<Cli>("ipamd"),
        Command::Manuals(manuals) => manuals.write::<Cli>(),
        Command::Plan(Moved { .. }) => Err(moved("plan")),
        Command::Simulate(Moved { .. }) => Err(moved("simulate")),
    })
}

fn moved(command: &str) -> Failure {
    let message = format!("ipamd has no command {command} any more; use `tidepool {command}`");
    Failure::new(Exit::Usage, message)
}
