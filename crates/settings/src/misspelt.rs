//! Names that are nearly those of settings. A misspelt setting would have no effect, and nobody would know.

use crate::registry::{ALL, Setting};

/// From this length on, two slips still leave no doubt about which setting is meant.
const LONG: usize = 12;
/// Shorter names are too often near to something else.
const SHORTEST: usize = 7;

/// The setting that `name` is nearly the name of. `None` for the name of a setting.
pub(crate) fn meant(name: &str) -> Option<&'static Setting> {
    if ALL.iter().any(|setting| setting.name == name) || name.len() < SHORTEST {
        return None;
    }
    let folded = fold(name);
    let most = if folded.len() < LONG { 1 } else { 2 };
    let near = ALL.iter().map(|setting| (distance(&folded, &fold(setting.name), most), *setting));
    let near = near.filter_map(|(distance, setting)| Some((distance?, setting)));
    near.min_by_key(|(distance, setting)| (*distance, setting.name)).map(|(_, setting)| setting)
}

/// Without case, and with one kind of separator.
fn fold(name: &str) -> Vec<u8> {
    let upper = name.bytes().map(|byte| byte.to_ascii_uppercase());
    upper.map(|byte| if matches!(byte, b'-' | b'.') { b'_' } else { byte }).collect()
}

/// How many letters must be changed, left out, added, or swapped with the next; `None` if more than `most`.
fn distance(a: &[u8], b: &[u8], most: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let changed = last[j] + usize::from(x != y);
            let mut least = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().filter(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_a_name_is_traced_to_the_setting() {
        for (name, expect) in [
            ("ENABLE_IPV6", Some("ENABLE_IPv6")),
            ("enable_ipv6", Some("ENABLE_IPv6")),
            ("WARM_IP_TARGETS", Some("WARM_IP_TARGET")),
            ("WARM-IP-TARGET", Some("WARM_IP_TARGET")),
            ("MINIMUN_IP_TARGET", Some("MINIMUM_IP_TARGET")),
            ("WARM_IP_TRAGET", Some("WARM_IP_TARGET")),
            ("MAX_ENIS", Some("MAX_ENI")),
            ("AWS_VPC_K8S_CNI_LOG_LEVEL", Some("AWS_VPC_K8S_CNI_LOGLEVEL")),
            ("AWS_VPC_CNI_EXTERNALSNAT", None),
            ("ENABLE_V4_EGRESS", None),
            ("WARM_IP_TARGET", None),
            ("MY_NODE_IP", None),
            ("POD_IP", None),
            ("POD_NAME", None),
            ("PATH", None),
            ("KUBERNETES_SERVICE_HOST", None),
        ] {
            assert_eq!(meant(name).map(|setting| setting.name), expect, "{name}");
        }
    }

    /// Otherwise a right name could be taken for a misspelt other.
    #[test]
    fn every_setting_has_a_name_of_its_own() {
        for setting in ALL {
            assert_eq!(meant(setting.name), None, "{}", setting.name);
            let same = ALL.iter().filter(|other| fold(other.name) == fold(setting.name));
            assert_eq!(same.count(), 1, "{}", setting.name);
        }
    }
}
