//! STATUS: whether an ADD would be served now.

use std::time::Duration;

use cni::{CniError, ErrorCode, NetConf};
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::failure::not_ready;
use crate::socket;

/// How long the daemon may take. Runtimes ask every few seconds, for each plugin of the chain.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long STATUS waits for the daemon where the configuration allows `ipamd_timeout`.
fn patience(ipamd_timeout: Duration) -> Duration {
    PATIENCE.min(ipamd_timeout)
}

/// Asks the daemon; allocates nothing.
///
/// # Errors
///
/// Code 50 or 51.
pub(crate) async fn status(conf: &NetConf) -> Result<(), CniError> {
    let until = Instant::now() + patience(conf.ipamd_timeout);
    let unavailable = |e: crate::daemon::DaemonError| e.with_code(ErrorCode::NotAvailable);
    let mut daemon = Daemon::connect(socket(conf), until).await.map_err(unavailable)?;
    let reply = daemon.ready(until).await.map_err(unavailable)?;
    if !is_neighbour(&reply.server_version, proto::VERSION) {
        let details = format!(
            "ipamd is {:?} and this plugin {}: they must be at most one minor version apart",
            reply.server_version,
            proto::VERSION
        );
        return Err(CniError::new(ErrorCode::NotAvailable, "incompatible versions", details));
    }
    match reply.not_ready {
        None => Ok(()),
        Some(refused) => Err(not_ready(&refused)),
    }
}

/// Whether two versions are at most one minor version apart.
fn is_neighbour(theirs: &str, ours: &str) -> bool {
    match (minor(theirs), minor(ours)) {
        (Some((major, minor)), Some(ours)) => major == ours.0 && minor.abs_diff(ours.1) <= 1,
        _ => false,
    }
}

fn minor(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_waits_at_most_a_second_and_no_longer_than_configured() {
        assert_eq!(patience(Duration::from_secs(75)), Duration::from_secs(1));
        assert_eq!(patience(Duration::from_millis(300)), Duration::from_millis(300));
    }

    #[test]
    fn is_neighbour_allows_one_minor_version() {
        for (theirs, expect) in [
            ("1.4.0", true),
            ("1.3.9", true),
            ("1.5.0-rc.1", true),
            ("1.6.0", false),
            ("1.2.0", false),
            ("2.4.0", false),
            ("", false),
            ("1.x", false),
        ] {
            assert_eq!(is_neighbour(theirs, "1.4.2"), expect, "{theirs:?}");
        }
    }
}
