//! What EC2 allows this instance, from the best that there is at the start: what EC2 told an earlier
//! start, EC2, the built-in table, an assumption. It must not know what the limits are used for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::checked_file;
use aws::Ec2;
use ipam::call::CallErrorKind;
use ipam::policy::Limits;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::facts::Word;

/// How long EC2 may hold up the start: as a rule it answers within a quarter of a second, and the
/// node has pods that wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same at later starts in a boot. The first has kept EC2's answer if there was one, so another
/// is hardly to be expected.
const LATER_PATIENCE: Duration = Duration::from_millis(200);
/// In the state directory.
const FILE: &str = "tidepool-limits.json";
/// Goes up when [`Limits`] changes.
const VERSION: u32 = 1;

/// Limits, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) limits: Limits,
    pub(crate) source: Source,
}

/// Where limits are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// EC2 told an earlier start.
    Cache,
    Ec2,
    Table,
    /// Nobody knows the type.
    Assumed,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Cache => "told by EC2 at an earlier start",
            Source::Ec2 => "told by EC2",
            Source::Table => "built-in table",
            Source::Assumed => "assumed until EC2 refuses",
        })
    }
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Cached {
    version: u32,
    instance_type: String,
    limits: Limits,
}

/// The limits of this node, which is an `instance_type`. Asks EC2 at most once, and not at all
/// where an earlier start has been told; an answer that is late serves the next start.
pub(crate) async fn learn(
    ec2: &Ec2,
    instance_type: &str,
    state_directory: &Path,
    word: Word,
) -> Known {
    if let Some(known) = cached(instance_type, state_directory) {
        return known;
    }
    let file = state_directory.join(FILE);
    let mut asking = tokio::spawn(ask(ec2.clone(), instance_type.to_owned(), file));
    let patience = match word {
        Word::First => PATIENCE,
        Word::Again | Word::Kept => LATER_PATIENCE,
    };
    match tokio::time::timeout(patience, &mut asking).await {
        Ok(Ok(Some(limits))) => Known { limits, source: Source::Ec2 },
        // A panic has been printed; it is no reason not to serve.
        Ok(Ok(None) | Err(_)) => untold(instance_type),
        Err(_late) => {
            warn!(?patience, "EC2 does not tell the limits in time");
            let known = untold(instance_type);
            tokio::spawn(async move {
                if let Ok(Some(told)) = asking.await
                    && told != known.limits
                {
                    warn!(?told, in_force = ?known.limits, "limits come late; restart to use them");
                }
            });
            known
        }
    }
}

/// The limits as far as they are known without EC2.
pub(crate) fn at_hand(instance_type: &str, state_directory: &Path) -> Option<Known> {
    cached(instance_type, state_directory).or_else(|| tabled(instance_type))
}

fn tabled(instance_type: &str) -> Option<Known> {
    aws::known_limits(instance_type).map(|limits| Known { limits, source: Source::Table })
}

/// What holds as long as EC2 has not told.
fn untold(instance_type: &str) -> Known {
    tabled(instance_type).unwrap_or_else(|| {
        let limits = aws::assumed_limits(instance_type);
        warn!(instance_type, ?limits, "nobody knows the limits; assumed until EC2 refuses");
        Known { limits, source: Source::Assumed }
    })
}

/// Asks EC2, and keeps its answer for later starts.
async fn ask(ec2: Ec2, instance_type: String, file: PathBuf) -> Option<Limits> {
    let limits = match aws::instance_limits(&ec2, &instance_type).await {
        Ok(limits) => limits,
        Err(fault) => {
            let action = "ec2:DescribeInstanceTypes";
            if fault.kind == CallErrorKind::AccessDenied {
                warn!(%fault, action, "role may not ask for limits");
            } else {
                warn!(%fault, action, "EC2 does not tell the limits");
            }
            return None;
        }
    };
    if let Some(table) = aws::known_limits(&instance_type).filter(|table| *table != limits) {
        warn!(instance_type, ?limits, ?table, "EC2 tells other limits than the table; EC2's hold");
    }
    let cached = Cached { version: VERSION, instance_type, limits };
    if let Err(fault) = checked_file::write(&file, &cached) {
        warn!(fault = format!("{fault:#}"), "limits cannot be kept for the next start");
    }
    Some(limits)
}

/// What EC2 told an earlier start of a machine of this type.
fn cached(instance_type: &str, state_directory: &Path) -> Option<Known> {
    let file = state_directory.join(FILE);
    let cached = match checked_file::read::<Cached>(&file) {
        Ok(cached) => cached?,
        Err(fault) => {
            warn!(fault = format!("{fault:#}"), "kept limits cannot be used");
            return None;
        }
    };
    if (cached.version, &*cached.instance_type) != (VERSION, instance_type) {
        // An instance can be stopped and started as another type.
        info!(file = %file.display(), ?cached, instance_type, "kept limits are not this node's");
        return None;
    }
    Some(Known { limits: cached.limits, source: Source::Cache })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { enis: 7, addresses_per_eni: 9, prefixes: true };

    #[test]
    fn only_what_was_kept_for_this_type_by_this_version_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let check = |version, kept_for: &str, asked_for, expect: Option<Source>| {
            let instance_type = kept_for.to_owned();
            let cached = Cached { version, instance_type, limits: LIMITS };
            checked_file::write(&directory.path().join(FILE), &cached).unwrap();
            let found = at_hand(asked_for, directory.path());
            assert_eq!(found.map(|known| known.source), expect, "{version} {kept_for} {asked_for}");
            let is_kept = found.is_some_and(|known| known.limits == LIMITS);
            assert_eq!(is_kept, expect == Some(Source::Cache), "{version} {kept_for} {asked_for}");
        };
        check(VERSION, "m5.large", "m5.large", Some(Source::Cache));
        check(VERSION, "m5.enormous", "m5.enormous", Some(Source::Cache));
        check(VERSION, "m5.xlarge", "m5.large", Some(Source::Table));
        check(VERSION, "m5.xlarge", "m5.enormous", None);
        check(VERSION + 1, "m5.large", "m5.large", Some(Source::Table));
        std::fs::write(directory.path().join(FILE), "[\"00000000\",{}]\n").unwrap();
        assert_eq!(at_hand("m5.large", directory.path()).unwrap().source, Source::Table);
    }

    #[test]
    fn a_type_that_nobody_knows_gets_the_most_that_its_size_has() {
        assert_eq!(untold("m5.large").source, Source::Table);
        let Known { limits, source } = untold("m99.large");
        assert_eq!(source, Source::Assumed);
        let large = aws::known_types().filter(|name| name.ends_with(".large"));
        for known in large.filter_map(aws::known_limits) {
            assert!(known.enis <= limits.enis, "{known:?}");
            assert!(known.addresses_per_eni <= limits.addresses_per_eni, "{known:?}");
        }
        assert!(limits.enis < untold("m99.enormous").limits.enis);
    }
}
