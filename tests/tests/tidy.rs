//! Rules that the compiler does not check: layering, file headers, banned texts; documents and words
//! in modules of their own.

#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/inputs.rs"]
mod inputs;
#[path = "tidy/permissions.rs"]
mod permissions;
#[path = "tidy/troubleshooting.rs"]
mod troubleshooting;
#[path = "tidy/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each package, and which of ours its code may use. Tests may use more.
const LAYERS: &[(&str, &[&str])] = &[
    ("address-plan", &["ec2-api"]),
    ("address-space", &["ipam"]),
    ("agent", &["datapath", "failpoint", "ipam", "otlp", "proto", "trace-context"]),
    ("aws", &["ipam", "mac", "service-url"]),
    ("aws-apply", &["address-space", "aws", "ipam"]),
    ("aws-inventory", &["address-space", "aws", "ipam"]),
    ("cni", &[]),
    ("cni-plugin", &["cni", "datapath", "failpoint", "log-file", "proto", "trace-context"]),
    ("command-line", &["settings"]),
    ("datapath", &["failpoint", "mac"]),
    ("ec2-api", &[]),
    ("ec2-model", &["address-plan", "ec2-api", "instance-types", "mac"]),
    ("failpoint", &[]),
    ("installer", &[]),
    ("instance-types", &[]),
    ("ipam", &["mac"]),
    (
        "ipamd",
        &[
            "agent",
            "aws",
            "command-line",
            "failpoint",
            "installer",
            "ipam",
            "k8s",
            "log-file",
            "otlp",
            "proto",
            "settings",
        ],
    ),
    ("k8s", &["ipam"]),
    ("kube-sim", &[]),
    ("lab", &["ec2-model", "ipam", "mac"]),
    ("log-file", &[]),
    ("mac", &[]),
    ("mangle", &[]),
    ("oci-image", &[]),
    ("otlp", &["trace-context"]),
    ("proto", &[]),
    ("service-url", &[]),
    ("settings", &["instance-types", "ipam", "service-url"]),
    ("tests", &["failpoint", "otlp", "proto"]),
    (
        "tidepool",
        &[
            "address-space",
            "aws",
            "aws-apply",
            "aws-inventory",
            "command-line",
            "ipam",
            "lab",
            "service-url",
            "settings",
        ],
    ),
    ("trace-context", &[]),
    ("vpc-sim", &["address-plan", "ec2-model", "instance-types"]),
];

/// The third-party packages that a package must not use.
const FOREIGN: &[(&str, &[&str])] = &[
    ("ipam", &["tokio", "aws-sdk-ec2", "rtnetlink", "tonic", "tracing", "rustix"]),
    ("address-plan", &["tokio", "axum", "quick-xml", "rtnetlink", "rustix"]),
    ("address-space", &["tokio", "aws-sdk-ec2", "rtnetlink", "rustix"]),
    ("ec2-api", &["tokio", "axum", "quick-xml", "rtnetlink", "rustix"]),
    ("ec2-model", &["tokio", "axum", "quick-xml", "rtnetlink", "rustix"]),
    ("lab", &["tokio", "rtnetlink", "rustix"]),
    ("cni", &["tokio", "tonic", "rtnetlink", "rustix"]),
    ("datapath", &["tonic", "aws-sdk-ec2"]),
    ("agent", &["aws-sdk-ec2", "aws-config", "kube"]),
    ("k8s", &["aws-sdk-ec2", "rtnetlink", "tonic"]),
    ("vpc-sim", &["aws-sdk-ec2", "tonic"]),
    ("cni-plugin", &["aws-sdk-ec2", "clap"]),
    ("installer", &["tokio", "rtnetlink", "aws-sdk-ec2"]),
    ("settings", &["tokio", "clap", "aws-sdk-ec2", "rtnetlink", "rustix"]),
    ("tidepool", &["tokio", "aws-sdk-ec2", "aws-config", "rtnetlink", "rustix"]),
];

/// The files that set the lint `unsafe_code`: one to allow it, one because our lints are off there.
const UNSAFE: &[&str] = &["crates/vpc-sim/src/fabric/netns.rs", "proto/src/lib.rs"];

/// Texts that belong to no file of the project: (text, why).
const BANNED: &[(&str, &str)] = &[
    (concat!("todo", "!("), "finish it, or leave it out and say so in the documents"),
    (concat!("unimplemented", "!("), "finish it, or leave it out and say so in the documents"),
    (concat!("FIX", "ME"), "fix it"),
    (concat!("/", "root", "/"), "a path of one machine"),
    (concat!("/", "home", "/"), "a path of one machine"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(root()).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Every file that git tracks or would track, with its text.
fn texts() -> Vec<(String, String)> {
    run("git", &["ls-files", "--cached", "--others", "--exclude-standard"])
        .lines()
        .filter_map(|path| {
            Some((path.to_owned(), std::fs::read_to_string(root().join(path)).ok()?))
        })
        .collect()
}

/// The Rust files of these.
fn rust(texts: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    let rust = texts.iter().filter(|(path, _)| path.ends_with(".rs"));
    rust.map(|(path, text)| (path.as_str(), text.as_str()))
}

/// One of these files.
fn text_of<'a>(texts: &'a [(String, String)], path: &str) -> &'a str {
    let found = texts.iter().find(|(name, _)| name == path);
    &found.unwrap_or_else(|| panic!("{path} is missing")).1
}

/// The functions under `#[test]` or `#[tokio::test(…)]`, with or without further attributes. Those
/// inside macros, such as `proptest!`, count too.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    let after = ["#[test]", "#[tokio::test"].into_iter().flat_map(|mark| text.split(mark).skip(1));
    after.filter_map(|rest| rest.split_once("fn ")?.1.split_once('(').map(|(name, _)| name))
}

/// Package → names of its normal dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata: Value = serde_json::from_str(&run(
        env!("CARGO"),
        &["metadata", "--no-deps", "--offline", "--format-version", "1"],
    ))
    .unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let normal = |package: &Value| -> BTreeSet<String> {
        let all = package["dependencies"].as_array().unwrap();
        let normal = all.iter().filter(|dependency| dependency["kind"].is_null());
        normal.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect()
    };
    packages.iter().map(|p| (p["name"].as_str().unwrap().to_owned(), normal(p))).collect()
}

#[test]
fn packages_use_only_the_layers_below() {
    let found = dependencies();
    let ours: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    let ruled: BTreeSet<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, ruled, "a new package is a design change: add its row to LAYERS");
    for (name, allowed) in LAYERS {
        let used: BTreeSet<&str> =
            found[*name].iter().map(String::as_str).filter(|dep| ours.contains(dep)).collect();
        let extra: Vec<_> = used.iter().filter(|dep| !allowed.contains(dep)).collect();
        assert!(extra.is_empty(), "{name} must not use {extra:?}");
    }
}

#[test]
fn packages_avoid_banned_dependencies() {
    let found = dependencies();
    for (name, banned) in FOREIGN {
        let known: Vec<_> = banned.iter().filter(|dep| found[*name].contains(**dep)).collect();
        assert!(known.is_empty(), "{name} must not know {known:?}");
    }
}

#[test]
fn every_rust_file_states_its_purpose() {
    let silent: Vec<_> = texts()
        .into_iter()
        .filter(|(path, text)| path.ends_with(".rs") && !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top of {silent:#?}");
}

#[test]
fn no_file_contains_a_banned_text() {
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            for (banned, why) in BANNED {
                assert!(!line.contains(banned), "{path}:{}: {banned:?}: {why}", number + 1);
            }
        }
    }
}

#[test]
fn unsafe_code_is_only_in_listed_files() {
    // Clippy checks that each has a reason (`undocumented_unsafe_blocks`).
    let attribute = concat!("(unsafe", "_code");
    let texts = texts();
    let found = rust(&texts).filter(|(_, text)| text.contains(attribute)).map(|(path, _)| path);
    assert_eq!(found.collect::<Vec<_>>(), UNSAFE, "a new place is a design change: add it");
}

#[test]
fn every_package_has_the_lints_and_a_licence() {
    let manifests = texts().into_iter().filter(|(path, _)| path.ends_with("/Cargo.toml"));
    for (path, text) in manifests {
        for line in ["license.workspace = true", "publish.workspace = true"] {
            assert!(text.contains(line), "{path}: {line}");
        }
        let lints = text.contains("[lints]\nworkspace = true");
        assert!(lints || path == "proto/Cargo.toml", "{path}: [lints]");
    }
}

/// Fail points are where debug assertions are.
#[test]
fn no_profile_of_a_node_has_debug_assertions() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("debug-assertions"));
    let inherited = manifest.lines().filter_map(|line| line.strip_prefix("inherits = "));
    assert!(inherited.clone().count() > 0 && inherited.clone().all(|from| from == r#""release""#));
}

#[test]
fn shipped_plugin_names_no_folder_of_its_machine() {
    let texts = texts();
    let makefile = text_of(&texts, "Makefile").replace("\\\n", "");
    let flags = makefile.lines().find_map(|line| line.strip_prefix("CNI_FLAGS := "));
    let flags = flags.expect("the plugin's flags");
    for needed in [
        "-C target-feature=+crt-static",
        "-C relocation-model=pie",
        "--remap-path-prefix=$(CARGO_HOME)=",
        "--remap-path-prefix=$(CARGO_TARGET_DIR)=",
    ] {
        assert!(flags.contains(needed), "Makefile: {needed} is missing in {flags}");
    }
    let plugin = makefile.lines().find(|line| line.contains("--profile cni"));
    assert!(plugin.is_some_and(|line| line.contains(r#"RUSTFLAGS="$(CNI_FLAGS)""#)), "{plugin:?}");
}

#[test]
fn shipped_conflist_suits_the_runtimes() {
    let path = root().join("deploy/10-aws.conflist");
    let list: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(list["name"], "aws-cni");
    assert_eq!(list["plugins"][0]["type"], "aws-cni");
    // What our plugin does itself. A second plugin that declares one of them would do it again.
    assert_eq!(list["plugins"].as_array().unwrap().len(), 1);
    for capability in ["portMappings", "bandwidth"] {
        assert_eq!(list["plugins"][0]["capabilities"][capability], true, "{capability}");
    }
    // containerd 1.6 loads 1.1.0 and then fails at ADD; newer runtimes pick 1.1.0 from the list.
    assert_eq!(list["cniVersion"], "1.0.0");
    assert!(list["cniVersions"].as_array().unwrap().contains(&"1.1.0".into()));
    assert!(list.get("disableCheck").is_none() && list.get("disableGC").is_none());
}
