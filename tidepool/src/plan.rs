//! `tidepool plan`: what a node would hold and what that costs, without a node and without a call to
//! EC2.
//!
//! A flag is read as the setting of the same meaning. The environment is not read, so that the same
//! command prints the same everywhere.

mod json;
mod table;

use std::io::Write as _;

use anyhow::Context as _;
use command_line::{Exit, Failure, Output};
use ipam::forecast::{Forecast, forecast};
use ipam::policy::{Limits, Policy};
use settings::registry::{
    self, AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG, ENABLE_IPv6, ENABLE_PREFIX_DELEGATION, Flag,
    KUBERNETES_SERVICE_HOST, MY_NODE_NAME, Setting,
};
use settings::{SettingError, Settings};

/// The most names of instance types that the error for an unknown one suggests.
const MAX_SUGGESTIONS: usize = 6;

/// The arguments of `plan`. A setting is text here, since the settings check it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// For example `m5.large`.
    #[arg(long, value_name = "TYPE")]
    instance_type: String,
    /// The number of pods with an address of their own.
    #[arg(long, value_name = "N")]
    pods: u32,
    #[command(flatten)]
    settings: SettingFlags,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// The flags that the registry of settings names, each with its value if it is given.
#[derive(Debug)]
pub(crate) struct SettingFlags(Vec<(&'static Setting, String)>);

fn flags() -> impl Iterator<Item = (&'static Setting, Flag)> {
    registry::ALL.iter().filter_map(|setting| Some((*setting, setting.flag?)))
}

impl clap::Args for SettingFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let args = flags().map(|(setting, flag)| {
            let Setting { name, meaning, .. } = setting;
            let arg = clap::Arg::new(*name).help(format!("{meaning} ({name})").replace('`', ""));
            match flag {
                Flag::Switch(long) => arg.long(long).action(clap::ArgAction::SetTrue),
                Flag::Number(long) => arg.long(long).value_name("N"),
            }
        });
        let not_both = |arg: clap::Arg| arg.conflicts_with(ENABLE_PREFIX_DELEGATION.name);
        command.args(args).mut_arg(ENABLE_IPv6.name, not_both)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let given = flags().filter_map(|(setting, flag)| {
            let value = match flag {
                Flag::Switch(_) => matches.get_flag(setting.name).then(|| "true".to_owned()),
                Flag::Number(_) => matches.get_one::<String>(setting.name).cloned(),
            };
            Some((setting, value?))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A forecast and what it is for.
struct Planned<'a> {
    instance_type: &'a str,
    n_pods: u32,
    limits: Limits,
    policy: Policy,
    forecast: Forecast,
    /// What the flags ask for and do not get, one sentence each.
    warnings: Vec<String>,
}

/// The settings and limits of a node of `instance_type`, and its policy.
pub(crate) fn node_of(
    instance_type: &str,
    flags: &SettingFlags,
) -> Result<(Settings, Limits, Policy), Failure> {
    let settings = settings(flags)?;
    let limits = settings::known_limits(instance_type).ok_or_else(|| unknown(instance_type))?;
    let policy = settings::policy(&settings, limits, settings::known_vcpus(instance_type))?;
    Ok((settings, limits, policy))
}

/// Runs the engine until it has nothing more to do, and prints the pool that it has then.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let instance_type = &arguments.instance_type;
    let (settings, limits, policy) = node_of(instance_type, &arguments.settings)?;
    let planned = Planned {
        instance_type,
        n_pods: arguments.pods,
        limits,
        forecast: forecast(limits, policy.clone(), arguments.pods),
        warnings: settings::pool_warnings(&settings, &policy, limits),
        policy,
    };
    let text = match arguments.output {
        Output::Table => table::render(&planned),
        Output::Json => json::render(&planned).context("write the plan as JSON")?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the plan")?;
    Ok(())
}

/// The settings that the flags stand for. Pods on IPv6 need a prefix, so `--ipv6` asks for it too.
fn settings(SettingFlags(given): &SettingFlags) -> Result<Settings, SettingError> {
    let mut variables: Vec<_> =
        given.iter().map(|(setting, value)| (setting.name.to_owned(), value.clone())).collect();
    if given.iter().any(|(setting, _)| *setting == &ENABLE_IPv6) {
        variables.push((ENABLE_PREFIX_DELEGATION.name.to_owned(), "true".to_owned()));
    }
    // The daemon needs an API server that names the ENIConfig. Here one with a subnet is taken for granted.
    if given.iter().any(|(setting, _)| *setting == &AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG) {
        for known in [&KUBERNETES_SERVICE_HOST, &MY_NODE_NAME] {
            variables.push((known.name.to_owned(), "any".to_owned()));
        }
    }
    Settings::read(&variables.into_iter().collect())
}

fn unknown(instance_type: &str) -> Failure {
    let close = close_to(instance_type);
    let close = if close.is_empty() {
        "names are written like m5.large".to_owned()
    } else {
        format!("close to it: {}", close.join(", "))
    };
    let what = format!("instance type {instance_type:?} is not in the built-in table");
    Failure::new(Exit::Usage, format!("{what}; {close}"))
}

/// Known types of the same family, or that share at least half of their letters with
/// `instance_type`; the closest first.
fn close_to(instance_type: &str) -> Vec<&'static str> {
    let typed = instance_type.to_ascii_lowercase();
    let family = |name: &str| name.split_once('.').map(|(family, _size)| family.to_owned());
    let mut close: Vec<_> = settings::known_types()
        .map(|name| (typed.len().max(name.len()), n_shared(&typed, name), name))
        .filter(|(len, n, name)| 2 * n >= *len || family(&typed) == family(name))
        .map(|(len, n, name)| (len - n, name))
        .collect();
    close.sort_unstable();
    close.into_iter().map(|(_, name)| name).take(MAX_SUGGESTIONS).collect()
}

/// How many bytes two names share at their starts and ends. A single typing error changes one or two
/// bytes, so the rest is shared.
fn n_shared(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let start = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[start..], &b[start..]);
    start + a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_type_suggests_the_closest_first() {
        let check = |typed: &str, expect: Option<&str>| {
            assert_eq!(close_to(typed).first().copied(), expect, "{typed}");
        };
        check("t3.smal", Some("t3.small"));
        check("t3.samll", Some("t3.small"));
        check("M5.Large", Some("m5.large"));
        check("m5large", Some("m5.large"));
        check("p3dn.24xlarg", Some("p3dn.24xlarge"));
        check("", None);
        check("kangaroo", None);
        let family = close_to("m5.enormous");
        assert!(family.iter().all(|name| name.starts_with("m5.")), "{family:?}");
        assert_eq!(family.len(), MAX_SUGGESTIONS);
    }
}
