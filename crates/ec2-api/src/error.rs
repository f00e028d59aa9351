//! EC2's errors: a code for programs, a text for people, an HTTP status.

use serde::{Deserialize, Serialize};

/// An error of the API. Codes and texts are EC2's own, including irregular spellings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// For example `InsufficientCidrBlocks`.
    pub code: String,
    /// Text for people. Clients should not match on it, though some do.
    pub message: String,
    /// HTTP status.
    pub status: u16,
}

impl ApiError {
    /// An error with the HTTP status that EC2 gives this code. Most codes have status 400.
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

    /// `InvalidAction`: EC2 has no such operation, or the model does not have it.
    #[must_use]
    pub fn invalid_action(name: &str) -> Self {
        let message = format!("The action {name} is not valid for this web service.");
        Self::new("InvalidAction", message)
    }

    /// `MissingParameter`: the request lacks a required parameter.
    #[must_use]
    pub fn missing_parameter(name: &str) -> Self {
        let message = format!("The request must contain the parameter {name}");
        Self::new("MissingParameter", message)
    }

    /// `UnknownParameter`: the operation does not have this parameter, or the model does not.
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

    /// `InvalidParameterValue` for text that is not an IP address.
    #[must_use]
    pub fn malformed_address(text: &str) -> Self {
        Self::parameter_value(format!("invalid value for parameter address: {text}"))
    }

    /// `InvalidParameterValue` with its own text.
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
