//! The protocol's errors: a code for the runtime, and texts for people.

use serde_json::json;

/// A failed request's error, printed to stdout as one JSON object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}: {details} (code {})", code.number())]
pub struct CniError {
    /// The code, on which the runtime acts.
    pub code: ErrorCode,
    /// One line: what failed.
    pub msg: String,
    /// The exact cause and what to do; may be empty.
    pub details: String,
}

impl CniError {
    /// An error of this code with both texts.
    pub fn new(code: ErrorCode, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into() }
    }

    /// The object for stdout. `cni_version` is the request's, see
    /// [`requested_version`](crate::requested_version).
    #[must_use]
    pub fn to_json(&self, cni_version: &str) -> String {
        let mut document = json!({
            "cniVersion": cni_version,
            "code": self.code.number(),
            "msg": self.msg,
        });
        if !self.details.is_empty() {
            document["details"] = self.details.as_str().into();
        }
        document.to_string()
    }

    pub(crate) fn environment(details: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidEnvironment, "invalid environment variables", details)
    }

    pub(crate) fn config(details: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidNetworkConfig, "invalid network configuration", details)
    }
}

/// The codes of the specification (section "Error"), and the plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorCode {
    /// 1: the configuration's version is not supported, or lacks the verb.
    IncompatibleVersion,
    /// 4: a `CNI_*` variable is missing or bad.
    InvalidEnvironment,
    /// 5: reading or writing failed.
    Io,
    /// 6: stdin is not a JSON object.
    Decode,
    /// 7: the configuration is JSON, but an option is missing or bad.
    InvalidNetworkConfig,
    /// 8: `CNI_NETNS` is the plugin's own namespace. The code is the reference skeleton's, not the
    /// specification's.
    OwnNamespace,
    /// 11: a temporary condition; the runtime should try again.
    TryAgainLater,
    /// 50: no container can be connected now.
    NotAvailable,
    /// 51: as 50, and connected containers may be cut off.
    LimitedConnectivity,
    /// 100 and up: the plugin's own.
    Plugin(PluginCode),
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            ErrorCode::IncompatibleVersion => 1,
            ErrorCode::InvalidEnvironment => 4,
            ErrorCode::Io => 5,
            ErrorCode::Decode => 6,
            ErrorCode::InvalidNetworkConfig => 7,
            ErrorCode::OwnNamespace => 8,
            ErrorCode::TryAgainLater => 11,
            ErrorCode::NotAvailable => 50,
            ErrorCode::LimitedConnectivity => 51,
            ErrorCode::Plugin(code) => code.0,
        }
    }
}

/// A code that the specification leaves to the plugin: 100 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PluginCode(u32);

impl PluginCode {
    /// The first code that a plugin may define.
    pub const FIRST: u32 = 100;

    /// The code [`FIRST`](Self::FIRST) plus `n`.
    #[must_use]
    pub const fn nth(n: u16) -> Self {
        Self(Self::FIRST + n as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_json_is_one_object() {
        let error = CniError::new(ErrorCode::Plugin(PluginCode::nth(2)), "no address", "subnet-1");
        assert_eq!(
            error.to_json("0.4.0"),
            r#"{"cniVersion":"0.4.0","code":102,"details":"subnet-1","msg":"no address"}"#
        );
    }

    #[test]
    fn error_json_omits_empty_details() {
        let error = CniError::new(ErrorCode::Io, "cannot read", "");
        assert_eq!(
            error.to_json("1.1.0"),
            r#"{"cniVersion":"1.1.0","code":5,"msg":"cannot read"}"#
        );
    }
}
