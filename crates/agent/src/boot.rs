//! The id of the machine's boot.

use std::{fs, io};

use ipam::id::BootId;

/// Linux makes a new id at each boot, also on a machine that was made from another machine's disk.
/// Source: random(4).
const FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The id of the current boot.
///
/// # Errors
///
/// If the file in `/proc` cannot be read.
pub fn boot_id() -> io::Result<BootId> {
    Ok(BootId(fs::read_to_string(FILE)?.trim().to_owned()))
}
