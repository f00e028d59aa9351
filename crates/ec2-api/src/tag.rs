//! Tags: what they are, and which of them EC2 accepts.

use std::collections::BTreeMap;

use crate::error::ApiError;

/// Limits on tags: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html>.
const MAX_TAGS: usize = 50;
const MAX_KEY_CHARS: usize = 128;
const MAX_VALUE_CHARS: usize = 256;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// `Tag.N`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tag {
    /// Up to 128 characters.
    pub key: String,
    /// Up to 256 characters. `None` in DeleteTags matches any value.
    pub value: Option<String>,
}

/// Adds or overwrites tags, all or none.
///
/// # Errors
/// `InvalidParameterValue` for a key or value that EC2 does not accept, and `TagLimitExceeded`.
pub fn put_tags(tags: &mut Tags, more: &[Tag]) -> Result<(), ApiError> {
    let mut after = tags.clone();
    for tag in more {
        let value = tag.value.clone().unwrap_or_default();
        check_tag(&tag.key, &value)?;
        after.insert(tag.key.clone(), value);
    }
    if after.len() > MAX_TAGS {
        let text = "The maximum number of Tags for a resource has been reached.";
        return Err(ApiError::new("TagLimitExceeded", text));
    }
    *tags = after;
    Ok(())
}

fn check_tag(key: &str, value: &str) -> Result<(), ApiError> {
    let problem = match () {
        () if key.is_empty() => "Tag key cannot be empty",
        () if key.to_ascii_lowercase().starts_with("aws:") => {
            "Tag keys starting with 'aws:' are reserved for internal use"
        }
        () if key.chars().count() > MAX_KEY_CHARS => "Tag key exceeds the maximum length of 128",
        () if value.chars().count() > MAX_VALUE_CHARS => {
            "Tag value exceeds the maximum length of 256"
        }
        () => return Ok(()),
    };
    Err(ApiError::parameter_value(problem))
}
