//! What an installer puts on a node: programs and conflist.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::containerd::Containerd;
use crate::process::program;

/// Where the Debian package `containernetworking-plugins` has its plugins.
const DEBIAN_PLUGINS: &str = "/usr/lib/cni";
/// What containerd runs for `lo`, and what conflists chain that are older or other than ours.
const BORROWED_PLUGINS: [&str; 2] = ["loopback", "portmap"];

/// A build of the two programs that run on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The daemon.
    pub ipamd: PathBuf,
    /// The plugin.
    pub plugin: PathBuf,
}

impl Build {
    /// This checkout's; the plugin is that which ships where `TIDEPOOL_CNI` names it.
    ///
    /// # Errors
    ///
    /// If it has not been built.
    pub fn this() -> Result<Self> {
        let plugin = match std::env::var_os("TIDEPOOL_CNI") {
            Some(shipped) => PathBuf::from(shipped),
            None => program("aws-cni")?,
        };
        Ok(Self { ipamd: program("ipamd")?, plugin })
    }
}

/// Puts the plugin, the borrowed ones and our conflist where the node's runtime looks for them.
pub(crate) fn install(build: &Build, dir: &Path) -> Result<()> {
    let (bin, conf) = (Containerd::cni_bin(dir), Containerd::cni_conf(dir));
    for part in [&bin, &conf] {
        std::fs::create_dir_all(part).with_context(|| format!("make {}", part.display()))?;
    }
    install_plugin(build, dir)?;
    for name in BORROWED_PLUGINS {
        copy(&Path::new(DEBIAN_PLUGINS).join(name), &bin.join(name))?;
    }
    std::fs::write(conf.join("10-aws.conflist"), conflist(dir)?).context("write the conflist")
}

/// Nobody finds half a plugin, or none.
pub(crate) fn install_plugin(build: &Build, dir: &Path) -> Result<()> {
    let bin = Containerd::cni_bin(dir);
    let (unfinished, plugin) = (bin.join("aws-cni.new"), bin.join("aws-cni"));
    copy(&build.plugin, &unfinished)?;
    std::fs::rename(&unfinished, &plugin).with_context(|| format!("make {}", plugin.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).map(|_| ()).with_context(|| format!("copy {}", from.display()))
}

/// The shipped conflist with this node's socket and log file.
fn conflist(dir: &Path) -> Result<String> {
    let shipped = include_str!("../../deploy/10-aws.conflist");
    let mut list: Value = serde_json::from_str(shipped).context("read the conflist")?;
    let ours = &mut list["plugins"][0];
    ours["ipamdSocket"] = dir.join("ipamd.sock").display().to_string().into();
    ours["pluginLogFile"] = dir.join("plugin.log").display().to_string().into();
    Ok(list.to_string())
}
