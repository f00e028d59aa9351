//! The image of two programs of this machine.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::{Value, json};

use super::*;

/// Static, as the plugin is. Debian's package `busybox-static`, which the node tests need as well.
const STATIC: &str = "/bin/busybox";

fn image<'a>(layer: Vec<u8>) -> Image<'a> {
    Image {
        reference: "localhost/tidepool/aws-node:1.2.3",
        version: "1.2.3",
        revision: "0123abc",
        architecture: "amd64",
        layer,
    }
}

/// Path → content of a tar archive; a symbolic link's content is its target.
fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (0, 0));
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = match entry.link_name().unwrap() {
            Some(target) => target.display().to_string().into_bytes(),
            None => vec![],
        };
        entry.read_to_end(&mut bytes).unwrap();
        (path, bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn json(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Value {
    serde_json::from_slice(blob(files, descriptor)).unwrap()
}

/// What a descriptor names, after a check of its size and digest.
fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let name = descriptor["digest"].as_str().unwrap();
    let bytes = &files[&format!("blobs/{}", name.replace(':', "/"))];
    assert_eq!(descriptor["size"], bytes.len());
    assert_eq!(layout::digest(bytes), name);
    bytes
}

#[test]
fn layout_names_each_blob_by_its_digest() {
    let layer = contents(
        &Elf::read(Path::new(STATIC)).unwrap(),
        &Elf::read(Path::new(STATIC)).unwrap(),
        b"L",
    );
    let image = image(layer.unwrap().tar().unwrap());
    let files = files(&image.tar().unwrap());
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["io.containerd.image.name"], image.reference);
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");
    assert_eq!(entry["digest"], image.digest());
    let manifest = json(&files, entry);
    let config = json(&files, &manifest["config"]);
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    assert_eq!(config["config"]["Entrypoint"], json!(["/app/ipamd"]));
    assert_eq!(blob(&files, &manifest["layers"][0]), image.layer);
    assert_eq!(files.len(), 5);
}

#[test]
fn image_has_the_programs_and_no_shell() {
    let elf = || Elf::read(Path::new(STATIC)).unwrap();
    let files = files(&contents(&elf(), &elf(), b"licence").unwrap().tar().unwrap());
    let busybox = fs::read(STATIC).unwrap();
    assert_eq!(files["app/ipamd"], busybox);
    assert_eq!(files["app/aws-cni"], busybox);
    assert_eq!(files["app/grpc-health-probe"], b"ipamd");
    assert_eq!(files["licenses/LICENSE"], b"licence");
    let programs: Vec<_> = files.keys().filter(|path| path.contains("bin/")).collect();
    assert!(programs.is_empty(), "{programs:?}");
}

#[test]
fn same_files_make_the_same_image() {
    let make = || {
        let elf = || Elf::read(Path::new(STATIC)).unwrap();
        let image = image(contents(&elf(), &elf(), b"L").unwrap().tar().unwrap());
        (image.digest(), image.tar().unwrap())
    };
    let (first, second) = (make(), make());
    assert_eq!(first.0, second.0);
    assert!(first.1 == second.1, "the digests are equal, but the files differ");
}

#[test]
fn program_that_is_not_static_brings_its_libraries() {
    let own = std::env::current_exe().unwrap();
    let (dynamic, fixed) = (Elf::read(&own).unwrap(), Elf::read(Path::new(STATIC)).unwrap());
    let files = files(&contents(&dynamic, &fixed, b"").unwrap().tar().unwrap());
    let libc = files.keys().find(|path| path.ends_with("/libc.so.6"));
    let loader = files.keys().find(|path| path.contains("/ld-linux"));
    assert!(libc.is_some() && loader.is_some(), "{:?}", files.keys());
}

#[test]
fn file_that_is_no_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    for (bytes, expect) in [
        (&b"#!/bin/sh"[..], "is not an executable"),
        (b"\x7fELF", "is not an executable"),
        (b"\x7fELF------------\x02\x00\x28\x00", "is for machine 40"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = Elf::read(&path).unwrap_err().to_string();
        assert!(error.ends_with(expect), "{error}");
    }
}

#[test]
fn bill_lists_what_is_linked_and_nothing_else() {
    let package = |name: &str, ours: bool, kind: &str| {
        let source = if ours { Value::Null } else { json!("registry") };
        json!({
            "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0",
            "source": source, "targets": [{"kind": [kind]}],
        })
    };
    let needs = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
    let metadata = json!({
        "packages": [
            package("ipamd", true, "bin"), package("cni-plugin", true, "bin"),
            package("linked", false, "lib"), package("deeper", false, "lib"),
            package("macro", false, "proc-macro"), package("build", false, "lib"),
            package("test", false, "lib"), package("elsewhere", false, "lib"),
        ],
        "resolve": {"nodes": [
            {"id": "ipamd", "deps": [
                needs("linked", Value::Null), needs("macro", Value::Null),
                needs("build", json!("build")), needs("test", json!("dev")),
            ]},
            {"id": "linked", "deps": [needs("deeper", Value::Null), needs("linked", Value::Null)]},
            {"id": "macro", "deps": [needs("elsewhere", Value::Null)]},
        ]},
    });
    let lock = |names: &[&str]| {
        let package = |name: &&str| {
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nchecksum = \"{name}-sum\"\n\n"
            )
        };
        names.iter().map(package).collect::<String>()
    };
    let image = image(vec![]);
    let make = |names: &[&str]| sbom::cyclone_dx(&metadata.to_string(), &lock(names), &image);
    let bill: Value = serde_json::from_str(&make(&["linked", "deeper"]).unwrap()).unwrap();
    let components = bill["components"].as_array().unwrap();
    let names: Vec<_> = components.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 4);
    for name in ["ipamd", "cni-plugin", "linked", "deeper"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    let linked = components.iter().find(|one| one["name"] == "linked").unwrap();
    assert_eq!(linked["purl"], "pkg:cargo/linked@1.0.0");
    assert_eq!(linked["licenses"][0]["expression"], "MIT OR Apache-2.0");
    assert_eq!(linked["hashes"][0]["content"], "linked-sum");
    let error = make(&["linked"]).unwrap_err().to_string();
    assert_eq!(error, "no checksum of deeper 1.0.0");
}
