//! The operations of one model, as a closed list.

/// Declares the closed list of operations: `Action` for their names and `Request` for their
/// content. So neither can miss an operation.
///
/// A list may end with another model, to which this one hands calls: `; Plan(its::Action,
/// Its::Request)`. Then the operations of that model are operations of this one, under one variant.
#[macro_export]
macro_rules! operations {
    (
        $($name:ident),* $(,)?
        $(; $(#[$doc:meta])* $other:ident($other_action:ty, $other_request:ty) $(,)?)?
    ) => {
        /// The name of an operation. As JSON it is the name in the API.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            $crate::serde::Serialize, $crate::serde::Deserialize,
        )]
        #[serde(crate = "ec2_api::serde", try_from = "String", into = "String")]
        #[expect(missing_docs, reason = "the variants are the operations of the EC2 API")]
        pub enum Action {
            $($name,)*
            $($(#[$doc])* $other($other_action),)?
        }

        impl Action {
            /// All operations.
            pub fn all() -> impl Iterator<Item = Self> {
                let own = [$(Self::$name,)*].into_iter();
                $(let own = own.chain(<$other_action>::all().map(Self::$other));)?
                own
            }

            /// The name as in the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    $(Self::$other(it) => <$other_action>::as_str(it),)?
                }
            }
        }

        impl std::str::FromStr for Action {
            type Err = $crate::ApiError;

            fn from_str(text: &str) -> Result<Self, $crate::ApiError> {
                let found = Self::all().find(|action| action.as_str() == text);
                found.ok_or_else(|| $crate::ApiError::invalid_action(text))
            }
        }

        impl TryFrom<String> for Action {
            type Error = $crate::ApiError;

            fn try_from(text: String) -> Result<Self, $crate::ApiError> {
                text.parse()
            }
        }

        impl From<Action> for String {
            fn from(action: Action) -> Self {
                action.as_str().to_owned()
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
            $($(#[$doc])* $other($other_request),)?
        }

        impl Request {
            /// The operation that it requests.
            #[must_use]
            pub const fn action(&self) -> Action {
                match self {
                    $(Self::$name(_) => Action::$name,)*
                    $(Self::$other(it) => Action::$other(it.action()),)?
                }
            }
        }

        $(impl From<$name> for Request {
            fn from(request: $name) -> Self {
                Self::$name(request)
            }
        })*

        $(impl From<$other_request> for Request {
            fn from(request: $other_request) -> Self {
                Self::$other(request)
            }
        })?
    };
}
