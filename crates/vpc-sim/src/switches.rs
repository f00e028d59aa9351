//! The switches of the simulator: set in the topology file, changed by an operator at run time.

use address_plan::config::{self as plan, Config as PlanConfig};
use ec2_model::config::{
    AddressChoice, Config, Consistency, InsufficientError, Latency, Quotas, Throttling,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How EC2 differs from a perfect, instant one. By default it does not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// Whether calls take tokens from buckets: `off` or `documented`.
    pub throttling: Throttling,
    /// How long operations take.
    pub latency: Preset<Latency>,
    /// How late the API and IMDS show changes.
    pub consistency: Preset<Consistency>,
    /// How EC2 chooses addresses: `random`, `lowest-first` or `spread`.
    pub address_choice: AddressChoice,
    /// The error of a full subnet: `classic` or `invalid-parameter-value`.
    pub insufficient_error: InsufficientError,
    /// Whether reserved ranges reduce `availableIpAddressCount`.
    pub reservations_reduce_available_count: bool,
    /// The limits of an account.
    pub quotas: Quotas,
    /// The same for Amazon VPC IPAM.
    pub ipam: IpamSwitches,
}

/// How Amazon VPC IPAM differs from a perfect, instant one. By default it differs in nothing but
/// that a released range rests, which is a rule of the service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpamSwitches {
    /// How long states last that end in `-in-progress` or begin with `pending-`.
    pub transitions: Preset<plan::Transitions>,
    /// How late IPAM knows what exists. With `none` it knows at once.
    pub discovery: Preset<plan::Discovery>,
    /// How late the API shows new objects.
    pub consistency: Preset<plan::Consistency>,
    /// How long a released range is not allocated again.
    pub rest: plan::Rest,
    /// The limits of an account.
    pub quotas: plan::Quotas,
}

impl IpamSwitches {
    fn of(config: &PlanConfig) -> Self {
        Self {
            transitions: Preset::Custom(config.transitions.clone()),
            discovery: Preset::Custom(config.discovery.clone()),
            consistency: Preset::Custom(config.consistency.clone()),
            rest: config.rest.clone(),
            quotas: config.quotas.clone(),
        }
    }

    /// `config` with these switches.
    #[must_use]
    pub fn set(&self, config: PlanConfig) -> PlanConfig {
        let Self { transitions, discovery, consistency, rest, quotas } = self.clone();
        PlanConfig {
            transitions: transitions.or_realistic(plan::Transitions::realistic),
            discovery: discovery.or_realistic(plan::Discovery::realistic),
            consistency: consistency.or_realistic(plan::Consistency::realistic),
            rest,
            quotas,
            ..config
        }
    }
}

/// A group of figures by name, or in full: `none`, `realistic` or `{custom: {…}}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset<T> {
    /// All zero.
    #[default]
    None,
    /// Figures that AWS documents or users report.
    Realistic,
    /// The given figures.
    Custom(T),
}

impl<T: Default> Preset<T> {
    fn or_realistic(self, realistic: fn() -> T) -> T {
        match self {
            Self::None => T::default(),
            Self::Realistic => realistic(),
            Self::Custom(figures) => figures,
        }
    }
}

impl Switches {
    /// The switches in two configurations.
    #[must_use]
    pub fn of(config: &Config, plan: &PlanConfig) -> Self {
        Self {
            throttling: config.throttling,
            latency: Preset::Custom(config.latency.clone()),
            consistency: Preset::Custom(config.consistency.clone()),
            address_choice: config.address_choice,
            insufficient_error: config.insufficient_error,
            reservations_reduce_available_count: config.reservations_reduce_available_count,
            quotas: config.quotas.clone(),
            ipam: IpamSwitches::of(plan),
        }
    }

    /// `config` with these switches, but for those of IPAM.
    #[must_use]
    pub fn set(&self, config: Config) -> Config {
        let Self {
            throttling,
            latency,
            consistency,
            address_choice,
            insufficient_error,
            reservations_reduce_available_count,
            quotas,
            ipam: _,
        } = self.clone();
        Config {
            throttling,
            latency: latency.or_realistic(Latency::realistic),
            consistency: consistency.or_realistic(Consistency::realistic),
            address_choice,
            insufficient_error,
            reservations_reduce_available_count,
            quotas,
            ..config
        }
    }

    /// These switches, with those in `changes` replaced.
    ///
    /// # Errors
    /// If a key or a value of `changes` is unknown. Then nothing is changed.
    pub fn changed(&self, changes: Map<String, Value>) -> serde_json::Result<Self> {
        let mut switches = serde_json::to_value(self)?;
        if let Some(switches) = switches.as_object_mut() {
            switches.extend(changes);
        }
        serde_json::from_value(switches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switch_change_keeps_other_switches() {
        let base = Switches { latency: Preset::Realistic, ..Switches::default() };
        let check = |changes: &str, want: Option<Switches>| {
            let changes = serde_json::from_str(changes).unwrap();
            assert_eq!(base.changed(changes).ok(), want);
        };
        let throttled = Switches { throttling: Throttling::Documented, ..base.clone() };
        check("{}", Some(base.clone()));
        check(r#"{"throttling": "documented"}"#, Some(throttled));
        check(r#"{"latency": "none"}"#, Some(Switches::default()));
        check(r#"{"throtling": "documented"}"#, None);
        check(r#"{"throttling": "on"}"#, None);
    }

    #[test]
    fn switches_round_trip_through_config() {
        let switches = Switches { consistency: Preset::Realistic, ..Switches::default() };
        let config = switches.set(Config::default());
        assert_eq!(config.consistency, Consistency::realistic());
        let ipam = IpamSwitches { transitions: Preset::Realistic, ..IpamSwitches::default() };
        let plan = ipam.set(PlanConfig::default());
        assert_eq!(plan.transitions, plan::Transitions::realistic());
        let read = Switches::of(&config, &plan);
        assert_eq!(read.set(Config::default()), config);
        assert_eq!(read.ipam.set(PlanConfig::default()), plan);
    }
}
