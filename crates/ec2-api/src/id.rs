//! The form of EC2's resource ids.
//!
//! Parsing checks the form of an id. Only a model knows whether the resource exists.

/// Whether `text` is `prefix`, a dash and lower-case hexadecimal digits. `lengths` says how many.
#[must_use]
pub fn is_well_formed(text: &str, prefix: &str, lengths: &[usize]) -> bool {
    text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).is_some_and(|digits| {
        lengths.contains(&digits.len())
            && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Declares the newtype of one kind of id. EC2's codes for malformed ids follow no rule, so each is
/// given in full.
#[macro_export]
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $malformed:literal) => {
        $crate::id!($(#[$doc])* $name, $prefix, $malformed, 17);
    };
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $malformed:literal, $n_digits:literal) => {
        $(#[$doc])*
        ///
        /// Parsing accepts the prefix, a dash and 17 (or 8) lower-case hexadecimal digits.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, $crate::serde::Serialize, $crate::serde::Deserialize)]
        #[serde(crate = "ec2_api::serde", try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text before the dash.
            pub const PREFIX: &'static str = $prefix;

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id with the digits of another resource's id. So what exists once for each of
            /// those resources needs no random number.
            #[must_use]
            pub fn with_digits_of(other: &str) -> Self {
                let digits = other.rsplit_once('-').map_or(other, |(_, digits)| digits);
                Self(format!("{}-{digits}", $prefix))
            }

            /// The id with the lower bits of `number` as its digits, as many as fit.
            #[must_use]
            pub fn from_number(number: u128) -> Self {
                let n_bits: u32 = 4 * $n_digits;
                let mask = u128::MAX.checked_shr(128u32.saturating_sub(n_bits)).unwrap_or(0);
                Self(format!("{}-{:0width$x}", $prefix, number & mask, width = $n_digits))
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::ApiError;

            fn from_str(text: &str) -> Result<Self, $crate::ApiError> {
                if $crate::id::is_well_formed(text, $prefix, &[8, $n_digits]) {
                    return Ok(Self(text.to_owned()));
                }
                Err($crate::ApiError::new($malformed, format!("Invalid id: \"{text}\"")))
            }
        }

        impl ::std::convert::TryFrom<String> for $name {
            type Error = $crate::ApiError;

            fn try_from(text: String) -> Result<Self, $crate::ApiError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
