//! The metadata options of an instance: which requests its IMDS answers, and how far its tokens
//! travel.
//!
//! Source:
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-options.html>.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::response::Tags;

/// `enabled` or `disabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toggle {
    /// `enabled`
    Enabled,
    /// `disabled`
    Disabled,
}

impl Toggle {
    /// EC2's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }
}

impl FromStr for Toggle {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "enabled" => Ok(Self::Enabled),
            "disabled" => Ok(Self::Disabled),
            _ => Err(ApiError::invalid_value(text, "metadataOptions", "")),
        }
    }
}

/// `HttpTokens`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpTokens {
    /// `optional`: requests with or without a token.
    Optional,
    /// `required`: requests with a token.
    Required,
}

impl HttpTokens {
    /// EC2's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

impl FromStr for HttpTokens {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err(ApiError::invalid_value(text, "httpTokens", "")),
        }
    }
}

/// How many hops the answer to a token request may travel: 1 to 64. The first hop is the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct HopLimit(u8);

impl HopLimit {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<i32> for HopLimit {
    type Error = ApiError;

    fn try_from(n: i32) -> Result<Self, ApiError> {
        let valid = u8::try_from(n).ok().filter(|n| (1..=64).contains(n));
        valid.map(Self).ok_or_else(|| {
            let why = "It must be an integer from 1 to 64.";
            ApiError::invalid_value(&n.to_string(), "httpPutResponseHopLimit", why)
        })
    }
}

impl From<HopLimit> for i32 {
    fn from(limit: HopLimit) -> Self {
        limit.0.into()
    }
}

impl fmt::Display for HopLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `metadataOptions` of an instance. Their state is always `applied`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataOptions {
    /// `httpEndpoint`
    pub http_endpoint: Toggle,
    /// `httpTokens`
    pub http_tokens: HttpTokens,
    /// `httpPutResponseHopLimit`
    pub hop_limit: HopLimit,
    /// `httpProtocolIpv6`: whether IMDS has its IPv6 address too.
    pub http_protocol_ipv6: Toggle,
    /// `instanceMetadataTags`: whether IMDS shows the instance's tags.
    pub instance_metadata_tags: Toggle,
}

impl Default for MetadataOptions {
    /// What an AMI with `ImdsSupport=v2.0` gives, as every current Amazon Linux has it: tokens, and
    /// two hops for them.
    fn default() -> Self {
        Self {
            http_endpoint: Toggle::Enabled,
            http_tokens: HttpTokens::Required,
            hop_limit: HopLimit(2),
            http_protocol_ipv6: Toggle::Disabled,
            instance_metadata_tags: Toggle::Disabled,
        }
    }
}

/// `MetadataOptions` of a request. What is absent keeps its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetadataOptionsRequest {
    /// `HttpEndpoint`
    pub http_endpoint: Option<Toggle>,
    /// `HttpTokens`
    pub http_tokens: Option<HttpTokens>,
    /// `HttpPutResponseHopLimit`
    pub hop_limit: Option<i32>,
    /// `HttpProtocolIpv6`
    pub http_protocol_ipv6: Option<Toggle>,
    /// `InstanceMetadataTags`
    pub instance_metadata_tags: Option<Toggle>,
}

impl MetadataOptions {
    /// These options with the changes of `request`, for an instance with these tags.
    pub(crate) fn changed(
        self,
        request: &MetadataOptionsRequest,
        tags: &Tags,
    ) -> Result<Self, ApiError> {
        let hop_limit = request.hop_limit.map(HopLimit::try_from).transpose()?;
        let changed = Self {
            http_endpoint: request.http_endpoint.unwrap_or(self.http_endpoint),
            http_tokens: request.http_tokens.unwrap_or(self.http_tokens),
            hop_limit: hop_limit.unwrap_or(self.hop_limit),
            http_protocol_ipv6: request.http_protocol_ipv6.unwrap_or(self.http_protocol_ipv6),
            instance_metadata_tags: request
                .instance_metadata_tags
                .unwrap_or(self.instance_metadata_tags),
        };
        match changed.instance_metadata_tags {
            Toggle::Enabled => tags.keys().try_for_each(|key| check_tag_key(key))?,
            Toggle::Disabled => {}
        }
        Ok(changed)
    }
}

/// A tag's key becomes a path of IMDS, so that not every key will do.
fn check_tag_key(key: &str) -> Result<(), ApiError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+=,.@:".contains(&byte);
    if key.bytes().all(plain) && !matches!(key, "." | ".." | "_index") {
        return Ok(());
    }
    Err(ApiError::parameter_value(format!(
        "'{key}' is not a valid tag key. Tag keys must match pattern \
         ([0-9a-zA-Z\\-_+=,.@:]{{1,255}}), and must not be a reserved name ('.', '..', '_index')"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_limit_is_from_1_to_64() {
        for (n, valid) in [(-1, false), (0, false), (1, true), (64, true), (65, false)] {
            assert_eq!(HopLimit::try_from(n).is_ok(), valid, "{n}");
        }
    }

    #[test]
    fn tag_key_must_suit_a_path() {
        let wanted = MetadataOptionsRequest {
            instance_metadata_tags: Some(Toggle::Enabled),
            ..MetadataOptionsRequest::default()
        };
        for (key, valid) in
            [("Name", true), ("a:b", true), ("a/b", false), ("a b", false), ("_index", false)]
        {
            let tags = Tags::from([(key.to_owned(), String::new())]);
            let changed = MetadataOptions::default().changed(&wanted, &tags);
            assert_eq!(changed.is_ok(), valid, "{key}");
        }
    }
}
