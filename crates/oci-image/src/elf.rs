//! What an executable says of itself: for which machine it is, and which libraries it loads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// An executable in the format ELF.
#[derive(Debug)]
pub(crate) struct Elf {
    path: PathBuf,
    /// The whole file.
    pub(crate) bytes: Vec<u8>,
    /// The name that images have for the machine.
    pub(crate) architecture: &'static str,
}

/// The offset of `e_machine`, a number of two bytes, and the values that we build for.
/// Source: System V ABI, "ELF Header".
const MACHINE: std::ops::Range<usize> = 18..20;
const MACHINES: [(u16, &str); 2] = [(62, "amd64"), (183, "arm64")];

impl Elf {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let machine = match (bytes.starts_with(b"\x7fELF"), bytes.get(MACHINE)) {
            (true, Some(&[low, high])) => u16::from_le_bytes([low, high]),
            _ => bail!("{} is not an executable", path.display()),
        };
        let known = MACHINES.iter().find(|(number, _)| *number == machine);
        let (_, architecture) =
            known.with_context(|| format!("{} is for machine {machine}", path.display()))?;
        Ok(Self { path: path.to_owned(), bytes, architecture })
    }

    /// The shared libraries that this program loads on this machine, by the path at which it looks for them. None for a
    /// static program.
    pub(crate) fn libraries(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let path = self.path.display();
        let out = Command::new("ldd").env("LC_ALL", "C").arg(&self.path).output();
        let out = out.context("run ldd")?;
        let printed = String::from_utf8_lossy(&out.stdout);
        let said = format!("{printed}{}", String::from_utf8_lossy(&out.stderr));
        if said.contains("statically linked") || said.contains("not a dynamic executable") {
            return Ok(BTreeMap::new());
        }
        if !out.status.success() || printed.contains("not found") {
            bail!("the libraries of {path} cannot be found: {}", said.trim());
        }
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, or the loader's path alone.
        let paths = printed
            .lines()
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        paths
            .map(|path| {
                let bytes = fs::read(path).with_context(|| format!("read {path}"))?;
                Ok((path.to_owned(), bytes))
            })
            .collect()
    }
}
