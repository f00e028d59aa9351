//! The `vpc-sim` command: arguments, signals, exit codes.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use vpc_sim::server::{Endpoints, Server, Settings, check};

/// Serves EC2 and IMDS on this machine, and with --fabric a VPC of real devices.
///
/// Prints a line for each listener once it answers, then a line `ready` with all of them as JSON.
/// Ends on SIGTERM and SIGINT.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Topology file (YAML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Address of EC2 and, below /_sim, of the operator's endpoint. Port 0 takes any free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8773")]
    listen: SocketAddr,
    /// Address of the first instance's IMDS; each further instance takes the next port. Port 0
    /// takes any free port for each. [default: 127.0.0.1:1338, with --fabric none]
    #[arg(long, value_name = "ADDR")]
    imds_listen: Option<SocketAddr>,
    /// Give instances real devices in their network namespaces. Needs root.
    #[arg(long)]
    fabric: bool,
    /// Write the listeners' addresses to this file, as JSON, once they answer.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Check the topology file and exit.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("TIDEPOOL_LOG").unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let ended = match arguments.check {
        true => check(&arguments.config).map_err(Into::into),
        false => run(arguments).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::debug!(?error, "ended");
            let _closed = writeln!(std::io::stderr(), "vpc-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Signals are handled before anything is started, so that no signal leaves something behind.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let outside = (!arguments.fabric).then(|| SocketAddr::from(([127, 0, 0, 1], 1338)));
    let settings = Settings {
        config: arguments.config,
        listen: arguments.listen,
        imds_listen: arguments.imds_listen.or(outside),
        fabric: arguments.fabric,
    };
    let server = tokio::select! {
        server = Server::start(&settings) => server?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    announce(server.endpoints(), arguments.ready_file.as_deref())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await.context("remove the fabric")
}

fn announce(endpoints: &Endpoints, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let json = serde_json::to_string(endpoints)?;
    if let Some(path) = ready_file {
        write_whole(path, &json).with_context(|| format!("write {}", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "ec2 {}", endpoints.ec2)?;
    for (instance, url) in &endpoints.imds {
        writeln!(out, "imds {url} {instance}")?;
    }
    if let Some(fabric) = &endpoints.fabric {
        writeln!(out, "ec2-in-fabric {}", fabric.ec2)?;
        writeln!(out, "imds-in-fabric {}", fabric.imds)?;
    }
    writeln!(out, "ready {json}")?;
    Ok(out.flush()?)
}

/// Writes a file at once: a reader never sees half of it.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    std::fs::write(&part, text)?;
    std::fs::rename(&part, path)
}
