//! An image of one layer as an OCI image layout.
//! Source: OCI image format specification 1.1, "Image Layout", "Image Manifest" and "Image Configuration".

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType};

use crate::layer::add;

/// An image.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    /// Name and tag.
    pub(crate) reference: &'a str,
    /// The version of the programs.
    pub(crate) version: &'a str,
    /// The commit that they are built from.
    pub(crate) revision: &'a str,
    /// The machine, as images name it.
    pub(crate) architecture: &'a str,
    /// The files, a tar archive.
    pub(crate) layer: Vec<u8>,
}

impl Image<'_> {
    /// The digest of the manifest, by which registries and runtimes name the image.
    pub(crate) fn digest(&self) -> String {
        digest(&Blobs::of(self).manifest)
    }

    /// The layout in a tar archive.
    pub(crate) fn tar(&self) -> Result<Vec<u8>> {
        let blobs = Blobs::of(self);
        let mut entry = descriptor(&blobs.manifest, "application/vnd.oci.image.manifest.v1+json");
        entry["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        let tag = self.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        // containerd takes the whole name from the first, other tools the tag from the second.
        entry["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let mut files = BTreeMap::from([
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ]);
        for blob in [blobs.manifest, blobs.config, self.layer.clone()] {
            files.insert(format!("blobs/{}", digest(&blob).replace(':', "/")), blob);
        }
        let mut tar = Builder::new(vec![]);
        for (path, bytes) in files {
            add(&mut tar, &path, EntryType::Regular, 0o644, None, &bytes)?;
        }
        Ok(tar.into_inner()?)
    }
}

/// What names the layer.
struct Blobs {
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Blobs {
    fn of(image: &Image<'_>) -> Self {
        let config = json!({
            "architecture": image.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": ["/app/ipamd"],
                "Cmd": ["run", "--install"],
                "Env": ["PATH=/app"],
                "WorkingDir": "/",
                "Labels": {
                    "org.opencontainers.image.title": "tidepool",
                    "org.opencontainers.image.description": "Pod networking for Kubernetes on AWS",
                    "org.opencontainers.image.licenses": "Apache-2.0",
                    "org.opencontainers.image.version": image.version,
                    "org.opencontainers.image.revision": image.revision,
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(&image.layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(&config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(&image.layer, "application/vnd.oci.image.layer.v1.tar")],
        });
        Self { config, manifest: manifest.to_string().into_bytes() }
    }
}

fn descriptor(bytes: &[u8], media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// `sha256:…`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}
