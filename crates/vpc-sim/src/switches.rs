//! The switches of the simulator: set in the topology file, changed by an operator at run time.

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

impl Switches {
    /// The switches in `config`.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            throttling: config.throttling,
            latency: Preset::Custom(config.latency.clone()),
            consistency: Preset::Custom(config.consistency.clone()),
            address_choice: config.address_choice,
            insufficient_error: config.insufficient_error,
            reservations_reduce_available_count: config.reservations_reduce_available_count,
            quotas: config.quotas.clone(),
        }
    }

    /// `config` with these switches.
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
        } = self.clone();
        Config {
            throttling,
            latency: match latency {
                Preset::None => Latency::default(),
                Preset::Realistic => Latency::realistic(),
                Preset::Custom(latency) => latency,
            },
            consistency: match consistency {
                Preset::None => Consistency::default(),
                Preset::Realistic => Consistency::realistic(),
                Preset::Custom(consistency) => consistency,
            },
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
        assert_eq!(Switches::of(&config).set(Config::default()), config);
    }
}
