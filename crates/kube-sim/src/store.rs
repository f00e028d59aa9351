//! The objects and how they have changed. It must not know HTTP.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The objects of all collections, and their changes since the start.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<(String, String), Value>,
    changes: Vec<Stored>,
    version: u64,
}

/// One change of an object.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) version: u64,
    pub(crate) collection: String,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(crate) kind: &'static str,
    pub(crate) object: Value,
}

impl Store {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn put(&mut self, collection: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let key = (collection.to_owned(), name_of(&object).to_owned());
        let before = self.objects.insert(key, object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.note(collection, kind, object.clone());
        object
    }

    pub(crate) fn delete(&mut self, collection: &str, name: &str) {
        let Some(mut object) = self.objects.remove(&(collection.to_owned(), name.to_owned()))
        else {
            return;
        };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.note(collection, "DELETED", object);
    }

    pub(crate) fn get(&self, collection: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(collection.to_owned(), name.to_owned()))
    }

    /// The objects that a field selector selects.
    pub(crate) fn list(&self, collection: &str, selector: &str) -> Vec<Value> {
        let all = self.objects.iter().filter(|((of, _), _)| is_in(of, collection));
        all.map(|(_, object)| object).filter(|it| is_selected(it, selector)).cloned().collect()
    }

    /// The changes after `version` of objects that a field selector selects.
    pub(crate) fn changes(&self, collection: &str, selector: &str, version: u64) -> Vec<Stored> {
        let later = self.changes.iter().filter(|change| {
            change.version > version
                && is_in(&change.collection, collection)
                && is_selected(&change.object, selector)
        });
        later.cloned().collect()
    }

    fn note(&mut self, collection: &str, kind: &'static str, object: Value) {
        let (version, collection) = (self.version, collection.to_owned());
        self.changes.push(Stored { version, collection, kind, object });
    }
}

/// Whether the objects of `of` are in `collection`, which may be that of all namespaces.
fn is_in(of: &str, collection: &str) -> bool {
    let in_all = || {
        let (before, within) = of.split_once("/namespaces/")?;
        let (_namespace, kind) = within.split_once('/')?;
        Some(format!("{before}/{kind}"))
    };
    of == collection || in_all().is_some_and(|of| of == collection)
}

/// Completes the conditions of a strategic merge patch by those of `object` with other types.
pub(crate) fn merge_conditions(object: &Value, patch: &mut Value) {
    let Some(conditions) = patch["status"]["conditions"].as_array_mut() else { return };
    let named: Vec<_> = conditions.iter().map(|it| it["type"].clone()).collect();
    let kept = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.extend(kept.filter(|it| !named.contains(&it["type"])).cloned());
}

/// The object's name; empty without one.
pub(crate) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether the object has all the values that the selector names, as in `metadata.name=a,spec.nodeName=b`.
fn is_selected(object: &Value, selector: &str) -> bool {
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        let (path, value) = term.split_once('=').unwrap_or((term, ""));
        let found = path.split('.').fold(object, |object, key| &object[key]);
        found.as_str().unwrap_or_default() == value
    })
}

/// `object` after a merge patch. Source: RFC 7396, section 2.
pub(crate) fn merge(object: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *object = patch;
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (key, value) in patch {
        match value {
            Value::Null => {
                if let Some(fields) = object.as_object_mut() {
                    fields.remove(&key);
                }
            }
            value => merge(&mut object[&key], value),
        }
    }
}
