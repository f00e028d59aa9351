//! What EC2 allows this instance. The sources, the best first: the answer that an earlier start has kept,
//! EC2, the built-in table, an assumption. It must not know what the limits are used for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::{checked_file, error_chain};
use aws::Ec2;
use ipam::call::CallErrorKind;
use ipam::policy::Limits;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::facts::FactsSource;

/// How long the first start of a boot waits for EC2. EC2 usually answers within a quarter of a second,
/// and the node has pods that wait.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long later starts of a boot wait. The first start has kept EC2's answer if it got one, so a
/// later start asks only if EC2 did not answer then, and it hardly answers now.
const LATER_TIMEOUT: Duration = Duration::from_millis(200);
/// In the state directory.
const FILE: &str = "tidepool-limits.json";
/// Goes up when [`Limits`] changes.
const VERSION: u32 = 1;

/// Limits, and where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) limits: Limits,
    pub(crate) source: Source,
}

/// The limits of a start.
#[derive(Debug)]
pub(crate) struct Learnt {
    pub(crate) known: Known,
    /// EC2's answer, if it comes after the start has gone on without it and differs. At most one.
    pub(crate) late: mpsc::Receiver<Limits>,
}

/// Where limits come from. `ipamd status` and the log show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// EC2's answer to an earlier start.
    Kept,
    Ec2,
    Table,
    /// Neither EC2 nor the table knows the type.
    Assumed,
    /// The table, until EC2's late answer.
    TableUntilEc2,
    /// An assumption, until EC2's late answer.
    AssumedUntilEc2,
}

impl Source {
    /// The source while EC2's answer is still to come.
    fn until_ec2(self) -> Self {
        match self {
            Source::Table => Source::TableUntilEc2,
            Source::Assumed => Source::AssumedUntilEc2,
            Source::Kept | Source::Ec2 | Source::TableUntilEc2 | Source::AssumedUntilEc2 => self,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Kept => "EC2, at an earlier start",
            Source::Ec2 => "EC2",
            Source::Table => "built-in table",
            Source::Assumed => "assumed until EC2 refuses",
            Source::TableUntilEc2 => "built-in table until EC2 answers",
            Source::AssumedUntilEc2 => "assumed until EC2 answers or refuses",
        })
    }
}

/// The contents of the file.
#[derive(Debug, Serialize, Deserialize)]
struct LimitsFile {
    version: u32,
    instance_type: String,
    limits: Limits,
}

/// The limits of this node, which is an `instance_type`. Asks EC2 at most once, and not at all if an
/// earlier start has kept its answer. An answer that comes too late for the start takes effect when it
/// comes.
pub(crate) async fn learn(
    ec2: &Ec2,
    instance_type: &str,
    state_directory: &Path,
    facts_source: FactsSource,
) -> Learnt {
    let (late_answer, late) = mpsc::channel(1);
    if let Some(known) = kept(instance_type, state_directory) {
        return Learnt { known, late };
    }
    let file = state_directory.join(FILE);
    let mut asking = tokio::spawn(ask_ec2(ec2.clone(), instance_type.to_owned(), file));
    let timeout = match facts_source {
        FactsSource::FirstAnswer => FIRST_TIMEOUT,
        FactsSource::LaterAnswer | FactsSource::Kept => LATER_TIMEOUT,
    };
    let known = match tokio::time::timeout(timeout, &mut asking).await {
        Ok(Ok(Some(limits))) => Known { limits, source: Source::Ec2 },
        // A panic has been printed; the node serves pods all the same.
        Ok(Ok(None) | Err(_)) => fallback(instance_type),
        Err(_late) => {
            warn!(?timeout, "EC2 does not answer with the limits in time");
            let Known { limits, source } = fallback(instance_type);
            tokio::spawn(async move {
                if let Ok(Some(answer)) = asking.await
                    && answer != limits
                {
                    // Fails only if the daemon ends.
                    let _ = late_answer.send(answer).await;
                }
            });
            Known { limits, source: source.until_ec2() }
        }
    };
    Learnt { known, late }
}

/// The limits of this node where EC2 is never asked.
pub(crate) fn learn_without_ec2(instance_type: &str, state_directory: &Path) -> Learnt {
    let known = kept(instance_type, state_directory).unwrap_or_else(|| fallback(instance_type));
    let (_never, late) = mpsc::channel(1);
    Learnt { known, late }
}

/// The limits as far as they are known without asking EC2.
pub(crate) fn without_ec2(instance_type: &str, state_directory: &Path) -> Option<Known> {
    kept(instance_type, state_directory).or_else(|| from_table(instance_type))
}

fn from_table(instance_type: &str) -> Option<Known> {
    settings::known_limits(instance_type).map(|limits| Known { limits, source: Source::Table })
}

/// The limits while there is no answer from EC2.
fn fallback(instance_type: &str) -> Known {
    from_table(instance_type).unwrap_or_else(|| {
        let limits = settings::assumed_limits(instance_type);
        warn!(
            instance_type,
            ?limits,
            "unknown instance type; limits are assumed until EC2 refuses"
        );
        Known { limits, source: Source::Assumed }
    })
}

/// Asks EC2 and keeps its answer for later starts.
async fn ask_ec2(ec2: Ec2, instance_type: String, file: PathBuf) -> Option<Limits> {
    let limits = match aws::instance_limits(&ec2, &instance_type).await {
        Ok(limits) => limits,
        Err(fault) => {
            let action = "ec2:DescribeInstanceTypes";
            if fault.kind == CallErrorKind::AccessDenied {
                warn!(%fault, action, "role may not ask for limits");
            } else {
                warn!(%fault, action, "EC2 does not answer with the limits");
            }
            return None;
        }
    };
    if let Some(table) = settings::known_limits(&instance_type).filter(|table| *table != limits) {
        warn!(instance_type, ?limits, ?table, "EC2's limits differ from the table; EC2's are used");
    }
    let contents = LimitsFile { version: VERSION, instance_type, limits };
    if let Err(fault) = checked_file::write(&file, &contents) {
        warn!(fault = error_chain(fault.as_ref()), "limits cannot be kept for the next start");
    }
    Some(limits)
}

/// EC2's answer to an earlier start, if that start was of the same instance type.
fn kept(instance_type: &str, state_directory: &Path) -> Option<Known> {
    let path = state_directory.join(FILE);
    let file = match checked_file::read::<LimitsFile>(&path) {
        Ok(file) => file?,
        Err(fault) => {
            warn!(fault = format!("{fault:#}"), "kept limits cannot be used");
            return None;
        }
    };
    if (file.version, &*file.instance_type) != (VERSION, instance_type) {
        // An instance can be stopped and started as another type.
        let path = path.display();
        info!(%path, kept = ?file, instance_type, "kept limits are of another type or version");
        return None;
    }
    Some(Known { limits: file.limits, source: Source::Kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { enis: 7, addresses_per_eni: 9, prefixes: true };

    #[test]
    fn kept_limits_of_another_type_or_version_are_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let check = |version, kept_for: &str, asked_for, expect: Option<Source>| {
            let instance_type = kept_for.to_owned();
            let file = LimitsFile { version, instance_type, limits: LIMITS };
            checked_file::write(&directory.path().join(FILE), &file).unwrap();
            let found = without_ec2(asked_for, directory.path());
            assert_eq!(found.map(|known| known.source), expect, "{version} {kept_for} {asked_for}");
            let is_kept = found.is_some_and(|known| known.limits == LIMITS);
            assert_eq!(is_kept, expect == Some(Source::Kept), "{version} {kept_for} {asked_for}");
        };
        check(VERSION, "m5.large", "m5.large", Some(Source::Kept));
        check(VERSION, "m5.enormous", "m5.enormous", Some(Source::Kept));
        check(VERSION, "m5.xlarge", "m5.large", Some(Source::Table));
        check(VERSION, "m5.xlarge", "m5.enormous", None);
        check(VERSION + 1, "m5.large", "m5.large", Some(Source::Table));
        std::fs::write(directory.path().join(FILE), "[\"00000000\",{}]\n").unwrap();
        assert_eq!(without_ec2("m5.large", directory.path()).unwrap().source, Source::Table);
    }

    #[test]
    fn unknown_type_gets_the_largest_limits_of_its_size() {
        assert_eq!(fallback("m5.large").source, Source::Table);
        let Known { limits, source } = fallback("m99.large");
        assert_eq!(source, Source::Assumed);
        let large = settings::known_types().filter(|name| name.ends_with(".large"));
        for known in large.filter_map(settings::known_limits) {
            assert!(known.enis <= limits.enis, "{known:?}");
            assert!(known.addresses_per_eni <= limits.addresses_per_eni, "{known:?}");
        }
        assert!(limits.enis < fallback("m99.enormous").limits.enis);
    }
}
