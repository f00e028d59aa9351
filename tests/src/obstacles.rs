//! What keeps a daemon from its work: a small disk, and another program's table.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::exec::ExecNode;
use crate::process::{PATIENCE, eventually, in_netns, output};

/// A small file system, which the end of the value takes away.
#[derive(Debug)]
pub struct Tmpfs(pub PathBuf);

impl Tmpfs {
    /// Mounts one of 64 KiB under a path of this process and `name`.
    ///
    /// # Errors
    ///
    /// If it cannot be mounted.
    pub async fn mount(name: &str) -> Result<Self> {
        let path = PathBuf::from(format!("/run/tp-state-{name}{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        let mount = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
        output(Command::new("mount").args(mount).arg(&path)).await?;
        Ok(Self(path))
    }

    /// Takes all of its room.
    ///
    /// # Errors
    ///
    /// If it takes no file.
    pub fn fill(&self) -> Result<()> {
        let mut filler = std::fs::File::create(self.0.join("filler"))?;
        while filler.write_all(&[0; 512]).is_ok() {}
        Ok(())
    }

    /// Gives back the room that [`fill`](Self::fill) has taken.
    ///
    /// # Errors
    ///
    /// If the file cannot be removed.
    pub fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.0.join("filler"))?)
    }

    /// Mounts it anew with `option`, such as `ro`.
    ///
    /// # Errors
    ///
    /// If it cannot be mounted.
    pub async fn remount(&self, option: &str) -> Result<()> {
        let options = format!("remount,{option}");
        output(Command::new("mount").args(["-o", &options]).arg(&self.0)).await.map(|_| ())
    }

    /// A path on it for `AWS_VPC_K8S_CNI_BACKING_STORE`.
    #[must_use]
    pub fn store(&self) -> String {
        self.0.join("ipam.json").display().to_string()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        if unmounted.is_ok_and(|status| status.success()) {
            std::fs::remove_dir(&self.0).ok();
        }
    }
}

/// Another program owns a table of our name until it ends. So the kernel refuses ours with EPERM. Its end is that of
/// its standard input.
///
/// # Errors
///
/// If `nft` cannot make the table.
pub async fn own_nat_table(node: &ExecNode) -> Result<Child> {
    let mut owner = in_netns(&node.netns, "nft");
    owner.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
    let mut owner = owner.spawn().context("start nft")?;
    let stdin = owner.stdin.as_mut().context("no stdin")?;
    stdin.write_all(b"add table ip tidepool { flags owner; }\n").await?;
    eventually("table of another owner", PATIENCE, async || {
        let tables = output(in_netns(&node.netns, "nft").args(["list", "tables"])).await?;
        ensure!(tables.contains("ip tidepool"), "{tables}");
        Ok(())
    })
    .await?;
    Ok(owner)
}
