//! Which start of the machine this is.

use std::{fs, io};

use ipam::id::BootId;

/// Linux makes it anew at each start, also on a machine made from another one's disk.
const FILE: &str = "/proc/sys/kernel/random/boot_id";

/// This start of the machine.
///
/// # Errors
///
/// If `/proc` does not tell.
pub fn boot_id() -> io::Result<BootId> {
    Ok(BootId(fs::read_to_string(FILE)?.trim().to_owned()))
}
