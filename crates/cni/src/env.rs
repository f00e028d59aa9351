//! The `CNI_*` variables. The caller passes the environment; nothing here reads the process's own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::CniError;
use crate::version::Verb;

/// The `CNI_*` variables of one call. An empty variable counts as missing, since runtimes leave those
/// empty that do not apply.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Keeps the variables of, for example, [`std::env::vars_os`] that start with `CNI_`.
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let named =
            vars.into_iter().filter_map(|(key, value)| Some((key.into_string().ok()?, value)));
        Self(named.filter(|(key, value)| key.starts_with("CNI_") && !value.is_empty()).collect())
    }

    /// Whether `CNI_COMMAND` is set. Without it, a person has started the plugin.
    #[must_use]
    pub fn has_command(&self) -> bool {
        self.0.contains_key("CNI_COMMAND")
    }

    /// A variable that is not checked; `None` if it is missing or empty.
    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        self.0.get(key).map(PathBuf::from)
    }

    pub(crate) fn verb(&self) -> Result<Verb, CniError> {
        let mut reader = Reader::new(self);
        let verb = reader.required("CNI_COMMAND", |text| {
            Verb::from_text(text).ok_or_else(|| format!("CNI_COMMAND is {text:?}, an unknown verb"))
        });
        reader.finish()?;
        Ok(verb.expect("a reader without faults has every required variable"))
    }
}

/// Reads variables one after the other and collects the faults, so that one error names them all.
pub(crate) struct Reader<'a> {
    environment: &'a Environment,
    missing: Vec<&'static str>,
    faults: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(environment: &'a Environment) -> Self {
        Self { environment, missing: Vec::new(), faults: Vec::new() }
    }

    /// The variable's value. `None` if it is missing or bad; then the fault is noted.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.optional(key, parse);
        if !self.environment.0.contains_key(key) {
            self.missing.push(key);
        }
        value
    }

    /// The variable's value. `None` if it is missing or bad; only a bad value is noted.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.environment.0.get(key)?;
        let text = value.to_str().ok_or_else(|| format!("{key} is {value:?}, which is not UTF-8"));
        text.and_then(parse).map_err(|fault| self.faults.push(fault)).ok()
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// Code 4 with every variable that was missing or bad.
    pub(crate) fn finish(mut self) -> Result<(), CniError> {
        if !self.missing.is_empty() {
            self.faults.insert(0, format!("missing: {}", self.missing.join(", ")));
        }
        match self.faults.is_empty() {
            true => Ok(()),
            false => Err(CniError::environment(self.faults.join("; "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::error::ErrorCode;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        Environment::from_vars(vars.iter().map(|(k, v)| (k.into(), v.into())))
    }

    #[test]
    fn verb_of_unknown_or_missing_command_is_refused() {
        assert_eq!(environment(&[("CNI_COMMAND", "GC")]).verb(), Ok(Verb::Gc));
        for (command, part) in [("", "missing: CNI_COMMAND"), ("RUN", "\"RUN\"")] {
            let error = environment(&[("CNI_COMMAND", command)]).verb().unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidEnvironment);
            assert!(error.details.contains(part), "{error}");
        }
    }

    #[test]
    fn has_command_with_empty_value_is_false() {
        assert!(!environment(&[("CNI_COMMAND", ""), ("PATH", "/bin")]).has_command());
        assert!(environment(&[("CNI_COMMAND", "ADD")]).has_command());
    }

    #[test]
    fn variable_that_is_not_utf8_is_refused() {
        let value = OsString::from_vec(vec![0xff, 0xfe]);
        let error = Environment::from_vars([("CNI_COMMAND".into(), value)]).verb().unwrap_err();
        assert!(error.details.contains("not UTF-8"), "{error}");
    }
}
