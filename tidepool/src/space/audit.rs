//! `tidepool ipam audit`: what is wrong in an address space, as an exit code too.

pub(super) mod table;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use address_space::audit::{Audit, Options, Severity, audit};
use address_space::map::{self, Marks};
use address_space::{Pods, Quotas};
use anyhow::Context as _;
use command_line::{Exit, Failure, Output};
use ipnet::IpNet;
use serde::Serialize;

use super::source::{PodCounts, Source};
use super::targets::{WhatIf, what_if};

/// The arguments of `ipam audit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    pods: PodCounts,
    /// Warn from this share in use on, in percent: of subnets, pools and quotas.
    #[arg(long, value_name = "PERCENT", default_value_t = 80)]
    warn_at: u64,
    /// Fail from this share in use on, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 95)]
    fail_at: u64,
    /// Overlaps within this range are wanted, such as 100.64.0.0/10 for pods; may be repeated.
    #[arg(long, value_name = "CIDR")]
    expect_overlaps: Vec<IpNet>,
    /// The quota of network address usage of a VPC, in units.
    #[arg(long, value_name = "N", default_value_t = Quotas::default().vpc)]
    quota: u64,
    /// The same with its peers.
    #[arg(long, value_name = "N", default_value_t = Quotas::default().peered)]
    peered_quota: u64,
    /// Draw the address space to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What is printed. Keys are added, never renamed or removed.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    audit: &'a Audit,
    /// What nodes would hold with other targets; empty if nobody knows how many pods they have.
    targets: &'a [WhatIf],
}

/// Reads, prints, draws, and fails if there is a failure.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let pods = arguments.pods.read()?;
    let inventory = arguments.source.inventory()?;
    let audit = audit(&inventory, &options(arguments, pods));
    let targets = what_if(&audit.nodes);
    if let Some(file) = &arguments.map {
        let marks = Marks { warn_at: arguments.warn_at, fail_at: arguments.fail_at };
        let svg = map::svg(&audit, marks);
        fs::write(file, svg).with_context(|| format!("write {}", file.display()))?;
    }
    let text = match arguments.output {
        Output::Table => table::render(&audit, &targets),
        Output::Json => {
            let report = Report { audit: &audit, targets: &targets };
            serde_json::to_string_pretty(&report).context("write the audit as JSON")? + "\n"
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the audit")?;
    match audit.findings.iter().filter(|one| one.severity == Severity::Failure).count() {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Differs, "one failure; see above".to_owned())),
        n => Err(Failure::new(Exit::Differs, format!("{n} failures; see above"))),
    }
}

fn options(arguments: &Arguments, pods: Pods) -> Options {
    Options {
        warn_at: arguments.warn_at,
        fail_at: arguments.fail_at,
        expected: arguments.expect_overlaps.clone(),
        quotas: Quotas { vpc: arguments.quota, peered: arguments.peered_quota },
        pods,
    }
}
