//! The ENIConfig object: `crd.k8s.amazonaws.com/v1alpha1`, for the whole cluster.
//!
//! `spec.subnet` and `spec.securityGroups` are those of amazon-vpc-cni-k8s. `spec.subnets` and `spec.subnetTags` are
//! ours: more subnets by their ids, and all subnets that have these tags.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipam::eni_config::{EniConfig, EniConfigAnswer};
use ipam::id::InvalidId;
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde_json::{Map, Value};

/// An ENIConfig as the API server shows it. Its `spec` is checked later, so that a bad one is no failed watch.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct EniConfigObject {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Map<String, Value>,
}

impl Resource for EniConfigObject {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "ENIConfig".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "crd.k8s.amazonaws.com".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "eniconfigs".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl EniConfigObject {
    /// What it says about new ENIs.
    pub(crate) fn answer(&self, name: &str) -> EniConfigAnswer {
        let name = name.to_owned();
        match parse(&name, &self.spec) {
            Ok(config) => EniConfigAnswer::Found(config),
            Err(why) => EniConfigAnswer::Unusable { name, why },
        }
    }
}

fn parse(name: &str, spec: &Map<String, Value>) -> Result<EniConfig, String> {
    let one = text(spec, "subnet")?.filter(|id| !id.is_empty());
    let subnets = one.into_iter().map(|id| ("subnet", id));
    let subnets = subnets.chain(list(spec, "subnets")?.map(|id| ("subnets", id)));
    let subnets = subnets.map(|(field, id)| id.try_into().map_err(|fault| in_field(field, &fault)));
    let groups = list(spec, "securityGroups")?;
    let groups = groups.map(|id| id.try_into().map_err(|fault| in_field("securityGroups", &fault)));
    let config = EniConfig {
        name: name.to_owned(),
        subnets: subnets.collect::<Result<_, _>>()?,
        subnet_tags: tags(spec, "subnetTags")?,
        groups: groups.collect::<Result<BTreeSet<_>, _>>()?,
    };
    match config.subnets.is_empty() && config.subnet_tags.is_empty() {
        true => {
            Err("it names no subnet; set spec.subnet, spec.subnets or spec.subnetTags".to_owned())
        }
        false => Ok(config),
    }
}

fn in_field(field: &str, fault: &InvalidId) -> String {
    format!("spec.{field}: {fault}")
}

fn text<'a>(spec: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, String> {
    match spec.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or_else(|| expected(field, "a text")),
    }
}

fn list<'a>(
    spec: &'a Map<String, Value>,
    field: &str,
) -> Result<impl Iterator<Item = &'a str> + use<'a>, String> {
    let texts: Option<Vec<&str>> = match spec.get(field) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(Value::as_str).collect(),
        Some(_) => None,
    };
    texts.map(Vec::into_iter).ok_or_else(|| expected(field, "a list of texts"))
}

fn tags(spec: &Map<String, Value>, field: &str) -> Result<BTreeMap<String, String>, String> {
    let owned = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let tags: Option<BTreeMap<_, _>> = match spec.get(field) {
        None | Some(Value::Null) => Some(BTreeMap::new()),
        Some(Value::Object(values)) => values.iter().map(owned).collect(),
        Some(_) => None,
    };
    tags.ok_or_else(|| expected(field, "an object with texts"))
}

fn expected(field: &str, what: &str) -> String {
    format!("spec.{field}: expected {what}")
}

#[cfg(test)]
mod tests {
    use mangle::hostile;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn answer(spec: Value) -> EniConfigAnswer {
        let object = json!({ "metadata": { "name": "pods" }, "spec": spec });
        serde_json::from_value::<EniConfigObject>(object).unwrap().answer("pods")
    }

    #[test]
    fn spec_of_the_incumbent_and_ours_are_read() {
        let check = |spec: Value, expect: &str| match answer(spec.clone()) {
            EniConfigAnswer::Found(config) => assert_eq!(config.to_string(), expect, "{spec}"),
            other => panic!("{spec}: {other:?}"),
        };
        check(
            json!({ "subnet": "subnet-1", "securityGroups": ["sg-2", "sg-1"] }),
            "ENIConfig pods: subnet-1, with sg-1 and sg-2",
        );
        check(
            json!({ "subnet": "subnet-1", "subnets": ["subnet-2", "subnet-1"], "more": 1 }),
            "ENIConfig pods: subnet-1 or subnet-2, with the primary ENI's security groups",
        );
        check(
            json!({ "subnet": "", "subnetTags": { "for": "pods", "a": "b" }, "subnets": null }),
            "ENIConfig pods: subnets with a=b and for=pods, with the primary ENI's security groups",
        );
    }

    #[test]
    fn bad_spec_is_named_with_its_field() {
        let check = |spec: Value, expect: &str| match answer(spec.clone()) {
            EniConfigAnswer::Unusable { why, .. } => {
                assert!(why.starts_with(expect), "{spec}: {why}");
            }
            other => panic!("{spec}: {other:?}"),
        };
        check(json!({}), "it names no subnet");
        check(json!({ "subnet": "" }), "it names no subnet");
        check(json!({ "subnet": 5 }), "spec.subnet: expected a text");
        check(json!({ "subnet": "vpc-1" }), "spec.subnet: \"vpc-1\" is no subnet id");
        check(json!({ "subnets": "subnet-1" }), "spec.subnets: expected a list of texts");
        check(json!({ "subnets": ["subnet-1", {}] }), "spec.subnets: expected a list of texts");
        check(json!({ "subnetTags": [] }), "spec.subnetTags: expected an object with texts");
        let groups = json!({ "subnet": "subnet-1", "securityGroups": ["default"] });
        check(groups, "spec.securityGroups: \"default\" is no security group id");
    }

    /// An ENIConfig with all fields, as the API server may send it.
    const GOOD: &str = r#"{"metadata":{"name":"pods","labels":{"a":"b"}},"spec":{"subnet":"subnet-1",
        "subnets":["subnet-2"],"subnetTags":{"for":"pods"},"securityGroups":["sg-1"]}}"#;

    proptest! {
        /// A damaged object is no object, or has an answer that can be used or says why not.
        #[test]
        fn fuzz_eni_config(document in hostile(vec![GOOD.as_bytes().to_vec()])) {
            let Ok(object) = serde_json::from_slice::<EniConfigObject>(&document) else { return Ok(()) };
            match object.answer("pods") {
                EniConfigAnswer::Found(config) => {
                    prop_assert!(!config.subnets.is_empty() || !config.subnet_tags.is_empty());
                }
                EniConfigAnswer::Unusable { why, .. } => prop_assert!(!why.is_empty()),
                EniConfigAnswer::Missing { .. } => prop_assert!(false, "it is there"),
            }
        }
    }
}
