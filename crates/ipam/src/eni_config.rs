//! Custom networking: which ENIConfig a node uses, and where that ENIConfig puts new ENIs. It must not know how the
//! cluster is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{SecurityGroupId, SubnetId};

/// This label names the ENIConfig before all else.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/eniconfig/eniconfig.go`.
const EXTERNAL_LABEL: &str = "vpc.amazonaws.com/externalEniConfig";
/// The ENIConfig of a node that names none. Source: as above.
const DEFAULT_NAME: &str = "default";

/// Where a node names its ENIConfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniConfigKeys {
    /// `ENI_CONFIG_ANNOTATION_DEF`.
    pub annotation: String,
    /// `ENI_CONFIG_LABEL_DEF`.
    pub label: String,
}

impl EniConfigKeys {
    /// The name of the node's ENIConfig. An annotation comes before a label. An empty value counts as none.
    /// Source: as above.
    #[must_use]
    pub fn name<'a>(
        &self,
        labels: &'a BTreeMap<String, String>,
        annotations: &'a BTreeMap<String, String>,
    ) -> &'a str {
        let named = [
            labels.get(EXTERNAL_LABEL),
            annotations.get(&self.annotation),
            labels.get(&self.label),
        ];
        let named = named.into_iter().flatten().find(|name| !name.is_empty());
        named.map_or(DEFAULT_NAME, String::as_str)
    }
}

/// Where new ENIs go, and with which security groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniConfig {
    /// The name of the ENIConfig.
    pub name: String,
    /// Subnets that it names.
    pub subnets: BTreeSet<SubnetId>,
    /// Subnets with all of these tags may be used beside the named ones; none if this is empty.
    pub subnet_tags: BTreeMap<String, String>,
    /// Empty for those of the primary ENI.
    pub groups: BTreeSet<SecurityGroupId>,
}

impl EniConfig {
    /// Whether new ENIs may go to a subnet.
    #[must_use]
    pub fn chooses(&self, subnet: &SubnetId, tags: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): (&String, &String)| tags.get(key) == Some(value);
        let is_tagged = !self.subnet_tags.is_empty() && self.subnet_tags.iter().all(has);
        self.subnets.contains(subnet) || is_tagged
    }
}

impl fmt::Display for EniConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.subnets.iter().map(ToString::to_string);
        let tags = self.subnet_tags.iter().map(|(key, value)| format!("{key}={value}"));
        let tags: Vec<_> = tags.collect();
        let tagged = (!tags.is_empty()).then(|| format!("subnets with {}", tags.join(" and ")));
        let subnets: Vec<_> = named.chain(tagged).collect();
        let groups: Vec<_> = self.groups.iter().map(ToString::to_string).collect();
        let groups = match groups.as_slice() {
            [] => "the primary ENI's security groups".to_owned(),
            groups => groups.join(" and "),
        };
        write!(f, "ENIConfig {}: {}, with {groups}", self.name, subnets.join(" or "))
    }
}

/// The cluster's answer about the ENIConfig of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EniConfigAnswer {
    /// It is there.
    Found(EniConfig),
    /// There is none of the name that the node gives.
    Missing {
        /// The name.
        name: String,
    },
    /// It is there and cannot be used.
    Unusable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

impl EniConfigAnswer {
    /// Why no ENI can be created by it; `None` if it says where.
    pub(crate) fn fault(&self) -> Option<String> {
        match self {
            EniConfigAnswer::Found(_) => None,
            EniConfigAnswer::Missing { name } => Some(format!(
                "there is no ENIConfig {name}, which this node uses; create it, or name another in the node's \
                 annotation or label"
            )),
            EniConfigAnswer::Unusable { name, why } => {
                Some(format!("ENIConfig {name}, which this node uses, cannot be used: {why}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn name_is_the_first_that_the_node_gives() {
        let keys =
            EniConfigKeys { annotation: "an/a".to_owned(), label: "topology/zone".to_owned() };
        let check = |labels: &[(&str, &str)], annotations: &[(&str, &str)], expect: &str| {
            assert_eq!(
                keys.name(&map(labels), &map(annotations)),
                expect,
                "{labels:?} {annotations:?}"
            );
        };
        let (external, zone) = ((EXTERNAL_LABEL, "outer"), ("topology/zone", "us-east-1a"));
        check(&[], &[], "default");
        check(&[zone], &[], "us-east-1a");
        check(&[zone], &[("an/a", "pods")], "pods");
        check(&[zone, external], &[("an/a", "pods")], "outer");
        check(&[zone], &[("an/a", "")], "us-east-1a");
        check(&[("topology/zone", "")], &[("topology/zone", "x")], "default");
    }

    #[test]
    fn subnet_is_chosen_by_name_or_by_all_tags() {
        let subnet = |id: &str| SubnetId::try_from(id).unwrap();
        let config = |ids: &[&str], tags: &[(&str, &str)]| EniConfig {
            name: "pods".to_owned(),
            subnets: ids.iter().map(|id| subnet(id)).collect(),
            subnet_tags: map(tags),
            groups: BTreeSet::new(),
        };
        let both = [("for", "pods"), ("tier", "large")];
        let check = |config: &EniConfig, tags: &[(&str, &str)], expect: bool| {
            assert_eq!(
                config.chooses(&subnet("subnet-1"), &map(tags)),
                expect,
                "{config} {tags:?}"
            );
        };
        check(&config(&["subnet-1"], &[]), &[], true);
        check(&config(&["subnet-2"], &[]), &both, false);
        check(&config(&["subnet-2"], &both), &both, true);
        check(&config(&["subnet-2"], &both), &both[..1], false);
        check(&config(&[], &both[..1]), &both, true);
    }
}
