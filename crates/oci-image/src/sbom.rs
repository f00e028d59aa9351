//! The software bill of materials: which third-party packages are in the programs, in which version and under which
//! licence. Its format is CycloneDX 1.5, which scanners read. <https://cyclonedx.org/docs/1.5/json/>.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::layout::Image;

/// The packages that make up the programs.
const PROGRAMS: [&str; 2] = ["ipamd", "cni-plugin"];

/// `metadata` is what `cargo metadata` prints, `lock` is `Cargo.lock`.
pub(crate) fn cyclone_dx(metadata: &str, lock: &str, image: &Image<'_>) -> Result<String> {
    let metadata: Value =
        serde_json::from_str(metadata).context("read what cargo metadata prints")?;
    let packages = packages(&metadata)?;
    let linked = linked(&metadata)?;
    let checksums = checksums(lock);
    let mut components = vec![];
    for id in &linked {
        let package = packages.get(id.as_str()).with_context(|| format!("no package {id}"))?;
        components.push(component(package, &checksums)?);
    }
    components.sort_by_key(Value::to_string);
    ensure!(components.len() > PROGRAMS.len(), "no dependency is listed");
    let sbom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "container",
            "name": image.reference,
            "version": image.version,
            "hashes": [{"alg": "SHA-256", "content": image.digest().replace("sha256:", "")}],
            "licenses": [{"expression": "Apache-2.0"}],
        }},
        "components": components,
    });
    Ok(format!("{sbom:#}\n"))
}

fn packages(metadata: &Value) -> Result<BTreeMap<&str, &Value>> {
    let packages = metadata["packages"].as_array().context("no packages are listed")?;
    Ok(packages.iter().filter_map(|package| Some((package["id"].as_str()?, package))).collect())
}

/// The ids of all packages that are linked into the programs. What only runs at build time or in tests is left out.
fn linked(metadata: &Value) -> Result<BTreeSet<String>> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("no dependencies are listed")?;
    let nodes: BTreeMap<&str, &Value> =
        nodes.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let packages = packages(metadata)?;
    let mut open: Vec<&str> = packages
        .iter()
        .filter(|(_, package)| {
            package["source"].is_null() && PROGRAMS.iter().any(|name| package["name"] == *name)
        })
        .map(|(id, _)| *id)
        .collect();
    ensure!(open.len() == PROGRAMS.len(), "the packages of {PROGRAMS:?} are not listed");
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        // A macro runs in the compiler.
        let is_macro = packages.get(id).is_some_and(|package| {
            let targets = package["targets"].as_array();
            targets.is_some_and(|targets| {
                targets.iter().any(|target| target["kind"][0] == "proc-macro")
            })
        });
        if is_macro || !found.insert(id.to_owned()) {
            continue;
        }
        let dependencies = nodes.get(id).and_then(|node| node["deps"].as_array());
        for dependency in dependencies.into_iter().flatten() {
            let kinds = dependency["dep_kinds"].as_array();
            if kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null())) {
                open.extend(dependency["pkg"].as_str());
            }
        }
    }
    Ok(found)
}

/// The SHA-256 of each package's archive, by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let packages = lock.split("[[package]]");
    packages
        .filter_map(|package| {
            let name_and_version = (value(package, "name")?, value(package, "version")?);
            Some((name_and_version, value(package, "checksum")?))
        })
        .collect()
}

/// The value of a line `key = "value"`.
fn value<'a>(package: &'a str, key: &str) -> Option<&'a str> {
    let of_key = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
    of_key?.strip_suffix('"')
}

fn component(package: &Value, checksums: &BTreeMap<(&str, &str), &str>) -> Result<Value> {
    let text = |key: &str| package[key].as_str().with_context(|| format!("a package has no {key}"));
    let (name, version) = (text("name")?, text("version")?);
    let license = text("license").with_context(|| format!("the licence of {name}"))?;
    // Older packages separate alternatives by a slash.
    let license = license.replace(" / ", " OR ").replace('/', " OR ");
    let mut component = json!({
        "type": "library",
        "name": name,
        "version": version,
        "licenses": [{"expression": license}],
    });
    if !package["source"].is_null() {
        let url = format!("pkg:cargo/{name}@{version}");
        component["purl"] = json!(url);
        component["bom-ref"] = json!(url);
        let checksum = checksums.get(&(name, version));
        let checksum = checksum.with_context(|| format!("no checksum of {name} {version}"))?;
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    Ok(component)
}
