//! The environment variables as they are set, and how the text of one becomes a value.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use service_url::{ProxyUrl, ServiceUrl, without_password};

use crate::env_file::{self, EnvFileError};
use crate::registry::{ALIASES, ALL, DefaultValue, Setting, TIDEPOOL_ENV_FILE};
use crate::{ConfigMaps, Error, SettingError, misspelt};

/// How much of a value is shown, in characters.
const SHOWN: usize = 200;

/// The values of the settings that are set. An empty value counts as unset, since manifests write
/// `value: ""` for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables {
    set: BTreeMap<&'static str, (String, Source)>,
    /// Names in the environment that are nearly those of settings, each with the setting.
    misspelt: BTreeMap<String, &'static str>,
}

/// Where the value of a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It is not set.
    Default,
    /// The process's environment.
    Environment,
    /// The `ConfigMap` for all nodes of the cluster.
    ClusterMap,
    /// The `ConfigMap` for the node's group.
    GroupMap,
    /// The file that `TIDEPOOL_ENV_FILE` names.
    File,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Source::Default => "default",
            Source::Environment => "environment",
            Source::ClusterMap => "ConfigMap",
            Source::GroupMap => "node group's ConfigMap",
            Source::File => "file",
        })
    }
}

impl Variables {
    /// Reads the process's environment, then the file that `TIDEPOOL_ENV_FILE` names. The file's
    /// values override the environment's.
    ///
    /// # Errors
    /// If `TIDEPOOL_ENV_FILE` is a relative path, and the errors of [`Variables::with_file`].
    pub fn of_process() -> Result<Self, Error> {
        Self::of_process_with(&ConfigMaps::default())
    }

    /// As [`Variables::of_process`]. The values in `maps` override the environment's, and the file's override them.
    ///
    /// # Errors
    /// As above. Also if a map has something else than live settings.
    pub fn of_process_with(maps: &ConfigMaps) -> Result<Self, Error> {
        let process = Self::of_environment().with_config_maps(maps)?;
        match process.optional_path(&TIDEPOOL_ENV_FILE)? {
            Some(file) => Ok(process.with_file(&file)?),
            None => Ok(process),
        }
    }

    /// As [`Variables::of_process`], but without a settings file that is not there. Returns the path of that file.
    pub(crate) fn of_process_without_missing_file() -> Result<(Self, Option<PathBuf>), Error> {
        match Self::of_process() {
            Ok(variables) => Ok((variables, None)),
            Err(Error::File(EnvFileError::Read { file, source }))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok((Self::of_environment(), Some(file)))
            }
            Err(fault) => Err(fault),
        }
    }

    fn of_environment() -> Self {
        // A value that is not UTF-8 has its bad bytes replaced, so that it is reported and not
        // taken for unset.
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
    }

    /// These variables, overridden by those in `file`.
    ///
    /// # Errors
    /// If the file cannot be read, and for its first line that is wrong.
    pub fn with_file(mut self, file: &Path) -> Result<Self, EnvFileError> {
        for (setting, value) in env_file::read(file)? {
            self.set.insert(setting.name, (value, Source::File));
        }
        Ok(self)
    }

    pub(crate) fn set(&mut self, setting: &'static Setting, value: String, from: Source) {
        self.set.insert(setting.name, (value, from));
    }

    /// The value of `setting` and where it comes from; `None` if it has none.
    #[must_use]
    pub fn effective(&self, setting: &'static Setting) -> (Option<&str>, Source) {
        match (self.set.get(setting.name), setting.default) {
            (Some((value, source)), _) if !value.is_empty() => (Some(value), *source),
            (_, DefaultValue::Value(value)) => (Some(value), Source::Default),
            (_, DefaultValue::Unset | DefaultValue::Depends(_)) => (None, Source::Default),
        }
    }

    /// Whether `setting` is set to nothing, as `value: ""` in a manifest does.
    pub(crate) fn is_set_and_empty(&self, setting: &'static Setting) -> bool {
        self.set.get(setting.name).is_some_and(|(value, _)| value.is_empty())
    }

    /// Sets `setting` to what it is in `other`.
    pub(crate) fn take(&mut self, setting: &'static Setting, other: &Self) {
        match other.set.get(setting.name) {
            Some(value) => self.set.insert(setting.name, value.clone()),
            None => self.set.remove(setting.name),
        };
    }

    /// The value for people to read: one line, shortened, and without a password that is in it.
    #[must_use]
    pub fn shown(&self, setting: &'static Setting) -> String {
        if setting.is_secret && self.text(setting).is_some() {
            return "***".to_owned();
        }
        let value = without_password(self.text(setting).unwrap_or_default());
        let value = value.replace(char::is_control, " ");
        match value.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &value[..end]),
            None => value,
        }
    }

    /// One line for each name in the environment that is nearly that of a setting.
    pub(crate) fn misspelt(&self) -> impl Iterator<Item = String> {
        let line = |(name, meant)| format!("{name}: no setting has this name; is {meant} meant?");
        self.misspelt.iter().map(line)
    }

    pub(crate) fn text(&self, setting: &'static Setting) -> Option<&str> {
        self.effective(setting).0
    }

    /// The value that somebody has set.
    pub(crate) fn own_text(&self, setting: &'static Setting) -> Option<&str> {
        self.text(setting).filter(|_| self.effective(setting).1 != Source::Default)
    }

    pub(crate) fn error(&self, setting: &'static Setting, allowed: &str) -> SettingError {
        let value = self.shown(setting);
        SettingError { variable: setting.name, value, allowed: allowed.to_owned() }
    }

    /// A boolean whose default is a value.
    pub(crate) fn boolean(&self, setting: &'static Setting) -> Result<bool, SettingError> {
        Ok(self.optional_boolean(setting)?.expect(HAS_DEFAULT))
    }

    /// The spellings are those of Go's `strconv.ParseBool`.
    pub(crate) fn optional_boolean(
        &self,
        setting: &'static Setting,
    ) -> Result<Option<bool>, SettingError> {
        match self.text(setting) {
            None => Ok(None),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Some(false)),
            Some(_) => Err(self.error(setting, "expected true or false")),
        }
    }

    /// A number whose default is a value.
    pub(crate) fn number<N: FromStr + PartialOrd + ToString>(
        &self,
        setting: &'static Setting,
        least: N,
        most: N,
    ) -> Result<N, SettingError> {
        Ok(self.optional_number(setting, least, most)?.expect(HAS_DEFAULT))
    }

    pub(crate) fn optional_number<N: FromStr + PartialOrd + ToString>(
        &self,
        setting: &'static Setting,
        least: N,
        most: N,
    ) -> Result<Option<N>, SettingError> {
        let Some(text) = self.text(setting) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (&least..=&most).contains(&number));
        number.map(Some).ok_or_else(|| {
            let (least, most) = (least.to_string(), most.to_string());
            self.error(setting, &format!("expected a whole number from {least} to {most}"))
        })
    }

    /// A whole number of seconds, `least` or more.
    pub(crate) fn seconds(
        &self,
        setting: &'static Setting,
        least: u32,
    ) -> Result<Duration, SettingError> {
        Ok(Duration::from_secs(self.number(setting, least, u32::MAX)?.into()))
    }

    /// A time span with its unit, `most` at most.
    pub(crate) fn span(
        &self,
        setting: &'static Setting,
        most: Duration,
    ) -> Result<Duration, SettingError> {
        let text = self.text(setting).expect(HAS_DEFAULT);
        let span = humantime::parse_duration(text).ok().filter(|span| *span <= most);
        span.ok_or_else(|| {
            let most = humantime::format_duration(most);
            self.error(setting, &format!("expected a time span like 500ms or 15s, at most {most}"))
        })
    }

    /// A path whose default is a value.
    pub(crate) fn path(&self, setting: &'static Setting) -> Result<PathBuf, SettingError> {
        Ok(self.optional_path(setting)?.expect(HAS_DEFAULT))
    }

    /// A relative path is refused, since it depends on the directory that the process starts in.
    pub(crate) fn optional_path(
        &self,
        setting: &'static Setting,
    ) -> Result<Option<PathBuf>, SettingError> {
        let Some(path) = self.text(setting).map(Path::new) else { return Ok(None) };
        match path.is_absolute() {
            true => Ok(Some(path.to_owned())),
            false => Err(self.error(setting, "expected an absolute path")),
        }
    }

    pub(crate) fn url(
        &self,
        setting: &'static Setting,
    ) -> Result<Option<ServiceUrl>, SettingError> {
        let url = self.text(setting).map(ServiceUrl::parse).transpose();
        url.map_err(|fault| self.error(setting, &fault.to_string()))
    }

    pub(crate) fn proxy(
        &self,
        setting: &'static Setting,
    ) -> Result<Option<ProxyUrl>, SettingError> {
        let url = self.text(setting).map(ProxyUrl::parse).transpose();
        url.map_err(|fault| self.error(setting, &fault.to_string()))
    }
}

/// Why a setting has a value that no user has set.
const HAS_DEFAULT: &str =
    "the registry has a default value for it, as a test checks by reading all";

impl FromIterator<(String, String)> for Variables {
    /// Keeps the variables that are settings, as if the process's environment had them.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(given: I) -> Self {
        let (mut variables, mut others) = (Self::default(), Vec::new());
        for (name, value) in given {
            match ALL.iter().find(|setting| setting.name == name) {
                Some(setting) => {
                    variables.set.insert(setting.name, (value, Source::Environment));
                }
                None => others.push((name, value)),
            }
        }
        for (name, value) in others {
            if let Some((_, setting)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
                if variables.text(setting).is_none() {
                    variables.set.insert(setting.name, (value, Source::Environment));
                }
            } else if let Some(setting) = misspelt::meant(&name) {
                variables.misspelt.insert(name, setting.name);
            }
        }
        variables
    }
}
