//! The cgroup under which a node's kubelet has all its pods. [`super::enclosure`] removes it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// Makes it, in every hierarchy: one with version 2, several with version 1.
pub(super) fn make(name: &str) -> Result<()> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        let controllers =
            fs::read_to_string(root.join("cgroup.controllers")).context("read the controllers")?;
        let all: Vec<_> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
        let passed_on = root.join("cgroup.subtree_control");
        fs::write(passed_on, all.join(" ")).context("pass all controllers on to cgroups")?;
        return make_in(root, name);
    }
    let entries = fs::read_dir(root).with_context(|| format!("list {ROOT}"))?;
    let hierarchies = entries.filter_map(|entry| Some(entry.ok()?.path()));
    // Others are symbolic links to hierarchies of several controllers.
    hierarchies
        .filter(|path| path.is_dir() && !path.is_symlink())
        .try_for_each(|path| make_in(&path, name))
}

fn make_in(hierarchy: &Path, name: &str) -> Result<()> {
    let cgroup = hierarchy.join(name);
    fs::create_dir_all(&cgroup).with_context(|| format!("make {}", cgroup.display()))?;
    // With version 1 a new cgroup has no CPU.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if hierarchy.join("tasks").exists() && hierarchy.join(file).exists() {
            let value = fs::read(hierarchy.join(file)).with_context(|| format!("read {file}"))?;
            fs::write(cgroup.join(file), value).with_context(|| format!("write {file}"))?;
        }
    }
    Ok(())
}
