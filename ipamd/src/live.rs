//! What changes while the daemon runs: the settings, at SIGHUP or by the cluster's `ConfigMap`s, and the limits when EC2's
//! answer comes late. The engine gets the new limits and policy, which hold from then on.

use std::convert::Infallible;
use std::path::PathBuf;

use agent::{Inlet, Notes, SettingsRefused, ShownSettings, error_chain};
use ipam::event::Event;
use ipam::policy::{Limits, Policy};
use k8s::{About, Report, Reports};
use settings::{ConfigMaps, InForce, Reloaded, SettingError, Variables};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::config_maps;
use crate::logging::LevelSwitch;

/// The matter of the note and the reason of the event while settings are refused.
const REFUSED: &str = "SETTINGS_REFUSED";

/// The settings and limits in force.
#[derive(Debug)]
pub(crate) struct Live {
    in_force: InForce,
    limits: Limits,
    /// How many vCPUs the instance has, if that is known.
    vcpus: Option<u32>,
    inlet: Inlet,
    levels: LevelSwitch,
    /// What the introspection shows of the settings in force.
    shown: watch::Sender<ShownSettings>,
    /// The `ConfigMap`s in force.
    maps: ConfigMaps,
    /// Where they are kept.
    maps_file: PathBuf,
    voice: Voice,
}

/// Who learns of refused settings.
#[derive(Debug, Default)]
pub(crate) struct Voice {
    pub(crate) notes: Notes,
    pub(crate) reports: Option<Reports>,
    pub(crate) refused: SettingsRefused,
}

impl Voice {
    fn refuse(&self, fault: &settings::Error) {
        let fault = error_chain(fault);
        error!(fault, "settings refused; those in force stay");
        let note = format!("changed settings are refused, and those in force stay: {fault}");
        self.notes.say(REFUSED, note.clone());
        self.refused.count();
        if let Some(reports) = &self.reports {
            reports.tell(Report { about: About::Node, reason: REFUSED, action: "Reload", note });
        }
    }
}

impl Live {
    /// The settings and limits of the start. The `maps` are part of these settings.
    pub(crate) fn new(
        in_force: InForce,
        limits: Limits,
        vcpus: Option<u32>,
        inlet: Inlet,
        maps: ConfigMaps,
        levels: LevelSwitch,
        voice: Voice,
    ) -> Self {
        let maps_file = config_maps::file(&in_force.settings.state_directory);
        let (shown, _) = watch::channel(shown(&in_force.variables));
        Self { in_force, limits, vcpus, inlet, levels, shown, maps, maps_file, voice }
    }

    /// The settings in force, now and later, as the introspection shows them.
    pub(crate) fn shown(&self) -> watch::Receiver<ShownSettings> {
        self.shown.subscribe()
    }

    /// Reads the settings again at each of `hangups` and with each of the `maps`, and takes the limits from `late`.
    pub(crate) async fn follow(
        mut self,
        mut hangups: Signal,
        mut maps: watch::Receiver<Option<ConfigMaps>>,
        mut late: mpsc::Receiver<Limits>,
    ) -> Infallible {
        loop {
            tokio::select! {
                Some(()) = hangups.recv() => self.read(self.maps.clone()).await,
                Ok(()) = maps.changed() => {
                    let newest = maps.borrow_and_update().clone();
                    if let Some(newest) = newest.filter(|newest| *newest != self.maps) {
                        self.read(newest).await;
                    }
                }
                Some(limits) = late.recv() => self.take_limits(limits),
                else => std::future::pending().await,
            }
        }
    }

    /// Reads environment and file again, with these maps.
    async fn read(&mut self, maps: ConfigMaps) {
        let with = maps.clone();
        // The file may be on a slow disk, and other tasks run on this thread.
        match tokio::task::spawn_blocking(move || Variables::of_process_with(&with)).await {
            Ok(next) => self.take_settings(next, maps),
            Err(_panic) => error!("settings cannot be read; those in force stay"),
        }
    }

    fn take_settings(&mut self, next: Result<Variables, settings::Error>, maps: ConfigMaps) {
        match self.reload(next) {
            Ok(policy) => {
                self.voice.notes.settle(REFUSED);
                if maps != self.maps {
                    // The disk may be slow, and other tasks run on this thread.
                    tokio::task::block_in_place(|| config_maps::keep(&self.maps_file, &maps));
                    self.maps = maps;
                }
                self.send_policy(policy);
            }
            Err(fault) => self.voice.refuse(&fault),
        }
    }

    /// Puts the settings in `next` in force, and returns their policy. If one of them is bad, nothing changes,
    /// since a part of them would be a policy that nobody asked for.
    fn reload(
        &mut self,
        next: Result<Variables, settings::Error>,
    ) -> Result<Policy, settings::Error> {
        let next = next?;
        let Reloaded { in_force, policy, changed, at_next_start } =
            settings::reload(&self.in_force, &next, self.limits, self.vcpus)?;
        self.levels.set(in_force.settings.log_level);
        for setting in at_next_start {
            warn!(setting = setting.name, "setting takes effect at the next start");
        }
        for setting in &changed {
            let before = self.in_force.variables.shown(setting);
            let now = in_force.variables.shown(setting);
            info!(setting = setting.name, before, now, "setting has changed");
        }
        for warning in settings::pool_warnings(&in_force.settings, &policy, self.limits) {
            warn!(warning, "setting");
        }
        let changed: Vec<_> = changed.iter().map(|setting| setting.name).collect();
        info!(?changed, "settings read again");
        self.shown.send_replace(shown(&in_force.variables));
        self.in_force = in_force;
        Ok(policy)
    }

    fn take_limits(&mut self, limits: Limits) {
        let before = self.limits;
        match self.replace_limits(limits) {
            Ok(policy) => {
                warn!(?limits, ?before, "EC2's limits come late; they take effect now");
                self.inlet.send(Event::Limits(limits));
                self.send_policy(policy);
            }
            Err(fault) => {
                error!(%fault, ?limits, ?before, "settings do not fit EC2's limits; the earlier limits stay");
            }
        }
    }

    /// Puts `limits` in force, and returns the policy of the settings with them. The policy depends on them: the
    /// kind of blocks, the targets and the maximum of pods do.
    fn replace_limits(&mut self, limits: Limits) -> Result<Policy, SettingError> {
        let policy = settings::policy(&self.in_force.settings, limits, self.vcpus)?;
        for warning in settings::pool_warnings(&self.in_force.settings, &policy, limits) {
            warn!(warning, "setting");
        }
        self.limits = limits;
        Ok(policy)
    }

    fn send_policy(&self, policy: Policy) {
        info!(?policy, limits = ?self.limits, "effective policy");
        self.inlet.send(Event::Policy(policy));
    }
}

/// Settings in force have no bad value, so each is shown.
fn shown(variables: &Variables) -> ShownSettings {
    ShownSettings {
        ipamd: settings::ipamd_settings(variables).unwrap_or_default(),
        network: settings::network_settings(variables).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use ipam::policy::Targets;

    use super::*;

    const LIMITS: Limits = Limits { enis: 3, addresses_per_eni: 10, prefixes: true };

    fn live(variables: &[(&str, &str)]) -> Live {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let in_force = InForce::read(variables.collect()).unwrap();
        let (inlet, _inbox) = agent::channel();
        let (levels, _filter) = LevelSwitch::new(in_force.settings.log_level);
        let maps = ConfigMaps::default();
        Live::new(in_force, LIMITS, Some(2), inlet, maps, levels, Voice::default())
    }

    fn targets(policy: &Policy) -> Targets {
        policy.families.policy().targets
    }

    #[test]
    fn reload_with_a_bad_file_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("env");
        let mut live = live(&[]);
        let shown = live.shown();
        let mut write_and_reload = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let next = Variables::default().with_file(&file).map_err(settings::Error::from);
            let policy = live.reload(next);
            let warm_ip = live.in_force.settings.warm.warm_ip;
            assert_eq!(shown.borrow().ipamd["WARM_IP_TARGET"], warm_ip);
            (policy.ok().map(|policy| targets(&policy)), warm_ip)
        };
        let five = Targets::Ip { warm: 5, minimum: 0 };
        assert_eq!(write_and_reload("WARM_IP_TARGET=5"), (Some(five), 5));
        assert_eq!(write_and_reload("WARM_IP_TARGET=6\nWARM_IP_TARGE=6"), (None, 5));
        assert_eq!(write_and_reload("WARM_IP_TARGET=6\nMAX_ENI=none"), (None, 5));
        assert_eq!(write_and_reload("# none"), (Some(Targets::WarmEni(1)), 0));
    }

    #[test]
    fn refused_maps_leave_those_in_force_and_are_said() {
        let directory = tempfile::tempdir().unwrap();
        let mut live = live(&[]);
        live.maps_file = config_maps::file(directory.path());
        let mut take = |name: &str, value: &str| {
            let cluster = [(name.to_owned(), value.to_owned())].into();
            let maps = ConfigMaps { cluster, ..ConfigMaps::default() };
            live.take_settings(Variables::of_process_with(&maps), maps);
            live.in_force.settings.warm.warm_ip
        };
        assert_eq!(take("WARM_IP_TARGET", "5"), 5);
        assert_eq!(take("WARM_IP_TARGET", "many"), 5);
        assert_eq!(take("CLUSTER_NAME", "blue"), 5);
        assert_eq!(take("WARM_IP_TARGET", "6"), 6);
        assert_eq!(live.maps.cluster["WARM_IP_TARGET"], "6");
        assert!(live.maps_file.exists());
    }

    #[test]
    fn late_limits_change_the_policy_and_later_reloads() {
        let mut live = live(&[("ENABLE_PREFIX_DELEGATION", "true")]);
        let fewer = Limits { enis: 2, addresses_per_eni: 6, prefixes: false };
        let policy = live.replace_limits(fewer).unwrap();
        assert_eq!((targets(&policy), policy.max_pods), (Targets::WarmEni(1), 12));
        let same = live.in_force.variables.clone();
        assert_eq!(live.reload(Ok(same)).unwrap(), policy);
    }

    #[test]
    fn late_limits_that_contradict_the_settings_are_refused() {
        let mut live = live(&[("ENABLE_IPv6", "true"), ("ENABLE_PREFIX_DELEGATION", "true")]);
        let error = live.replace_limits(Limits { prefixes: false, ..LIMITS }).unwrap_err();
        assert_eq!(error.variable, "ENABLE_IPv6");
        assert_eq!(live.limits, LIMITS);
    }
}
