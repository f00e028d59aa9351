//! `ipamd check-config`: what the settings in the environment amount to, without a daemon and
//! without a call to EC2.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use aws::Imds;
use ipam::policy::{Limits, Mode, Policy, Targets};

use crate::exit::Failure;
use crate::limits::{self, Known};
use crate::node;
use crate::settings::{LogTarget, SettingError, Settings};

/// How long the metadata service may take here; a daemon would wait for it.
const IMDS_PATIENCE: Duration = Duration::from_secs(5);

/// Of `check-config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Show the effect on this instance type; without it, on the type of this node.
    #[arg(long, value_name = "TYPE")]
    instance_type: Option<String>,
}

/// Prints settings, then limits and policy as far as the instance type is known.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let settings = Settings::from_process()?;
    let mut text = settings_text(&settings);
    let instance_type = arguments.instance_type.clone().map_or_else(type_of_this_node, Ok);
    match instance_type {
        Ok(name) => text.push_str(&type_text(&settings, &name)?),
        Err(why) => text.push_str(&unknown_text(&settings, format!("unknown: {why}"))),
    }
    std::io::stdout().write_all(text.as_bytes()).context("print the settings")?;
    Ok(())
}

fn type_of_this_node() -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|fault| fault.to_string())?;
    let asking = async { tokio::time::timeout(IMDS_PATIENCE, Imds::connect().node_facts()).await };
    match runtime.block_on(asking) {
        Ok(Ok(facts)) => Ok(facts.instance_type),
        Ok(Err(fault)) => Err(agent::error_chain(&fault)),
        Err(_late) => Err("the instance metadata service does not answer".to_owned()),
    }
}

fn settings_text(settings: &Settings) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| line(&mut text, name, value);
    let log_target = match &settings.log_target {
        LogTarget::Stdout => "stdout".to_owned(),
        LogTarget::Stderr => "stderr".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    };
    let list = |tags: &std::collections::BTreeMap<String, String>| {
        let tags = tags.iter().map(|(key, value)| format!("{key}={value}"));
        tags.collect::<Vec<_>>().join(" ")
    };
    let span = |span| humantime::format_duration(span).to_string();
    line("cooldown", span(settings.cooldown));
    line("add wait", span(settings.add_wait));
    line("grow delay", span(settings.grow_delay));
    line("shrink delay", span(settings.shrink_delay));
    line("minimum ENI age", span(settings.min_eni_age));
    line("leaked ENI age", settings.leak_age.map_or_else(|| "-".to_owned(), span));
    line("cluster", settings.cluster.clone().unwrap_or_else(|| "-".to_owned()));
    line("ENI tags", list(&settings.eni_tags));
    line("manage untagged", settings.manage_untagged.to_string());
    line("MTU", settings.mtu.to_string());
    line("EC2 endpoint", settings.ec2_endpoint.clone().unwrap_or_else(|| "-".to_owned()));
    line("HTTP time-out", span(settings.http_timeout));
    line("socket", settings.socket.display().to_string());
    let runtime = settings.runtime_socket.as_ref();
    let runtime = runtime.map_or_else(|| "-".to_owned(), |socket| socket.display().to_string());
    line("runtime's socket", runtime);
    let metrics = settings
        .metrics_port
        .map_or_else(|| "none".to_owned(), |port| format!("port {port}, path /metrics"));
    line("metrics", metrics);
    line("state directory", settings.state_directory.display().to_string());
    line("log", format!("{log_target}, {}", settings.log_level.to_string().to_lowercase()));
    text
}

fn type_text(settings: &Settings, name: &str) -> Result<String, SettingError> {
    let known = limits::at_hand(name, &settings.state_directory);
    let Some(Known { limits, source }) = known else {
        return Ok(unknown_text(settings, format!("{name}, unknown to the built-in table")));
    };
    let mut text = String::new();
    let policy = node::policy(settings, limits, aws::known_vcpus(name))?;
    line(&mut text, "instance type", name.to_owned());
    line(&mut text, "limits", limits_text(limits));
    line(&mut text, "limits from", source.to_string());
    line(&mut text, "mode", mode_text(policy.mode).to_owned());
    line(&mut text, "targets", targets_text(&policy));
    line(&mut text, "max ENIs", limits.enis_allowed(&policy).to_string());
    line(&mut text, "max pods", policy.max_pods.to_string());
    let holds = match policy.mode {
        Mode::SecondaryIp | Mode::Prefix => format!("{} addresses", limits.capacity(&policy)),
        // One is all that it ever needs.
        Mode::Ipv6 => "one /80 prefix, that is 2^48 addresses,".to_owned(),
    };
    line(&mut text, "holds at most", format!("{holds} for pods"));
    for warning in node::warnings(settings, &policy, limits) {
        line(&mut text, "warning", warning);
    }
    Ok(text)
}

/// What holds on every instance.
fn unknown_text(settings: &Settings, instance_type: String) -> String {
    let mut text = String::new();
    line(&mut text, "instance type", instance_type);
    for warning in node::setting_warnings(settings) {
        line(&mut text, "warning", warning);
    }
    text
}

pub(crate) fn limits_text(limits: Limits) -> String {
    let Limits { enis, addresses_per_eni, prefixes } = limits;
    let prefixes = if prefixes { "prefixes" } else { "no prefixes" };
    format!("{enis} ENIs, {addresses_per_eni} addresses on each, {prefixes}")
}

pub(crate) fn mode_text(mode: Mode) -> &'static str {
    match mode {
        Mode::SecondaryIp => "secondary-ip",
        Mode::Prefix => "prefix",
        Mode::Ipv6 => "ipv6",
    }
}

pub(crate) fn targets_text(policy: &Policy) -> String {
    if policy.mode == Mode::Ipv6 {
        return "one /80 prefix for all pods".to_owned();
    }
    match policy.targets {
        Targets::WarmEni(n) => format!("free addresses worth {n} ENIs (WARM_ENI_TARGET)"),
        Targets::WarmPrefix(n) => format!("{n} free prefixes (WARM_PREFIX_TARGET)"),
        Targets::Ip { warm, minimum } => {
            format!("{warm} free addresses (WARM_IP_TARGET), {minimum} in all (MINIMUM_IP_TARGET)")
        }
    }
}

fn line(text: &mut String, name: &str, value: String) {
    writeln!(text, "{name:<16} {value}").expect("a String takes everything");
}
