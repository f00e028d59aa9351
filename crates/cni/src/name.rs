//! Names that the protocol restricts. Each type holds legal names only.

use std::fmt;

/// The text breaks the rule of its kind of name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a legal {kind}: {rule}")]
pub struct InvalidName {
    text: String,
    kind: &'static str,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $legal:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;

            fn try_from(text: &str) -> Result<Self, InvalidName> {
                if $legal(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { text: text.to_owned(), kind: $kind, rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// `CNI_CONTAINERID`: names one sandbox, and is never used again.
    ContainerId, "container id", is_word,
    "it must start with a letter or digit and go on with letters, digits, '_', '.' and '-'"
);
name!(
    /// The `name` of a network configuration. The rule is that of a [`ContainerId`].
    NetworkName, "network name", is_word,
    "it must start with a letter or digit and go on with letters, digits, '_', '.' and '-'"
);
name!(
    /// `CNI_IFNAME`: a name that the kernel accepts for an interface (`dev_valid_name` in
    /// `net/core/dev.c`) and takes as it is: in `%d` it would put a number (`dev_alloc_name` there).
    IfName, "interface name", is_ifname,
    "it must have 1 to 15 bytes, not be '.' or '..', and hold no '/', ':', '%' or white space"
);

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// Also for a prefix of interface names, which has the same rule.
pub(crate) fn is_ifname(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| "/:%".contains(c) || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_id_and_network_name_accept_words_only() {
        for legal in ["a", "0", "cnitool-dd76", "default-c1", "A_b.c-9", &"f".repeat(64)] {
            assert_eq!(ContainerId::try_from(legal).unwrap().as_str(), legal);
            assert!(NetworkName::try_from(legal).is_ok());
        }
        for illegal in ["", "_a", ".", "-x", "a b", "a/b", "a;b", "ä", "a\n"] {
            assert!(ContainerId::try_from(illegal).is_err(), "{illegal:?}");
            assert!(NetworkName::try_from(illegal).is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn ifname_accepts_what_the_kernel_accepts() {
        for legal in ["e", "eth0", "a.b", "...", "fifteen-bytes-0"] {
            assert!(IfName::try_from(legal).is_ok(), "{legal:?}");
        }
        for illegal in
            ["", ".", "..", "a/b", "a:1", "a b", "a\tb", "a\0b", "a%d", "sixteen-bytes-00"]
        {
            assert!(IfName::try_from(illegal).is_err(), "{illegal:?}");
        }
    }

    #[test]
    fn invalid_name_error_states_the_rule() {
        let error = IfName::try_from("..").unwrap_err().to_string();
        assert!(error.starts_with("\"..\" is not a legal interface name: it must"), "{error}");
    }
}
