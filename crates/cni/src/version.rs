//! The versions of the protocol, its verbs, and which verb came with which version.

use std::fmt;

use serde_json::json;

/// A version of the CNI specification that this crate speaks, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0: the first with lists of interfaces and addresses.
    V0_3_0,
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0: CHECK.
    V0_4_0,
    /// 1.0.0: addresses no longer name their family.
    V1_0_0,
    /// 1.1.0: STATUS and GC; MTU of interfaces, metrics of routes.
    V1_1_0,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Version; 5] =
        [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];

    /// The newest.
    pub const NEWEST: Version = Version::V1_1_0;

    /// As configurations write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// The version that `text` names, if it is one of ours.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Version> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the runtime asks for: `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Connect a container.
    Add,
    /// Disconnect it.
    Del,
    /// Is it still connected?
    Check,
    /// Could a container be connected now?
    Status,
    /// Disconnect what is not listed.
    Gc,
    /// Which versions are spoken?
    Version,
}

impl Verb {
    const ALL: [Verb; 6] =
        [Verb::Add, Verb::Del, Verb::Check, Verb::Status, Verb::Gc, Verb::Version];

    /// As `CNI_COMMAND` writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Status => "STATUS",
            Verb::Gc => "GC",
            Verb::Version => "VERSION",
        }
    }

    /// The verb that `text` names.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Verb> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text)
    }

    /// The first version of the protocol that has it.
    #[must_use]
    pub fn since(self) -> Version {
        match self {
            Verb::Add | Verb::Del | Verb::Version => Version::V0_3_0,
            Verb::Check => Version::V0_4_0,
            Verb::Status | Verb::Gc => Version::V1_1_0,
        }
    }
}

/// The answer to VERSION. `requested` is the request's own `cniVersion` and goes back as it came,
/// whether it is one of ours or not.
#[must_use]
pub fn version_document(requested: &str) -> String {
    let supported: Vec<_> = Version::ALL.into_iter().map(Version::as_str).collect();
    json!({ "cniVersion": requested, "supportedVersions": supported }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_values_are_the_same_set() {
        for version in Version::ALL {
            assert_eq!(Version::from_text(version.as_str()), Some(version));
        }
        for verb in Verb::ALL {
            assert_eq!(Verb::from_text(verb.as_str()), Some(verb));
        }
        for foreign in ["", "0.2.0", "1.1", "1.1.0 ", "2.0.0"] {
            assert_eq!(Version::from_text(foreign), None);
        }
        assert_eq!(Verb::from_text("add"), None);
    }

    #[test]
    fn versions_are_in_their_order() {
        assert!(Version::ALL.is_sorted());
        assert_eq!(Version::ALL.last(), Some(&Version::NEWEST));
    }

    #[test]
    fn the_version_document_lists_all() {
        assert_eq!(
            version_document("1.0.0"),
            r#"{"cniVersion":"1.0.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
    }
}
