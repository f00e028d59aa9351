//! `tidepool ipam plan`: a plan in a file is laid out, checked, shown, compared with what is there, exported, and
//! carried out.

mod table;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use address_space::audit::{Options, audit};
use address_space::design::diff::{Difference, Kind, diff};
use address_space::design::export::{commands, terraform};
use address_space::design::steps::Scope;
use address_space::design::{Cluster, Design, Intent, lay_out};
use address_space::map::{self, Marks};
use address_space::{Pods, Quotas};
use anyhow::{Context as _, anyhow};
use command_line::{Exit, Failure, Output};
use serde::Serialize;

use super::apply::apply;
use super::need::{Sized, need};
use super::source::{Source, read};

/// Bytes of a plan.
const LONGEST: u64 = 4 << 20;
/// As the audit's defaults.
const MARKS: Marks = Marks { warn_at: 80, fail_at: 95 };

/// The arguments of `ipam plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The plan, in YAML.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Compare with what is there: by the tag Name and the Region.
    #[arg(long)]
    diff: bool,
    #[command(flatten)]
    source: Source,
    /// Draw the plan to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Write the plan to this file, for Terraform: NAME.tf.json.
    #[arg(long, value_name = "FILE")]
    terraform: Option<PathBuf>,
    /// Make the pools in this scope of Amazon VPC IPAM, and let VPCs draw from them.
    #[arg(long, value_name = "ID", value_parser = plain)]
    ipam_scope: Option<String>,
    /// The home Region of the IPAM that has the scope, for --apply and --commands.
    #[arg(long, value_name = "REGION", requires = "ipam_scope", value_parser = plain)]
    ipam_region: Option<String>,
    /// Write the plan to this file, as a script with commands of the AWS CLI.
    #[arg(long, value_name = "FILE")]
    commands: Option<PathBuf>,
    /// Make what the plan has and EC2 has not, in the account of the credentials. It asks first. It changes and deletes
    /// nothing that is there.
    #[arg(long, conflicts_with_all = ["diff", "from", "save"])]
    apply: bool,
    /// With --apply: do not ask.
    #[arg(long, requires = "apply")]
    yes: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What is printed. Keys are added, never renamed or removed.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    design: &'a Design,
    /// What a node of each cluster holds.
    nodes: &'a [Sized],
    /// Empty without `--diff` and `--apply`.
    differences: &'a [Difference],
}

/// Lays out, prints and exports. A plan that is wrong is not exported.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.source.is_given() && !arguments.diff && !arguments.apply {
        let why =
            "where to read the inventory is said, but neither --diff nor --apply, which read it";
        return Err(Failure::new(Exit::Usage, why.to_owned()));
    }
    let scope = scope(arguments)?;
    let intent = intent(&arguments.file)?;
    let (design, nodes) = laid_out(&intent);
    // A plan with a fault is not carried out.
    let (inventory, n_blocked) =
        match (arguments.diff, arguments.apply && design.findings.is_empty()) {
            (_, true) => {
                let applied = apply(&design, scope.as_ref(), &arguments.source, arguments.yes)?;
                (Some(applied.inventory), applied.n_blocked)
            }
            (true, false) => (Some(arguments.source.inventory()?), 0),
            (false, false) => (None, 0),
        };
    let differences = inventory.map_or(vec![], |inventory| diff(&design, &inventory));
    let text = match arguments.output {
        Output::Table => table::render(&design, &nodes, &differences, intent.horizon_years),
        Output::Json => {
            let report = Report { design: &design, nodes: &nodes, differences: &differences };
            serde_json::to_string_pretty(&report).context("write the plan as JSON")? + "\n"
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the plan")?;
    if !design.findings.is_empty() {
        let n = design.findings.len();
        return Err(Failure::new(
            Exit::Differs,
            format!("{n} faults in the plan; nothing is exported or made"),
        ));
    }
    export(arguments, &design, scope.as_ref())?;
    let n =
        differences.iter().filter(|one| !matches!(one.kind, Kind::Same | Kind::Unplanned)).count();
    match (n, n_blocked) {
        (0, 0) => Ok(()),
        (0, n) => Err(Failure::new(
            Exit::Differs,
            format!("steps that are not made: {n}; stderr says why"),
        )),
        (n, _) => Err(Failure::new(Exit::Differs, format!("{n} differences from the plan"))),
    }
}

/// A word for a command line: nothing in it has to be quoted.
fn plain(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match !text.is_empty() && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("expected letters, digits and dashes".to_owned()),
    }
}

/// The scope for pools, if --apply or --commands makes any.
fn scope(arguments: &Arguments) -> Result<Option<Scope>, Failure> {
    let makes_steps = arguments.apply || arguments.commands.is_some();
    let usage = |why: &str| Err(Failure::new(Exit::Usage, why.to_owned()));
    match (&arguments.ipam_scope, &arguments.ipam_region) {
        (Some(_), _) if !makes_steps && arguments.terraform.is_none() => usage(
            "--ipam-scope is for --apply, --commands and --terraform, and none of them is given",
        ),
        (Some(_), None) if makes_steps => {
            usage("--ipam-scope needs --ipam-region, the home Region of its IPAM")
        }
        (Some(id), Some(region)) => Ok(Some(Scope { id: id.clone(), region: region.clone() })),
        (Some(_), None) | (None, _) => Ok(None),
    }
}

fn intent(file: &Path) -> Result<Intent, Failure> {
    let path = file.display();
    let text = read(file, LONGEST).with_context(|| format!("read {path}"))?;
    let intent =
        serde_saphyr::from_str(&text).map_err(|fault| anyhow!("{}", fault.without_snippet()));
    Ok(intent.with_context(|| format!("read {path} as a plan"))?)
}

/// The design, and what a node of each cluster holds. Clusters that are alike are simulated once.
fn laid_out(intent: &Intent) -> (Design, Vec<Sized>) {
    let mut nodes = vec![];
    let mut known = vec![];
    let design = lay_out(intent, &mut |cluster| {
        let alike = |(other, _): &&(Cluster, Result<_, String>)| {
            (&other.instance_type, other.pods_per_node, other.family, &other.settings)
                == (
                    &cluster.instance_type,
                    cluster.pods_per_node,
                    cluster.family,
                    &cluster.settings,
                )
        };
        let found = known.iter().find(alike).map(|(_, found)| found.clone());
        let found = found.unwrap_or_else(|| need(cluster));
        known.push((cluster.clone(), found.clone()));
        let need = found?;
        nodes.push(Sized {
            cluster: cluster.name.clone(),
            instance_type: cluster.instance_type.clone(),
            pods_per_node: cluster.pods_per_node,
            single: need.single,
            prefixes: need.prefixes,
        });
        Ok(need)
    });
    (design, nodes)
}

fn export(arguments: &Arguments, design: &Design, scope: Option<&Scope>) -> Result<(), Failure> {
    let write = |file: &Option<PathBuf>, text: &dyn Fn() -> anyhow::Result<String>| {
        let Some(file) = file else { return Ok(()) };
        fs::write(file, text()?).with_context(|| format!("write {}", file.display()))
    };
    write(&arguments.map, &|| {
        let options = Options {
            warn_at: MARKS.warn_at,
            fail_at: MARKS.fail_at,
            expected: vec![],
            quotas: Quotas::default(),
            pods: Pods::default(),
        };
        Ok(map::ranges(&audit(&design.inventory(), &options), MARKS))
    })?;
    write(&arguments.terraform, &|| {
        let document = terraform(design, arguments.ipam_scope.as_deref());
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    })?;
    write(&arguments.commands, &|| Ok(commands(design, scope)))?;
    Ok(())
}
