//! `ipamd doctor`: compares record, kernel, EC2 and metadata service, and looks at what the daemon and the plugin need.
//! The daemon does the comparing where it has the data. Nothing is changed.

mod daemon;
mod files;
mod kernel;
mod metadata;
mod report;

use std::path::PathBuf;

use anyhow::Context as _;
use command_line::{Exit, Failure, Output};
use proto::v1::ViewReply;
use settings::{InForce, Settings, Variables};

pub(crate) use self::report::Finding;
use self::report::Report;
use crate::asking;
use crate::status::{json::pretty, print};

/// The arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    places: Places,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Where daemon, plugin and configuration are.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Places {
    /// Where the daemon listens. By default the value of `TIDEPOOL_SOCKET`, or its default.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Where the runtime reads its network configuration. By default /host/etc/cni/net.d if there is one, else
    /// /etc/cni/net.d.
    #[arg(long, value_name = "PATH")]
    cni_conf_dir: Option<PathBuf>,
    /// Where the runtime finds the plugin. By default /host/opt/cni/bin if there is one, else /opt/cni/bin.
    #[arg(long, value_name = "PATH")]
    cni_bin_dir: Option<PathBuf>,
}

/// Compares, and prints what was found.
///
/// # Errors
///
/// [`Exit::Differs`] if something is not as it should be.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (settings, _, faults) = settings_of_process()?;
    let report = examine(&arguments.places, &settings, faults)?;
    let text = match arguments.output {
        Output::Table => report.text(),
        Output::Json => pretty(&report).context("write the findings as JSON")?,
    };
    print(&text)?;
    match report.n_differences() {
        0 => Ok(()),
        n => Err(Failure::new(Exit::Differs, format!("differences: {n}"))),
    }
}

/// Compares everything. `faults` are those of the settings.
pub(crate) fn examine(
    places: &Places,
    settings: &Settings,
    faults: Vec<Finding>,
) -> Result<Report, Failure> {
    let mut report = Report::default();
    report.note("settings", Ok(faults));
    let socket = places.socket.clone().unwrap_or_else(|| settings.socket.clone());
    let view = daemon::examine(&socket, &mut report);
    let directories = files::Directories::of(&places.cni_conf_dir, &places.cni_bin_dir);
    let runtime = asking::runtime()?;
    runtime.block_on(async {
        let state = files::state(&settings.state_directory, view.is_some()).await;
        report.note("daemon's files", Ok(state));
        let plugin = files::plugin(&directories, &socket).await;
        report.note("plugin and its configuration", plugin);
        kernel::examine(&socket, settings, view.as_ref(), &mut report).await;
        metadata::examine(view.as_ref(), &mut report).await;
    });
    Ok(report)
}

/// The settings of this process, which are the daemon's in its container. Bad ones are a finding, and the defaults hold
/// for the rest.
pub(crate) fn settings_of_process() -> Result<(Settings, Variables, Vec<Finding>), Failure> {
    match InForce::of_process() {
        Ok(InForce { settings, variables }) => {
            let warnings = settings::setting_warnings(&settings);
            let warnings = warnings.iter().filter_map(|warning| warning.split_once(": "));
            let advice = "change the setting as the text says; see ipamd check-config";
            let notices = warnings
                .map(|(name, text)| Finding::notice("setting_without_effect", name, text, advice));
            let notices = notices.collect();
            Ok((settings, variables, notices))
        }
        Err(fault) => {
            let advice = "correct it; the daemon does not start with it";
            let bad = Finding::difference("bad_setting", "settings", fault.to_string(), advice);
            let InForce { settings, variables } = InForce::read(Variables::default())?;
            Ok((settings, variables, vec![bad]))
        }
    }
}

/// The configuration that starts our plugin, and the plugin's log that it names.
pub(crate) fn conflist(places: &Places) -> Option<(PathBuf, Option<PathBuf>)> {
    files::ours(&files::Directories::of(&places.cni_conf_dir, &places.cni_bin_dir))
}

/// Whether pods have IPv6 addresses.
fn has_ipv6(view: &ViewReply) -> bool {
    view.mode.contains("ipv6")
}
