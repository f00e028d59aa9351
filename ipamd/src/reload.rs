//! SIGHUP: the settings are read again, and the engine gets the policy that they come to.

use std::convert::Infallible;

use agent::error_chain;
use ipam::policy::{Limits, Policy};
use settings::{InForce, Reloaded, Variables};
use tokio::signal::unix::Signal;
use tracing::{error, info, warn};

/// Reads the settings again at each of `hangups`. `in_force` are the settings of the start; `limits`
/// and `vcpus` are those of the instance.
pub(crate) async fn at_each_hangup(
    mut hangups: Signal,
    mut in_force: InForce,
    limits: Limits,
    vcpus: Option<u32>,
) -> Infallible {
    while let Some(()) = hangups.recv().await {
        // The file may be on a slow disk, and the engine runs in this task.
        let Ok(next) = tokio::task::spawn_blocking(Variables::of_process).await else {
            error!("settings cannot be read; those in force stay");
            continue;
        };
        if let Some(policy) = reload(&mut in_force, next, limits, vcpus) {
            send_policy(policy);
        }
    }
    std::future::pending().await
}

/// The policy of the settings in `next`, which are in force then. `None` if one of them is bad:
/// nothing changes then, since a part of them would be a policy that nobody asked for.
fn reload(
    in_force: &mut InForce,
    next: Result<Variables, settings::Error>,
    limits: Limits,
    vcpus: Option<u32>,
) -> Option<Policy> {
    let reloaded = next.and_then(|next| Ok(settings::reload(in_force, &next, limits, vcpus)?));
    let Reloaded { in_force: settings, policy, changed, at_next_start } = match reloaded {
        Ok(reloaded) => reloaded,
        Err(fault) => {
            error!(fault = error_chain(&fault), "settings refused; those in force stay");
            return None;
        }
    };
    for setting in at_next_start {
        warn!(setting = setting.name, "setting takes effect at the next start");
    }
    for warning in settings::pool_warnings(&settings.settings, &policy, limits) {
        warn!(warning, "setting");
    }
    let changed: Vec<_> = changed.iter().map(|setting| setting.name).collect();
    info!(?changed, "settings read again");
    *in_force = settings;
    Some(policy)
}

/// The only place from which a new policy goes to the engine, which takes none yet while it runs.
fn send_policy(policy: Policy) {
    info!(?policy, "effective policy");
}

#[cfg(test)]
mod tests {
    use ipam::policy::Targets;

    use super::*;

    #[test]
    fn reload_with_a_bad_file_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("env");
        let limits = Limits { enis: 3, addresses_per_eni: 10, prefixes: true };
        let mut in_force = InForce::read(Variables::default()).unwrap();
        let mut write_and_reload = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let next = Variables::default().with_file(&file).map_err(settings::Error::from);
            let policy = reload(&mut in_force, next, limits, Some(2));
            (policy.map(|policy| policy.targets), in_force.settings.warm.warm_ip)
        };
        let five = Targets::Ip { warm: 5, minimum: 0 };
        assert_eq!(write_and_reload("WARM_IP_TARGET=5"), (Some(five), 5));
        assert_eq!(write_and_reload("WARM_IP_TARGET=6\nWARM_IP_TARGE=6"), (None, 5));
        assert_eq!(write_and_reload("WARM_IP_TARGET=6\nMAX_ENI=none"), (None, 5));
        assert_eq!(write_and_reload("# none"), (Some(Targets::WarmEni(1)), 0));
    }
}
