//! The operations of one model, as a closed list.

/// Declares the closed list of operations: `Action` for their names and `Request` for their
/// content. So neither can miss an operation.
#[macro_export]
macro_rules! operations {
    ($($name:ident),* $(,)?) => {
        /// The name of an operation.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            $crate::serde::Serialize, $crate::serde::Deserialize,
        )]
        #[serde(crate = "ec2_api::serde")]
        #[expect(missing_docs, reason = "the variants are the operations of the EC2 API")]
        pub enum Action {
            $($name,)*
        }

        impl Action {
            /// All operations.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name as in the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }

        impl std::str::FromStr for Action {
            type Err = $crate::ApiError;

            fn from_str(text: &str) -> Result<Self, $crate::ApiError> {
                let found = Self::ALL.iter().find(|action| action.as_str() == text);
                found.copied().ok_or_else(|| $crate::ApiError::invalid_action(text))
            }
        }

        impl std::fmt::Display for Action {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        /// One decoded request.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "the variants are the operations of the EC2 API")]
        pub enum Request {
            $($name($name),)*
        }

        impl Request {
            /// The operation that it requests.
            #[must_use]
            pub const fn action(&self) -> Action {
                match self {
                    $(Self::$name(_) => Action::$name,)*
                }
            }
        }

        $(impl From<$name> for Request {
            fn from(request: $name) -> Self {
                Self::$name(request)
            }
        })*
    };
}
