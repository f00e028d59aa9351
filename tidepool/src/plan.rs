//! `tidepool plan`: what a node would hold and what that costs, without a node and without a call to
//! EC2. The flags are read as the settings of the same meaning; the environment is left out, so
//! that the same command prints the same everywhere.

mod json;
mod table;

use std::io::Write as _;

use anyhow::Context as _;
use ipam::forecast::{Forecast, forecast};
use ipam::policy::{Limits, Policy};
use settings::{SettingError, Settings};

use crate::exit::{Exit, Failure};
use crate::output::Output;

/// How many names of instance types a mistyped one is answered with.
const MOST_CLOSE_TYPES: usize = 6;

/// Of `plan`. What the settings judge is text here.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// For example `m5.large`.
    #[arg(long, value_name = "TYPE")]
    instance_type: String,
    /// How many pods with an address of their own.
    #[arg(long, value_name = "N")]
    pods: u32,
    /// `ENABLE_PREFIX_DELEGATION`: /28 prefixes instead of single addresses.
    #[arg(long)]
    prefix_delegation: bool,
    /// `ENABLE_IPv6`, with what belongs to it: one /80 prefix for all pods.
    #[arg(long, conflicts_with = "prefix_delegation")]
    ipv6: bool,
    /// `WARM_ENI_TARGET`: free addresses worth this many whole ENIs.
    #[arg(long, value_name = "N")]
    warm_eni_target: Option<String>,
    /// `WARM_IP_TARGET`: free addresses to keep.
    #[arg(long, value_name = "N")]
    warm_ip_target: Option<String>,
    /// `MINIMUM_IP_TARGET`: addresses to hold in all.
    #[arg(long, value_name = "N")]
    minimum_ip_target: Option<String>,
    /// `WARM_PREFIX_TARGET`: wholly free prefixes to keep.
    #[arg(long, value_name = "N")]
    warm_prefix_target: Option<String>,
    /// `MAX_ENI`: at most so many ENIs.
    #[arg(long, value_name = "N")]
    max_eni: Option<String>,
    /// `TIDEPOOL_MAX_PODS`: the pool does not grow beyond so many addresses.
    #[arg(long, value_name = "N")]
    max_pods: Option<String>,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// A forecast and what it is for.
struct Planned<'a> {
    instance_type: &'a str,
    n_pods: u32,
    limits: Limits,
    policy: Policy,
    forecast: Forecast,
    /// What will not be as the user may think, one sentence each.
    warnings: Vec<String>,
}

/// Runs the engine and prints where it comes to rest.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let settings = settings(arguments)?;
    let instance_type = &arguments.instance_type;
    let limits = settings::known_limits(instance_type).ok_or_else(|| unknown(instance_type))?;
    let policy = settings::policy(&settings, limits, settings::known_vcpus(instance_type))?;
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

fn settings(arguments: &Arguments) -> Result<Settings, SettingError> {
    let prefixes = arguments.prefix_delegation || arguments.ipv6;
    let set = [
        ("WARM_ENI_TARGET", &arguments.warm_eni_target),
        ("WARM_IP_TARGET", &arguments.warm_ip_target),
        ("MINIMUM_IP_TARGET", &arguments.minimum_ip_target),
        ("WARM_PREFIX_TARGET", &arguments.warm_prefix_target),
        ("MAX_ENI", &arguments.max_eni),
        ("TIDEPOOL_MAX_PODS", &arguments.max_pods),
        ("ENABLE_PREFIX_DELEGATION", &Some(prefixes.to_string())),
        ("ENABLE_IPv6", &Some(arguments.ipv6.to_string())),
    ]
    .map(|(name, value)| value.clone().map(|value| (name.to_owned(), value)));
    Settings::from_variables(set.into_iter().flatten())
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

/// Known types of the same family, or with at least half of their letters in common; the closest
/// first.
fn close_to(instance_type: &str) -> Vec<&'static str> {
    let typed = instance_type.to_ascii_lowercase();
    let family = |name: &str| name.split_once('.').map(|(family, _size)| family.to_owned());
    let mut close: Vec<_> = settings::known_types()
        .map(|name| (typed.len().max(name.len()), n_shared(&typed, name), name))
        .filter(|(len, n, name)| 2 * n >= *len || family(&typed) == family(name))
        .map(|(len, n, name)| (len - n, name))
        .collect();
    close.sort_unstable();
    close.into_iter().map(|(_, name)| name).take(MOST_CLOSE_TYPES).collect()
}

/// How many bytes two names share at their starts and ends. One slip of the fingers leaves all
/// but one or two of them.
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
    fn the_closest_type_comes_first() {
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
        assert_eq!(family.len(), MOST_CLOSE_TYPES);
    }
}
