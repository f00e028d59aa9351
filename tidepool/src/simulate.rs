//! `tidepool simulate`: whole clusters in virtual time, with ipamd's engine and with the algorithm of
//! amazon-vpc-cni-k8s, without a call to EC2.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use command_line::{Exit, Failure, Output};
use ipam::block::BlockKind;
use lab::report::{Report, chart, pareto_chart, render, simulate};
use lab::scenario::{Case, SCENARIOS, Scenario, Size};
use lab::spec::{NodeSpec, VpcSpec};
use lab::trace::{Trace, TraceAction, parse_csv};
use lab::{PodStart, Setup, Strategy};
use settings::Settings;

/// How long `--arrivals` simulates before the first pod and after the last one.
const MARGIN: Duration = Duration::from_secs(15 * 60);

/// Bytes of a file of arrivals: some million pods.
const LONGEST_TRACE: u64 = 64 << 20;

/// The arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run this scenario; may be repeated. Without it and without --arrivals, all scenarios run.
    #[arg(long, value_name = "NAME", value_parser = names(), conflicts_with = "arrivals")]
    scenario: Vec<String>,
    /// Run scenarios with a fraction of their nodes, pods or time.
    #[arg(long)]
    small: bool,
    /// Run the pods of this file on a cluster with the settings of the environment. The file has the
    /// header `arrival_s,lifetime_s` and a line for each pod, in seconds. The lifetime is empty for
    /// a pod that stays.
    #[arg(long, value_name = "FILE")]
    arrivals: Option<PathBuf>,
    /// Type of the nodes, with --arrivals. If it is repeated, nodes have these types in turn.
    #[arg(long, value_name = "TYPE", default_value = "m5.xlarge", requires = "arrivals")]
    instance_type: Vec<String>,
    /// Number of nodes, with --arrivals.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "arrivals",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    nodes: u32,
    /// Seed of all random numbers, with --arrivals.
    #[arg(long, default_value_t = 1, requires = "arrivals")]
    seed: u64,
    /// Milliseconds between a pod's binding to its node and its ADD. They count as no wait.
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=600_000))]
    lead_ms: u64,
    /// Whether ipamd's engine learns of bound pods from the API server, with --lead-ms.
    #[arg(long, value_name = "BOOLEAN", default_value_t = true, requires = "lead_ms",
          action = clap::ArgAction::Set)]
    early_demand: bool,
    /// Which daemon runs on the nodes.
    #[arg(long, value_enum, default_value_t = Strategies::Both)]
    strategy: Strategies,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Write two charts as SVG to this directory for each policy of each scenario: pool size against
    /// pods over time, and calls against idle addresses, beside the least that the pods need.
    #[arg(long, value_name = "DIRECTORY")]
    charts: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Strategies {
    /// The engine of ipamd.
    Tidepool,
    /// The algorithm of amazon-vpc-cni-k8s.
    Incumbent,
    /// Both, on the same pods.
    Both,
}

fn names() -> clap::builder::PossibleValuesParser {
    let named =
        |scenario: &Scenario| clap::builder::PossibleValue::new(scenario.name).help(scenario.about);
    SCENARIOS.iter().map(named).collect::<Vec<_>>().into()
}

/// A scenario, or the arrivals of a file.
struct Simulation {
    name: String,
    about: String,
    cases: Vec<Case>,
}

/// Simulates, writes the charts, prints the reports.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let strategies: &[Strategy] = match arguments.strategy {
        Strategies::Tidepool => &[Strategy::Tidepool],
        Strategies::Incumbent => &[Strategy::Incumbent],
        Strategies::Both => &Strategy::ALL,
    };
    let mut reports = Vec::new();
    let lead = Duration::from_millis(arguments.lead_ms);
    let start = PodStart { lead, is_seen: arguments.early_demand && !lead.is_zero() };
    for Simulation { name, about, mut cases } in simulations(arguments)? {
        cases.iter_mut().for_each(|case| case.setup.start = start);
        let report = simulate(&about, &cases, strategies).context("simulate")?;
        if let Some(directory) = &arguments.charts {
            write_charts(directory, &name, &report)?;
        }
        if matches!(arguments.output, Output::Table) {
            // Each report is printed as soon as it is ready, since large scenarios take minutes.
            print(&format!("{}\n", render(&report)))?;
        }
        reports.push(report);
    }
    if matches!(arguments.output, Output::Json) {
        let text = serde_json::to_string_pretty(&reports).context("write the reports as JSON")?;
        print(&format!("{text}\n"))?;
    }
    Ok(())
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).context("print the report")?;
    Ok(())
}

fn simulations(arguments: &Arguments) -> Result<Vec<Simulation>, Failure> {
    if let Some(file) = &arguments.arrivals {
        return Ok(vec![of_arrivals(arguments, file)?]);
    }
    let size = if arguments.small { Size::Small } else { Size::Full };
    let chosen = &arguments.scenario;
    let wanted = SCENARIOS
        .iter()
        .filter(|scenario| chosen.is_empty() || chosen.iter().any(|name| name == scenario.name));
    let simulation = |scenario: &Scenario| Simulation {
        name: scenario.name.to_owned(),
        about: scenario.about.to_owned(),
        cases: scenario.cases(size),
    };
    Ok(wanted.map(simulation).collect())
}

/// The text of `file`, of at most [`LONGEST_TRACE`] bytes.
fn read_arrivals(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(LONGEST_TRACE + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LONGEST_TRACE {
        true => Err(io::Error::other(format!("it has more than {LONGEST_TRACE} bytes"))),
        false => Ok(text),
    }
}

/// Arrivals from a file, on nodes with the environment's settings.
fn of_arrivals(arguments: &Arguments, file: &Path) -> Result<Simulation, Failure> {
    let settings = Settings::from_process()?;
    let types = &arguments.instance_type;
    let node_specs =
        types.iter().map(|name| node_spec(&settings, name)).collect::<Result<_, _>>()?;
    let path = file.display();
    let text = read_arrivals(file).with_context(|| format!("read {path}"))?;
    let trace = parse_csv(&text).with_context(|| format!("read {path}"))?;
    let (nodes, types) = (arguments.nodes, types.join(", "));
    let about = format!("{} arrivals of {path} on {nodes} {types}", trace.len());
    let setup = Setup {
        vpc: VpcSpec::wide(),
        node_specs,
        nodes,
        warm_up: MARGIN,
        lasts: last_end(&trace) + MARGIN,
        trace,
        seed: arguments.seed,
        start: PodStart::default(),
    };
    let case = Case { policy: "environment".to_owned(), setup };
    Ok(Simulation { name: "arrivals".to_owned(), about, cases: vec![case] })
}

fn node_spec(settings: &Settings, name: &str) -> Result<NodeSpec, Failure> {
    let limits = settings::known_limits(name).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("instance type {name} is not in the built-in table"))
    })?;
    let policy = settings::policy(settings, limits, settings::known_vcpus(name))?;
    if policy.families.policy().kind == BlockKind::V6Prefix {
        let why = "ENABLE_IPv6: nodes with pods on IPv6 are not simulated; each makes one call to \
                   EC2 in its life";
        return Err(Failure::new(Exit::Config, why.to_owned()));
    }
    Ok(NodeSpec { instance_type: name.to_owned(), policy })
}

/// When the last pod ends, or arrives if it stays.
fn last_end(trace: &Trace) -> Duration {
    let ends = trace.iter().map(|step| match step.action {
        TraceAction::Create { life: Some(life), .. } => step.at + life,
        _ => step.at,
    });
    ends.max().unwrap_or_default()
}

fn write_charts(directory: &Path, name: &str, report: &Report) -> Result<(), Failure> {
    fs::create_dir_all(directory)
        .with_context(|| format!("make the directory {}", directory.display()))?;
    for case in &report.cases {
        let file = directory.join(format!("{name}-{}.svg", case.policy));
        write(&file, &chart(case).context("draw")?)?;
        let file = directory.join(format!("{name}-{}-calls.svg", case.policy));
        write(&file, &pareto_chart(case).context("draw")?)?;
    }
    Ok(())
}

fn write(file: &Path, svg: &str) -> Result<(), Failure> {
    fs::write(file, svg).with_context(|| format!("write {}", file.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(words: &[&str]) -> Result<Arguments, clap::error::ErrorKind> {
        let words = std::iter::once("simulate").chain(words.iter().copied());
        Cli::try_parse_from(words).map(|cli| cli.arguments).map_err(|error| error.kind())
    }

    #[test]
    fn arguments_that_contradict_are_refused() {
        assert!(parse(&["--scenario", "burst", "--scenario", "day", "--small"]).is_ok());
        assert!(parse(&["--arrivals", "a.csv", "--nodes", "3"]).is_ok());
        let mixed =
            ["--arrivals", "a.csv", "--instance-type", "t3.small", "--instance-type", "m5.large"];
        assert_eq!(parse(&mixed).unwrap().instance_type, ["t3.small", "m5.large"]);
        assert_eq!(parse(&[]).unwrap().instance_type, ["m5.xlarge"]);
        for words in [
            &["--scenario", "flood"][..],
            &["--scenario", "burst", "--arrivals", "a.csv"],
            &["--nodes", "3"],
            &["--arrivals", "a.csv", "--nodes", "0"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn chosen_scenario_runs_alone_and_leaves_a_chart() {
        let folder = tempfile::tempdir().unwrap();
        let charts = folder.path().join("charts");
        let path = charts.to_str().unwrap();
        let arguments = parse(&["--scenario", "fragmented", "--small", "--charts", path]).unwrap();
        run(&arguments).unwrap();
        let files = fs::read_dir(&charts).unwrap().map(|entry| entry.unwrap().file_name());
        let mut files: Vec<_> = files.collect();
        files.sort();
        let expected = ["fragmented-warm-prefix-1-calls.svg", "fragmented-warm-prefix-1.svg"];
        assert_eq!(files, expected);
    }

    #[test]
    fn arrivals_run_until_the_last_pod_ends() {
        let trace = parse_csv("arrival_s,lifetime_s\n10,5\n11,\n0,60\n").unwrap();
        assert_eq!(last_end(&trace), Duration::from_secs(60));
        assert_eq!(last_end(&Trace::new()), Duration::ZERO);
    }
}
