//! A container image without a registry: busybox in one layer, as an OCI layout in a tar file.

use std::fs::File;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// The sandbox image: sleeps for ever.
pub const PAUSE: &str = "localhost/tidepool/pause:1";
/// The workload image: a shell.
pub const BUSYBOX: &str = "localhost/tidepool/busybox:1";

const BUSYBOX_BINARY: &str = "/bin/busybox";
const APPLETS: [&str; 11] =
    ["sh", "sleep", "ping", "ip", "cat", "nc", "true", "echo", "hostname", "httpd", "mkdir"];

/// CoreDNS, which listens as the file that its arguments name says.
pub const COREDNS: &str = "localhost/tidepool/coredns:1";
/// A system whose programs a container finds in the machine's /usr, which it must have: with the resolver of glibc.
pub const DEBIAN: &str = "localhost/tidepool/debian:1";

/// amazon-vpc-cni-k8s: its init container, and its daemon.
pub const INCUMBENT: [&str; 2] =
    ["localhost/incumbent/amazon-k8s-cni-init:1", "localhost/incumbent/amazon-k8s-cni:1"];
/// Plugins that its init container brings, where Debian's `containernetworking-plugins` has them.
const CORE_PLUGINS: [&str; 4] = ["bandwidth", "host-local", "loopback", "portmap"];
/// Its programs, and the folder in its images.
const INCUMBENT_FILES: [(&str, &str); 7] = [
    ("init", "aws-vpc-cni-init"),
    ("app", "aws-vpc-cni"),
    ("app", "aws-k8s-agent"),
    ("app", "aws-cni"),
    ("app", "egress-cni"),
    ("app", "grpc-health-probe"),
    ("app", "10-aws.conflist"),
];

/// Writes both images to `path`.
///
/// # Errors
///
/// If Debian's `busybox-static` is not installed or the file cannot be written.
pub fn write(path: &Path) -> Result<()> {
    let pause = json!({"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]});
    let busybox = json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]});
    layout(path, &[(PAUSE, pause), (BUSYBOX, busybox)], layer()?)
}

/// Writes the images [`INCUMBENT`] to `path`, of programs in `folder`. As they have no system of their own, a container
/// must have the machine's /usr and /etc/alternatives.
///
/// # Errors
///
/// If a program is missing or the file cannot be written.
pub fn write_incumbent(path: &Path, folder: &Path) -> Result<()> {
    let core = Path::new("/usr/lib/cni");
    let plugins = CORE_PLUGINS.map(|name| (format!("init/{name}"), core.join(name)));
    let own = INCUMBENT_FILES.map(|(part, name)| (format!("{part}/{name}"), folder.join(name)));
    let path_variable = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    let config = |dir: &str, program: &str| json!({"WorkingDir": dir, "Entrypoint": [format!("{dir}/{program}")], "Env": [path_variable]});
    let [init, app] = INCUMBENT;
    let images =
        [(init, config("/init", "aws-vpc-cni-init")), (app, config("/app", "aws-vpc-cni"))];
    layout(path, &images, layer_without_system(plugins.into_iter().chain(own))?)
}

/// Writes the image [`COREDNS`] to `path`, of a static `program`, and [`DEBIAN`].
///
/// # Errors
///
/// If the program is missing or the file cannot be written.
pub fn write_dns(path: &Path, program: &Path) -> Result<()> {
    let images = [
        (COREDNS, json!({"Entrypoint": ["/app/coredns"]})),
        (DEBIAN, json!({"Cmd": ["/bin/bash"], "Env": ["PATH=/bin"]})),
    ];
    let layer = layer_without_system([("app/coredns".to_owned(), program.to_owned())])?;
    layout(path, &images, layer)
}

/// A layer that has files, by the name of each and where it comes from, and otherwise links to a system in /usr.
fn layer_without_system(files: impl IntoIterator<Item = (String, PathBuf)>) -> Result<Vec<u8>> {
    let mut tar = Builder::new(vec![]);
    for dir in ["app", "dev", "etc", "host", "init", "proc", "run", "sys", "tmp", "usr", "var"] {
        add(&mut tar, dir, EntryType::Directory, None, &[])?;
    }
    for link in ["bin", "lib", "lib64", "sbin"] {
        add(&mut tar, link, EntryType::Symlink, Some(&format!("usr/{link}")), &[])?;
    }
    for (name, file) in files {
        let data = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        add_file(&mut tar, &name, &data)?;
    }
    tar.into_inner().context("finish the layer")
}

/// Images with one layer, by name and how they are run, as an OCI layout.
fn layout(path: &Path, images: &[(&str, Value)], layer: Vec<u8>) -> Result<()> {
    let mut blobs = vec![];
    let layer_digest = digest(&layer);
    let layer_blob = blob(&mut blobs, layer, "application/vnd.oci.image.layer.v1.tar");
    let mut manifests = vec![];
    for (reference, config) in images {
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        });
        let config = blob(
            &mut blobs,
            config.to_string().into_bytes(),
            "application/vnd.oci.image.config.v1+json",
        );
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [layer_blob],
        });
        let mut entry = blob(
            &mut blobs,
            manifest.to_string().into_bytes(),
            "application/vnd.oci.image.manifest.v1+json",
        );
        entry["annotations"] = json!({"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": "1"});
        manifests.push(entry);
    }
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut tar = Builder::new(file);
    add_file(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    add_file(&mut tar, "index.json", index.to_string().as_bytes())?;
    for (digest, data) in blobs {
        add_file(&mut tar, &format!("blobs/sha256/{digest}"), &data)?;
    }
    tar.into_inner().and_then(|mut file| file.flush()).context("finish the image")
}

fn layer() -> Result<Vec<u8>> {
    let busybox = std::fs::read(BUSYBOX_BINARY)
        .with_context(|| format!("read {BUSYBOX_BINARY}: install the package busybox-static"))?;
    let mut tar = Builder::new(vec![]);
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        add(&mut tar, dir, EntryType::Directory, None, &[])?;
    }
    add_file(&mut tar, "bin/busybox", &busybox)?;
    for applet in APPLETS {
        add(&mut tar, &format!("bin/{applet}"), EntryType::Symlink, Some("busybox"), &[])?;
    }
    tar.into_inner().context("finish the layer")
}

fn blob(blobs: &mut Vec<(String, Vec<u8>)>, data: Vec<u8>, media_type: &str) -> Value {
    let digest = digest(&data);
    let descriptor =
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": data.len()});
    blobs.push((digest, data));
    descriptor
}

fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn add_file<W: Write>(tar: &mut Builder<W>, name: &str, data: &[u8]) -> Result<()> {
    add(tar, name, EntryType::Regular, None, data)
}

fn add<W: Write>(
    tar: &mut Builder<W>,
    name: &str,
    kind: EntryType,
    link: Option<&str>,
    data: &[u8],
) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(u64::try_from(data.len()).context("a file too large")?);
    if let Some(target) = link {
        header.set_link_name(target).with_context(|| format!("link {name}"))?;
    }
    tar.append_data(&mut header, name, Cursor::new(data)).with_context(|| format!("add {name}"))
}
