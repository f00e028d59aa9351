//! Makes the container image of a node's two programs, without a container engine, and the list of what is in it.
//!
//! The same files make the same bytes. This program must not know what the two programs do.

mod elf;
mod layer;
mod layout;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::elf::Elf;
use crate::layer::Layer;
use crate::layout::Image;

/// Makes an OCI image layout in a tar file, as `ctr images import` and `skopeo copy oci-archive:` take it, and a software
/// bill of materials.
#[derive(Debug, Parser)]
struct Cli {
    /// The daemon. The shared libraries that it needs come into the image too; one that is static needs none.
    #[arg(long)]
    ipamd: PathBuf,
    /// The plugin, a static program: it runs on the node, outside the image.
    #[arg(long)]
    plugin: PathBuf,
    /// The licence.
    #[arg(long)]
    license: PathBuf,
    /// The image's name and tag.
    #[arg(long)]
    reference: String,
    /// The version of the programs.
    #[arg(long)]
    version: String,
    /// The commit that the programs are built from.
    #[arg(long)]
    revision: String,
    /// What `cargo metadata --format-version 1 --locked` prints for the image's platform.
    #[arg(long)]
    metadata: PathBuf,
    /// `Cargo.lock`, which has the packages' checksums.
    #[arg(long)]
    lock: PathBuf,
    /// The directory for `image.tar` and `sbom.cdx.json`.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oci-image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let (daemon, plugin) = (Elf::read(&cli.ipamd)?, Elf::read(&cli.plugin)?);
    let machines = (daemon.architecture, plugin.architecture);
    ensure!(machines.0 == machines.1, "the programs are for {} and {}", machines.0, machines.1);
    let libraries = plugin.libraries()?;
    ensure!(libraries.is_empty(), "{} is not static", cli.plugin.display());
    let image = Image {
        reference: &cli.reference,
        version: &cli.version,
        revision: &cli.revision,
        architecture: daemon.architecture,
        layer: contents(&daemon, &plugin, &fs::read(&cli.license).context("read the licence")?)?
            .tar()?,
    };
    let metadata = fs::read_to_string(&cli.metadata).context("read the packages")?;
    let lock = fs::read_to_string(&cli.lock).context("read the packages' checksums")?;
    let sbom = sbom::cyclone_dx(&metadata, &lock, &image)?;
    fs::create_dir_all(&cli.out).with_context(|| format!("make {}", cli.out.display()))?;
    let digest = image.digest();
    write(&cli.out, "image.tar", &image.tar()?)?;
    write(&cli.out, "sbom.cdx.json", sbom.as_bytes())?;
    let (bytes, reference) = (image.layer.len(), &cli.reference);
    println_of(&format!("{reference} {} {digest}, {bytes} bytes", image.architecture))
}

/// What is in the image: the programs and what they need. There is no shell, and no package of a distribution.
fn contents(daemon: &Elf, plugin: &Elf, license: &[u8]) -> Result<Layer> {
    let mut layer = Layer::default();
    layer.program("app/ipamd", &daemon.bytes);
    layer.program("app/aws-cni", &plugin.bytes);
    // Another name, under which manifests for amazon-vpc-cni-k8s probe the daemon.
    layer.link("app/grpc-health-probe", "ipamd");
    // glibc asks these: who a user is, and where names of hosts come from.
    layer.file("etc/passwd", b"root:x:0:0:root:/:/sbin/nologin\n");
    layer.file("etc/group", b"root:x:0:\n");
    layer.file("etc/nsswitch.conf", b"hosts: files dns\n");
    layer.file("licenses/LICENSE", license);
    // A runtime need not make them where the file system is read-only.
    for mount in [
        "host/etc/cni/net.d",
        "host/opt/cni/bin",
        "host/proc/sys/net",
        "host/var/log/aws-routed-eni",
        "run/containerd",
        "tmp",
        "var/run/aws-node",
    ] {
        layer.directory(mount);
    }
    for (path, bytes) in daemon.libraries()? {
        layer.program(path.trim_start_matches('/'), &bytes);
    }
    Ok(layer)
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = directory.join(name);
    fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))
}

fn println_of(line: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}").context("print the digest")
}

#[cfg(test)]
mod tests;
