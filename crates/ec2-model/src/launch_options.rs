//! What an instance is started with besides its network: its instance profile and its user data.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::ApiError;
use crate::zone;

/// The largest user data, in bytes before base64.
const MAX_USER_DATA: usize = 16_384;

/// `IamInstanceProfile` of a request. The model knows no profiles: it takes every one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IamInstanceProfile {
    /// `Arn`
    pub arn: Option<String>,
    /// `Name`
    pub name: Option<String>,
}

/// `iamInstanceProfile` of an instance. Its role has the profile's name, as the IAM console does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceProfile {
    /// `arn`
    pub arn: String,
}

impl InstanceProfile {
    /// `id`, the same for every profile.
    pub const ID: &str = "AIPAEXAMPLEEXAMPLEEXA";

    /// The profile of this name in an account.
    pub(crate) fn named(name: &str, region: &str, account: &str) -> Self {
        let partition = zone::partition(region);
        Self { arn: format!("arn:{partition}:iam::{account}:instance-profile/{name}") }
    }

    /// The profile that a request names.
    pub(crate) fn of(
        wanted: &IamInstanceProfile,
        region: &str,
        account: &str,
    ) -> Result<Self, ApiError> {
        match (&wanted.arn, &wanted.name) {
            (Some(_), Some(_)) => Err(ApiError::parameter_combination(
                "The parameter 'iamInstanceProfile.name' may not be used in combination with \
                 'iamInstanceProfile.arn'",
            )),
            (Some(arn), None) => {
                let profile = Self { arn: arn.clone() };
                let is_profile = arn.starts_with("arn:") && arn.contains(":instance-profile/");
                if is_profile && !profile.name().is_empty() {
                    return Ok(profile);
                }
                let why = "Invalid IAM Instance Profile ARN";
                Err(ApiError::invalid_value(arn, "iamInstanceProfile.arn", why))
            }
            (None, Some(name)) if is_name(name) => Ok(Self::named(name, region, account)),
            (None, name) => {
                let name = name.as_deref().unwrap_or_default();
                let why = "Invalid IAM Instance Profile name";
                Err(ApiError::invalid_value(name, "iamInstanceProfile.name", why))
            }
        }
    }

    /// The name, without a path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }
}

/// IAM's rule for names of profiles.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(plain)
}

/// The bytes of `UserData`, which is base64.
pub(crate) fn user_data(text: &str) -> Result<Vec<u8>, ApiError> {
    let bytes = STANDARD.decode(text).map_err(|_| {
        ApiError::new("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
    })?;
    if bytes.len() > MAX_USER_DATA {
        let text = format!("User data is limited to {MAX_USER_DATA} bytes");
        return Err(ApiError::parameter_value(text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_is_named_by_name_or_arn() {
        let check = |arn: Option<&str>, name: Option<&str>, expect: Result<&str, &str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let wanted = IamInstanceProfile { arn: owned(arn), name: owned(name) };
            let got = InstanceProfile::of(&wanted, "us-east-1", "111122223333");
            let got = got.as_ref().map(InstanceProfile::name).map_err(|error| error.code.as_str());
            assert_eq!(got, expect, "{wanted:?}");
        };
        let arn = "arn:aws:iam::111122223333:instance-profile/path/node";
        check(Some(arn), None, Ok("node"));
        check(None, Some("node"), Ok("node"));
        check(Some(arn), Some("node"), Err("InvalidParameterCombination"));
        check(Some("arn:aws:iam::111122223333:role/node"), None, Err("InvalidParameterValue"));
        check(Some("arn:aws:iam::1:instance-profile/"), None, Err("InvalidParameterValue"));
        check(None, Some("a b"), Err("InvalidParameterValue"));
        check(None, None, Err("InvalidParameterValue"));
    }

    #[test]
    fn user_data_is_base64_of_bounded_size() {
        assert_eq!(user_data("aGVsbG8="), Ok(b"hello".to_vec()));
        assert_eq!(user_data("hello!").unwrap_err().code, "InvalidUserData.Malformed");
        let of_size = |n| user_data(&STANDARD.encode(vec![0; n]));
        assert_eq!(of_size(MAX_USER_DATA).map(|bytes| bytes.len()), Ok(MAX_USER_DATA));
        assert_eq!(of_size(MAX_USER_DATA + 1).unwrap_err().code, "InvalidParameterValue");
    }
}
