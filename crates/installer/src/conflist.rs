//! The conflist: the shipped one with the node's settings in it, or one of the administrator's own.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::PLUGIN;

/// The one source. Its version is 1.0.0 for containerd 1.6, which loads 1.1.0 and fails at the first ADD. Runtimes
/// that know `cniVersions` take the highest one that they know.
const SHIPPED: &str = include_str!("../../../deploy/10-aws.conflist");

/// The member by which a conflist is known as ours. The one of amazon-vpc-cni-k8s has the same name and plugin.
const MARK: (&str, &str) = ("installedBy", "tidepool");

/// What a node's settings say of the conflist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choices<'a> {
    /// With what the names of host interfaces start.
    pub veth_prefix: &'a str,
    /// MTU of pods' links, in bytes.
    pub mtu: u16,
    /// An absolute path or `stderr`.
    pub log_file: &'a str,
    /// The least important lines in the plugin's log.
    pub log_level: &'a str,
    /// Pods are limited as their annotations ask.
    pub limits_bandwidth: bool,
    /// Where the daemon listens, unless that is the plugin's default.
    pub socket: Option<&'a Path>,
}

/// Why an administrator's conflist is not installed.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It is not text in UTF-8.
    #[error("it is not UTF-8")]
    NotText,
    /// It is not JSON.
    #[error("it is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// It has no entry for our plugin.
    #[error("it has no plugin of type {PLUGIN}")]
    NoEntry,
    /// Something is left to be filled in that no setting of ours has.
    #[error("{0} has no meaning here")]
    Placeholder(String),
}

/// The shipped conflist with `choices` in it.
#[must_use]
pub fn shipped(choices: &Choices<'_>) -> String {
    let mut list = serde_json::from_str(SHIPPED).expect("a test reads the shipped conflist");
    let entry = entry(&mut list).expect("a test reads the shipped conflist");
    let Choices { veth_prefix, mtu, log_file, log_level, limits_bandwidth, socket } = choices;
    entry.insert("vethPrefix".to_owned(), json!(veth_prefix));
    // Text, as amazon-vpc-cni-k8s writes it.
    entry.insert("mtu".to_owned(), json!(mtu.to_string()));
    entry.insert("pluginLogFile".to_owned(), json!(log_file));
    entry.insert("pluginLogLevel".to_owned(), json!(log_level));
    if !limits_bandwidth && let Some(Value::Object(all)) = entry.get_mut("capabilities") {
        all.remove("bandwidth");
    }
    if let Some(socket) = socket {
        entry.insert("ipamdSocket".to_owned(), json!(socket.display().to_string()));
    }
    marked(list)
}

/// An administrator's conflist with `choices` in place of the names that templates of amazon-vpc-cni-k8s have, such as
/// `__MTU__`. All else stays as it is.
///
/// # Errors
///
/// [`TemplateError`] if a runtime could not use it.
pub fn filled(template: &[u8], choices: &Choices<'_>) -> Result<String, TemplateError> {
    let text = str::from_utf8(template).map_err(|_| TemplateError::NotText)?;
    let list: Value = serde_json::from_str(text).map_err(TemplateError::NotJson)?;
    let Value::Object(mut list) = list else { return Err(TemplateError::NoEntry) };
    for value in list.values_mut() {
        fill(value, choices)?;
    }
    let mut list = Value::Object(list);
    entry(&mut list).ok_or(TemplateError::NoEntry)?;
    Ok(marked(list))
}

/// Whether [`shipped`] or [`filled`] has made this conflist.
#[must_use]
pub fn is_ours(conflist: &[u8]) -> bool {
    let list: Result<Value, _> = serde_json::from_slice(conflist);
    list.is_ok_and(|list| list[MARK.0] == MARK.1)
}

fn marked(mut list: Value) -> String {
    list[MARK.0] = json!(MARK.1);
    // Keys in one order, so that the same settings make the same bytes.
    format!("{list:#}\n")
}

/// Our plugin's entry of a list.
fn entry(list: &mut Value) -> Option<&mut Map<String, Value>> {
    let plugins = list.get_mut("plugins")?.as_array_mut()?;
    plugins.iter_mut().find(|entry| entry["type"] == PLUGIN)?.as_object_mut()
}

/// Replaces the names in each text of `value`.
fn fill(value: &mut Value, choices: &Choices<'_>) -> Result<(), TemplateError> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(text) => {
            *text = text
                .replace("__VETHPREFIX__", choices.veth_prefix)
                .replace("__MTU__", &choices.mtu.to_string())
                .replace("__PLUGINLOGFILE__", choices.log_file)
                .replace("__PLUGINLOGLEVEL__", choices.log_level);
            match text.starts_with("__") && text.ends_with("__") {
                true => Err(TemplateError::Placeholder(text.clone())),
                false => Ok(()),
            }
        }
        Value::Array(values) => values.iter_mut().try_for_each(|value| fill(value, choices)),
        Value::Object(members) => members.values_mut().try_for_each(|value| fill(value, choices)),
    }
}

#[cfg(test)]
mod tests;
