//! The versions of the protocol, its verbs, and the first version of each verb.

use std::fmt;

use serde_json::json;

/// A supported version of the CNI specification; a later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0: the first with lists of interfaces and addresses.
    V0_3_0,
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0: adds CHECK.
    V0_4_0,
    /// 1.0.0: addresses no longer name their family.
    V1_0_0,
    /// 1.1.0: adds STATUS and GC, the MTU of interfaces and the metrics of routes.
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

    /// The version that `text` names, if it is supported.
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

/// The runtime's verb, `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Connect a container.
    Add,
    /// Disconnect a container.
    Del,
    /// Check that a container is still connected.
    Check,
    /// Check that a container could be connected now.
    Status,
    /// Disconnect the containers that are not listed.
    Gc,
    /// List the supported versions.
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

/// The answer to VERSION. `requested` is the request's `cniVersion`, which is returned unchanged, also
/// if it is not supported.
#[must_use]
pub fn version_document(requested: &str) -> String {
    let supported: Vec<_> = Version::ALL.into_iter().map(Version::as_str).collect();
    json!({ "cniVersion": requested, "supportedVersions": supported }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_verb_texts_parse_back() {
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
    fn version_all_is_sorted_with_newest_last() {
        assert!(Version::ALL.is_sorted());
        assert_eq!(Version::ALL.last(), Some(&Version::NEWEST));
    }

    #[test]
    fn version_document_lists_all_versions() {
        assert_eq!(
            version_document("1.0.0"),
            r#"{"cniVersion":"1.0.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
    }
}
