//! How EC2 refuses: a code that programs match on, a text for people, an HTTP status.

use serde::{Deserialize, Serialize};

/// A error. Codes and texts are those of the service, irregular spellings included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// For example `InsufficientCidrBlocks`.
    pub code: String,
    /// For people; clients should not read it, and some do.
    pub message: String,
    /// HTTP status.
    pub status: u16,
}

impl ApiError {
    /// An error with the status that EC2 gives this code: 400 unless the code is one of the few
    /// that have another.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        let status = match code {
            "AuthFailure" => 401,
            "UnauthorizedOperation" | "MissingAuthenticationToken" => 403,
            "DryRunOperation" => 412,
            "InternalError" | "InternalFailure" => 500,
            "RequestLimitExceeded" | "Unavailable" => 503,
            _ => 400,
        };
        Self { code: code.to_owned(), message: message.into(), status }
    }

    /// `InvalidAction`: no such operation, or none that is modelled.
    #[must_use]
    pub fn invalid_action(name: &str) -> Self {
        let message = format!("The action {name} is not valid for this web service.");
        Self::new("InvalidAction", message)
    }

    /// `MissingParameter`: a required parameter was not given.
    #[must_use]
    pub fn missing_parameter(name: &str) -> Self {
        let message = format!("The request must contain the parameter {name}");
        Self::new("MissingParameter", message)
    }

    /// `UnknownParameter`: a parameter that the operation does not have, or that is not modelled.
    #[must_use]
    pub fn unknown_parameter(name: &str) -> Self {
        Self::new("UnknownParameter", format!("The parameter {name} is not recognized"))
    }

    /// `InvalidParameterValue` with EC2's usual beginning: "Value (x) for parameter y is invalid."
    #[must_use]
    pub fn invalid_value(value: &str, parameter: &str, why: &str) -> Self {
        let text = format!("Value ({value}) for parameter {parameter} is invalid. {why}");
        Self::parameter_value(text.trim_end())
    }

    /// `InvalidParameterValue` for text that is no IP address.
    #[must_use]
    pub fn malformed_address(text: &str) -> Self {
        Self::parameter_value(format!("invalid value for parameter address: {text}"))
    }

    /// `InvalidParameterValue` with a text of its own.
    #[must_use]
    pub fn parameter_value(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValue", message)
    }

    /// `InvalidParameterCombination`.
    #[must_use]
    pub fn parameter_combination(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterCombination", message)
    }
}
