//! `ipamd check-config`: what the settings in the environment amount to, without a daemon and
//! without a call to EC2.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use aws::Imds;
use comfy_table::{Table, presets};
use command_line::{Failure, printable};
use ipam::block::BlockKind;
use ipam::policy::{Families, Needs, Placement};
use settings::registry::{ALL, Support};
use settings::{
    ApiServer, InForce, SettingError, Settings, Source, Variables, changes_text, families_text,
    limits_text, targets_text,
};

use crate::config_maps;
use crate::kubernetes::eni_config_text;
use crate::limits::{self, Known};

/// How long this command waits for the metadata service; a daemon waits until it answers.
const IMDS_TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments of `check-config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Show the effect on this instance type; without it, on the type of this node.
    #[arg(long, value_name = "TYPE")]
    instance_type: Option<String>,
}

/// Prints the settings, then limits and policy as far as the instance type is known.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (InForce { variables, settings }, _) = config_maps::recall(InForce::of_process()?);
    let mut text = format!("{}\n\n", settings_table(&variables));
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
    let asking = async { tokio::time::timeout(IMDS_TIMEOUT, Imds::connect().node_facts()).await };
    match runtime.block_on(asking) {
        Ok(Ok(facts)) => Ok(facts.instance_type),
        Ok(Err(fault)) => Err(agent::error_chain(&fault)),
        Err(_late) => Err("the instance metadata service does not answer".to_owned()),
    }
}

/// The value of each setting and where it comes from. A setting that is not built is left out unless
/// it is set.
pub(crate) fn settings_table(variables: &Variables) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["SETTING", "VALUE", "FROM"]);
    for setting in ALL {
        let (value, source) = variables.effective(setting);
        if setting.support == Support::Full || source != Source::Default {
            let shown = value.map_or_else(|| "-".to_owned(), |_| variables.shown(setting));
            table.add_row([setting.name, &printable(&shown), &source.to_string()]);
        }
    }
    table
}

fn type_text(settings: &Settings, name: &str) -> Result<String, SettingError> {
    let known = limits::without_ec2(name, &settings.state_directory);
    let Some(Known { limits, source }) = known else {
        return Ok(unknown_text(settings, format!("{name}, unknown to the built-in table")));
    };
    let mut text = String::new();
    let policy = settings::policy(settings, limits, settings::known_vcpus(name))?;
    let kind = policy.families.policy().kind;
    line(&mut text, "instance type", name.to_owned());
    line(&mut text, "limits", limits_text(limits));
    line(&mut text, "limits from", source.to_string());
    line(&mut text, "mode", families_text(policy.families));
    line(&mut text, "targets", targets_text(&policy));
    line(&mut text, "changes at EC2", changes_text(policy.provisioning).to_owned());
    line(&mut text, "max ENIs", limits.enis_allowed(&policy).to_string());
    line(&mut text, "max pods", policy.max_pods.to_string());
    let holds = match kind {
        BlockKind::V4Address | BlockKind::V4Prefix => {
            format!("{} addresses", limits.capacity(&policy))
        }
        // A node never needs a second one.
        BlockKind::V6Prefix => "one /80 prefix, that is 2^48 addresses,".to_owned(),
    };
    line(&mut text, "holds at most", format!("{holds} for pods"));
    if policy.placement == Placement::ByEniConfig {
        line(&mut text, "new ENIs", eni_config_text(&settings.state_directory));
    }
    if let Families::Dual { needs, .. } = policy.families {
        let starts = match needs {
            Needs::Each => "with an address of each family only",
            Needs::Any => "with one family if the other has no address in time",
        };
        line(&mut text, "pods start", starts.to_owned());
    }
    if let ApiServer::Unused(why) = settings.api_server {
        line(&mut text, "API server", format!("not used: {why}"));
    }
    for warning in settings::warnings(settings, &policy, limits) {
        line(&mut text, "warning", warning);
    }
    Ok(text)
}

/// What is known without the limits of the instance type.
fn unknown_text(settings: &Settings, instance_type: String) -> String {
    let mut text = String::new();
    line(&mut text, "instance type", instance_type);
    for warning in settings::setting_warnings(settings) {
        line(&mut text, "warning", warning);
    }
    text
}

fn line(text: &mut String, name: &str, value: String) {
    writeln!(text, "{name:<16} {value}").expect("a String takes everything");
}
