//! How many neighbours the kernel keeps at once: entries of ARP for IPv4, of neighbour discovery for IPv6. Beyond its
//! hard limit the kernel drops packets to new neighbours. All network namespaces of a machine share the limits, and
//! only the first one shows them.

use std::fmt;
use std::path::Path;

use crate::host::Families;
use crate::sysctl::{self, SysctlError, SysctlReadError};

/// The kernel's folder with a family's limits.
fn folder(families: Families) -> &'static str {
    match families {
        Families::Ipv4 => "net/ipv4/neigh/default",
        Families::Ipv6 => "net/ipv6/neigh/default",
    }
}

/// What to do about a limit that is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourLimits {
    /// It is raised.
    Raise,
    /// It stays, and is an error.
    Keep,
}

/// A limit that is too low.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowLimit {
    /// The sysctl, with slashes.
    pub key: String,
    /// Its value.
    pub found: u32,
    /// The value that is enough.
    pub enough: u32,
}

impl fmt::Display for LowLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, found, enough } = self;
        write!(f, "{} is {found}, and should be {enough}", key.replace('/', "."))
    }
}

/// The kernel may drop packets, since it keeps too few neighbours.
#[derive(Debug, thiserror::Error)]
pub enum NeighbourLimitsError {
    /// A limit could not be read.
    #[error("read a limit of neighbours")]
    Read(#[source] SysctlReadError),
    /// A limit is no number.
    #[error("{key} is {value}, which is no number")]
    NoNumber {
        /// The sysctl.
        key: String,
        /// Its value.
        value: String,
    },
    /// A limit is too low, and stays.
    #[error("{0}")]
    Kept(LowLimit),
    /// A limit is too low and cannot be raised.
    #[error("{limit}")]
    Raise {
        /// The limit.
        limit: LowLimit,
        /// Why it stays.
        #[source]
        source: SysctlError,
    },
}

/// Makes the kernel keep `n` neighbours of a family for as long as they are used (`gc_thresh2`), and a quarter more
/// for a moment (`gc_thresh3`): some entries are of machines that have just gone. Returns the limits that were raised.
///
/// Limits never go down. `gc_thresh1`, below which the kernel forgets no neighbour, is left alone: images set it to 0
/// (Amazon Linux, beside 15,360 and 16,384), so that no address leads to the machine that had it before. In a network
/// namespace other than the machine's first there is nothing to read, and nothing is done.
///
/// # Errors
///
/// [`NeighbourLimitsError`], for the first limit that stays too low.
pub fn ensure(
    families: Families,
    n: u32,
    limits: NeighbourLimits,
) -> Result<Vec<LowLimit>, NeighbourLimitsError> {
    ensure_under(sysctl::root(), families, n, limits)
}

fn ensure_under(
    root: &Path,
    families: Families,
    n: u32,
    limits: NeighbourLimits,
) -> Result<Vec<LowLimit>, NeighbourLimitsError> {
    let mut raised = Vec::new();
    for (name, enough) in [("gc_thresh3", n.saturating_add(n / 4)), ("gc_thresh2", n)] {
        // The kernel's numbers are signed.
        let enough = enough.min(i32::MAX.unsigned_abs());
        let key = format!("{}/{name}", folder(families));
        let Some(limit) = low(root, key, enough)? else { continue };
        match limits {
            NeighbourLimits::Keep => return Err(NeighbourLimitsError::Kept(limit)),
            NeighbourLimits::Raise => raise(root, &limit)?,
        }
        raised.push(limit);
    }
    Ok(raised)
}

/// `None` if the limit is high enough, or not to be seen here.
fn low(root: &Path, key: String, enough: u32) -> Result<Option<LowLimit>, NeighbourLimitsError> {
    let value = match sysctl::get_under(root, &key) {
        Err(error) if error.is_missing() => return Ok(None),
        value => value.map_err(NeighbourLimitsError::Read)?,
    };
    match value.parse() {
        Ok(found) if found >= enough => Ok(None),
        Ok(found) => Ok(Some(LowLimit { key, found, enough })),
        Err(_no_number) => Err(NeighbourLimitsError::NoNumber { key, value }),
    }
}

fn raise(root: &Path, limit: &LowLimit) -> Result<(), NeighbourLimitsError> {
    let set = sysctl::set_under(root, &limit.key, &limit.enough.to_string());
    set.map(drop).map_err(|source| NeighbourLimitsError::Raise { limit: limit.clone(), source })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder like /proc/sys with these limits of IPv4: `gc_thresh1` to `gc_thresh3`.
    fn with(limits: [&str; 3]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(folder(Families::Ipv4));
        fs::create_dir_all(&folder).unwrap();
        for (n, limit) in limits.into_iter().enumerate() {
            fs::write(folder.join(format!("gc_thresh{}", n + 1)), format!("{limit}\n")).unwrap();
        }
        root
    }

    fn limits(root: &tempfile::TempDir) -> [String; 3] {
        [1, 2, 3].map(|n| {
            let key = format!("{}/gc_thresh{n}", folder(Families::Ipv4));
            sysctl::get_under(root.path(), &key).unwrap()
        })
    }

    #[test]
    fn low_limits_are_raised_and_others_stay() {
        let check = |before: [&str; 3], n, expect: [&str; 3], n_raised| {
            let root = with(before);
            let ensure =
                || ensure_under(root.path(), Families::Ipv4, n, NeighbourLimits::Raise).unwrap();
            assert_eq!(ensure().len(), n_raised, "{before:?} {n}");
            assert_eq!(limits(&root), expect, "{before:?} {n}");
            assert_eq!(ensure(), []);
        };
        check(["128", "512", "1024"], 366, ["128", "512", "1024"], 0);
        check(["128", "512", "1024"], 512, ["128", "512", "1024"], 0);
        check(["0", "512", "1024"], 513, ["0", "513", "1024"], 1);
        check(["128", "512", "1024"], 4000, ["128", "4000", "5000"], 2);
        check(["0", "15360", "16384"], 13_000, ["0", "15360", "16384"], 0);
        check(["128", "512", "4096"], 1000, ["128", "1000", "4096"], 1);
        check(["128", "512", "1024"], u32::MAX, ["128", "2147483647", "2147483647"], 2);
    }

    #[test]
    fn low_limit_that_stays_is_named() {
        let root = with(["128", "512", "1024"]);
        let fault = |n, limits| ensure_under(root.path(), Families::Ipv4, n, limits).unwrap_err();
        let kept = fault(600, NeighbourLimits::Keep).to_string();
        assert_eq!(kept, "net.ipv4.neigh.default.gc_thresh2 is 512, and should be 600");
        assert_eq!(limits(&root), ["128", "512", "1024"]);
        // As on a read-only /proc/sys.
        let hard = root.path().join(folder(Families::Ipv4)).join("gc_thresh3");
        fs::remove_file(&hard).unwrap();
        fs::create_dir(&hard).unwrap();
        let unread = fault(600, NeighbourLimits::Raise);
        assert!(matches!(unread, NeighbourLimitsError::Read(_)), "{unread:?}");
        let root = with(["128", "512", "many"]);
        let text = ensure_under(root.path(), Families::Ipv4, 9, NeighbourLimits::Raise);
        assert!(text.unwrap_err().to_string().ends_with("gc_thresh3 is many, which is no number"));
    }

    #[test]
    fn limits_that_are_not_to_be_seen_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        for limits in [NeighbourLimits::Raise, NeighbourLimits::Keep] {
            let found = ensure_under(root.path(), Families::Ipv6, 70_000, limits).unwrap();
            assert_eq!(found, []);
        }
    }
}
