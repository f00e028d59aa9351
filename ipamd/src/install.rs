//! What is put on the node for the container runtime: `ipamd init`, `install`, `uninstall`, and [`entry`].

pub(crate) mod entry;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use command_line::{Exit, Failure};
use installer::{CONFLIST, Choices, LOOPBACK, PLUGIN, Placed, Removed};
use settings::{InstallSettings, Settings};

use crate::asking;

/// Everybody may run the plugin, and root may change it.
const PLUGIN_MODE: u32 = 0o755;
/// Everybody may read the conflist, as they may any other.
const CONFLIST_MODE: u32 = 0o644;

/// What is installed, and where.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// Where the plugin is copied from.
    source: PathBuf,
    /// The runtime's directory of plugins.
    plugins: PathBuf,
    /// The runtime's directory of conflists.
    conflists: PathBuf,
    conflist: String,
}

impl Files {
    /// The plugin is the one beside this program. A conflist beside it is an administrator's, which takes the place of
    /// the shipped one: amazon-vpc-cni-k8s' chart mounts it there.
    pub(crate) fn of(settings: &Settings) -> anyhow::Result<Self> {
        let InstallSettings { plugins, conflists, .. } = &settings.install;
        let (plugins, conflists) = (plugins.clone(), conflists.clone());
        let conflist = conflist(settings, &beside(CONFLIST)?)?;
        Ok(Self { source: beside(PLUGIN)?, plugins, conflists, conflist })
    }

    fn put_plugin(&self) -> anyhow::Result<Placed> {
        put_plugin(&self.source, &self.plugins)
    }

    fn put_conflist(&self) -> anyhow::Result<Placed> {
        Ok(installer::put(&self.conflists, CONFLIST, self.conflist.as_bytes(), CONFLIST_MODE)?)
    }

    /// What is wrong with the directory of conflists although ours is in it.
    fn rival(&self) -> Option<String> {
        let directory = self.conflists.display();
        match installer::earlier(&self.conflists, CONFLIST) {
            Ok(None) => None,
            Ok(Some(other)) => Some(format!(
                "{other} comes before {CONFLIST} in {directory}, so the container runtime uses that; remove it if \
                 pods are to get addresses of the VPC"
            )),
            Err(fault) => Some(format!("list {directory}: {fault}")),
        }
    }
}

/// The file `name` of the directory that this program is in.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("find out where this program is")?;
    Ok(program.with_file_name(name))
}

fn put_plugin(source: &Path, plugins: &Path) -> anyhow::Result<Placed> {
    let plugin = installer::read(source)?;
    let plugin = plugin.with_context(|| format!("there is no {}", source.display()))?;
    let placed = installer::put(plugins, PLUGIN, &plugin, PLUGIN_MODE)?;
    // Without a plugin of this name containerd starts no pod. Most nodes have one.
    installer::alias(plugins, LOOPBACK, PLUGIN)?;
    Ok(placed)
}

fn conflist(settings: &Settings, own: &Path) -> anyhow::Result<String> {
    let log_level = settings.install.plugin_log_level.to_string();
    let log_file = settings.install.plugin_log_file.as_deref();
    let log_file = log_file.map_or_else(|| "stderr".to_owned(), |path| path.display().to_string());
    let socket = Some(settings.socket.as_path());
    let choices = Choices {
        veth_prefix: &settings.nat.pod_links,
        mtu: settings.pod_mtu,
        log_file: &log_file,
        log_level: &log_level,
        limits_bandwidth: settings.install.limits_bandwidth,
        socket: socket.filter(|socket| *socket != Path::new(proto::DEFAULT_SOCKET)),
    };
    match installer::read(own)? {
        None => Ok(installer::shipped(&choices)),
        Some(template) => {
            let filled = installer::filled(&template, &choices);
            filled.with_context(|| format!("{} cannot be installed", own.display()))
        }
    }
}

/// Puts the plugin on the node, as an init container does. It reads no other settings: `kubectl set env` gives them to all
/// containers, and some need what the daemon's container alone has, such as the node's name or a settings file. Without the
/// plugin no daemon would start. One that installs puts the plugin where its file says, too.
pub(crate) fn init() -> Result<(), Failure> {
    let (InstallSettings { plugins, .. }, missing) = InstallSettings::from_process()?;
    if let Some(file) = missing {
        let (file, plugins) = (file.display(), plugins.display());
        eprintln!(
            "ipamd: this container has no {file}, which TIDEPOOL_ENV_FILE names; the plugin goes to {plugins}, as the \
             environment says. If that file sets HOST_CNI_BIN_PATH, mount it in this container too"
        );
    }
    say(put_plugin(&beside(PLUGIN)?, &plugins)?, &plugins, PLUGIN);
    Ok(())
}

/// Puts plugin and conflist on the node. The conflist makes the runtime start pods, so the daemon must serve.
///
/// # Errors
///
/// [`Exit::NoAnswer`] or [`Exit::NotReady`] if no pod could get an address. The plugin is in place then.
pub(crate) fn install() -> Result<(), Failure> {
    let settings = Settings::from_process()?;
    let files = Files::of(&settings)?;
    say(files.put_plugin()?, &files.plugins, PLUGIN);
    if let Some(refused) = asking::ready(&settings.socket)? {
        let why = format!("{CONFLIST} is not installed: {}", asking::refusal(refused));
        return Err(Failure::new(Exit::NotReady, why));
    }
    say(files.put_conflist()?, &files.conflists, CONFLIST);
    if let Some(rival) = files.rival() {
        eprintln!("ipamd: {rival}");
    }
    Ok(())
}

fn say(placed: Placed, directory: &Path, name: &str) {
    let what = match placed {
        Placed::Unchanged => "is up to date",
        Placed::Added => "installed",
        Placed::Replaced => "replaced",
    };
    eprintln!("ipamd: {} {what}", directory.join(name).display());
}

/// The arguments of `uninstall`.
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArguments {
    /// Remove both files even if pods of this node still have addresses. The runtime cannot take those pods down then.
    #[arg(long)]
    force: bool,
}

/// Removes conflist and plugin. Those of amazon-vpc-cni-k8s have the same names and stay.
pub(crate) fn uninstall(arguments: &UninstallArguments) -> Result<(), Failure> {
    for line in remove(&Settings::from_process()?, arguments.force)? {
        eprintln!("ipamd: {line}");
    }
    Ok(())
}

/// One line for each file.
fn remove(settings: &Settings, force: bool) -> anyhow::Result<Vec<String>> {
    let InstallSettings { plugins, conflists, .. } = &settings.install;
    let path = conflists.join(CONFLIST);
    let found = installer::read(&path).context("nothing is removed")?;
    if found.is_some_and(|found| !installer::is_ours(&found)) {
        bail!("{} is not ipamd's, so nothing is removed", path.display());
    }
    if !force {
        check_no_pods(&settings.state_directory)?;
    }
    // The conflist first: from then on the runtime starts no pod.
    let removed = [
        (path, installer::remove(conflists, CONFLIST)?),
        (plugins.join(LOOPBACK), installer::remove_alias(plugins, LOOPBACK, PLUGIN)?),
        (plugins.join(PLUGIN), installer::remove(plugins, PLUGIN)?),
    ];
    let line = |(path, removed): (PathBuf, Removed)| match removed {
        Removed::Gone => Some(format!("{} removed", path.display())),
        Removed::Absent => None,
    };
    Ok(removed.into_iter().filter_map(line).collect())
}

/// Refuses while pods are on record: without plugin and conflist the runtime cannot take them down.
fn check_no_pods(directory: &Path) -> anyhow::Result<()> {
    let record = agent::migration::read_record(directory)?;
    let n_pods = record.map_or(0, |record| record.assignments().len());
    if n_pods > 0 {
        bail!("{n_pods} pods of this node have addresses: drain the node first, or use --force");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
