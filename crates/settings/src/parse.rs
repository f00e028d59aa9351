//! How a variable's text becomes a value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::SettingError;

/// ENI tags whose keys hold this are the daemon's own.
const OWN_TAGS: &str = "k8s.amazonaws.com";

/// The variables. An empty value counts as unset, since manifests write `value: ""` for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's. A name or value that is not UTF-8 has its bad bytes replaced, so that a
    /// bad value is reported and not passed over.
    pub(super) fn of_process() -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn error(&self, variable: &'static str, allowed: &str) -> SettingError {
        let value = self.text(variable).unwrap_or_default().to_owned();
        SettingError { variable, value, allowed: allowed.to_owned() }
    }

    /// The spellings are those of Go's `strconv.ParseBool`.
    pub(super) fn boolean(&self, name: &'static str, default: bool) -> Result<bool, SettingError> {
        match self.text(name) {
            None => Ok(default),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some(_) => Err(self.error(name, "expected true or false")),
        }
    }

    pub(super) fn number<N: FromStr + PartialOrd + ToString>(
        &self,
        name: &'static str,
        least: N,
        most: N,
        default: N,
    ) -> Result<N, SettingError> {
        Ok(self.optional_number(name, least, most)?.unwrap_or(default))
    }

    pub(super) fn optional_number<N: FromStr + PartialOrd + ToString>(
        &self,
        name: &'static str,
        least: N,
        most: N,
    ) -> Result<Option<N>, SettingError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (&least..=&most).contains(&number));
        number.map(Some).ok_or_else(|| {
            let (least, most) = (least.to_string(), most.to_string());
            self.error(name, &format!("expected a whole number from {least} to {most}"))
        })
    }

    pub(super) fn span(
        &self,
        name: &'static str,
        most: Duration,
        default: Duration,
    ) -> Result<Duration, SettingError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let span = humantime::parse_duration(text).ok().filter(|span| *span <= most);
        span.ok_or_else(|| {
            let most = humantime::format_duration(most);
            self.error(name, &format!("expected a time span like 500ms or 15s, at most {most}"))
        })
    }

    /// Relative paths are refused: what they are relative to is an accident of the start.
    pub(super) fn path(&self, name: &'static str, default: &str) -> Result<PathBuf, SettingError> {
        let path = Path::new(self.text(name).unwrap_or(default));
        match path.is_absolute() {
            true => Ok(path.to_owned()),
            false => Err(self.error(name, "expected an absolute path")),
        }
    }

    pub(super) fn url(&self, name: &'static str) -> Result<Option<String>, SettingError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        match host {
            Some(host) if !host.is_empty() => Ok(Some(text.to_owned())),
            Some(_) | None => Err(self.error(name, "expected http://HOST[:PORT] or https://…")),
        }
    }

    /// The tags, and a warning for each that is left out.
    pub(super) fn tags(
        &self,
        name: &'static str,
    ) -> Result<(BTreeMap<String, String>, Vec<String>), SettingError> {
        let text = self.text(name).unwrap_or("{}");
        let tags: BTreeMap<String, String> = serde_json::from_str(text).map_err(|_| {
            self.error(name, "expected a JSON object of strings like {\"team\":\"net\"}")
        })?;
        let (own, tags): (BTreeMap<_, _>, _) =
            tags.into_iter().partition(|(key, _)| key.contains(OWN_TAGS));
        let dropped = own.into_keys().map(|key| {
            format!("{name}: tag {key:?} is left out, since keys with {OWN_TAGS} are ipamd's own")
        });
        Ok((tags, dropped.collect()))
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}
