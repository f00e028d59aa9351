//! The tags of new ENIs: which of them EC2 takes.
//!
//! EC2 refuses a create with a bad tag, and then no ENI is ever made. Source: AWS, "Tag naming limits and
//! requirements" for EC2.

use std::collections::BTreeMap;

use ipam::call::MOST_OWN_TAGS;

use crate::registry::{ADDITIONAL_ENI_TAGS, CLUSTER_NAME};
use crate::{SettingError, Variables};

/// Keys that contain this are the daemon's own.
const OWN_TAGS: &str = "k8s.amazonaws.com";
/// A key with this beginning is AWS's own, in upper or lower case.
const AWS_PREFIX: &str = "aws:";
/// In characters.
const LONGEST_KEY: usize = 128;
/// In characters.
const LONGEST_VALUE: usize = 256;
const MOST_TAGS: usize = 50;

/// The tags of `ADDITIONAL_ENI_TAGS`, and a warning for each that is left out.
pub(crate) fn additional(
    variables: &Variables,
) -> Result<(BTreeMap<String, String>, Vec<String>), SettingError> {
    let setting = &ADDITIONAL_ENI_TAGS;
    let text = variables.text(setting).unwrap_or("{}");
    let tags: BTreeMap<String, String> = serde_json::from_str(text).map_err(|_| {
        variables.error(setting, "expected a JSON object of strings like {\"team\":\"net\"}")
    })?;
    let (own, tags): (BTreeMap<_, _>, _) =
        tags.into_iter().partition(|(key, _)| key.contains(OWN_TAGS));
    if let Some(fault) = tags.iter().find_map(|(key, value)| fault(key, value)) {
        return Err(variables.error(setting, &fault));
    }
    let most = MOST_TAGS - MOST_OWN_TAGS;
    if tags.len() > most {
        let n = tags.len();
        let few = format!("expected at most {most} tags beside the daemon's own, and it has {n}");
        return Err(variables.error(setting, &few));
    }
    let name = setting.name;
    let dropped = own.into_keys().map(|key| {
        format!("{name}: tag {key:?} is left out, since keys with {OWN_TAGS} are ipamd's own")
    });
    Ok((tags, dropped.collect()))
}

/// The name of the cluster, which is the value of a tag.
pub(crate) fn cluster(variables: &Variables) -> Result<Option<String>, SettingError> {
    let name = variables.text(&CLUSTER_NAME);
    if name.is_some_and(|name| name.chars().count() > LONGEST_VALUE) {
        let long =
            format!("expected at most {LONGEST_VALUE} characters, since it is a tag of each ENI");
        return Err(variables.error(&CLUSTER_NAME, &long));
    }
    Ok(name.map(str::to_owned))
}

/// Why EC2 would not take the tag.
fn fault(key: &str, value: &str) -> Option<String> {
    let start: String = key.chars().take(AWS_PREFIX.len()).collect();
    let (n_key, n_value) = (key.chars().count(), value.chars().count());
    let shown: String = key.chars().take(LONGEST_KEY).collect();
    if n_key == 0 {
        Some("expected no empty key".to_owned())
    } else if n_key > LONGEST_KEY {
        Some(format!(
            "expected keys of at most {LONGEST_KEY} characters, and {shown:?}… has {n_key}"
        ))
    } else if n_value > LONGEST_VALUE {
        let most = format!("expected values of at most {LONGEST_VALUE} characters");
        Some(format!("{most}, and that of {key:?} has {n_value}"))
    } else if start.eq_ignore_ascii_case(AWS_PREFIX) {
        Some(format!("expected no key that begins with {AWS_PREFIX}, as {key:?} does"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::{SettingError, Settings};

    fn read(name: &str, value: &str) -> Result<Settings, SettingError> {
        Settings::read(&[(name.to_owned(), value.to_owned())].into_iter().collect())
    }

    fn tag(key: &str, value: &str) -> String {
        serde_json::json!({ key: value }).to_string()
    }

    #[test]
    fn tags_that_ec2_refuses_are_refused() {
        let many = |n: usize| {
            let tags: Vec<_> = (0..n).map(|n| format!("\"k{n}\":\"v\"")).collect();
            format!("{{{}}}", tags.join(","))
        };
        let check = |tags: &str, expect: &str| {
            let error = read("ADDITIONAL_ENI_TAGS", tags).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
            assert!(error.starts_with("ADDITIONAL_ENI_TAGS=") && error.len() < 1_000, "{error}");
        };
        check(&tag("", "v"), ": expected no empty key");
        check(&tag("aws:x", "v"), ": expected no key that begins with aws:, as \"aws:x\" does");
        check(&tag("AwS:", "v"), ": expected no key that begins with aws:");
        check(&tag(&"\u{e9}".repeat(129), "v"), ": expected keys of at most 128 characters, and ");
        check(&tag("k", &"v".repeat(257)), "of at most 256 characters, and that of \"k\" has 257");
        check(&many(47), ": expected at most 46 tags beside the daemon's own, and it has 47");
        let longest = tag(&"\u{e9}".repeat(128), &"\u{e9}".repeat(256));
        for good in [&many(46), &longest, &tag("aws", ""), &tag("xaws:", "aws:")] {
            assert!(read("ADDITIONAL_ENI_TAGS", good).is_ok(), "{good}");
        }
    }

    #[test]
    fn cluster_name_that_is_no_tag_value_is_refused() {
        assert!(read("CLUSTER_NAME", &"\u{e9}".repeat(256)).is_ok());
        let error = read("CLUSTER_NAME", &"c".repeat(257)).unwrap_err().to_string();
        assert!(
            error.ends_with(": expected at most 256 characters, since it is a tag of each ENI")
        );
    }
}
