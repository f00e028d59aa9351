//! What the same machine needs for less: an executable that does nothing, `ip` for the same kernel objects, one
//! line on disk, and Debian's chain of bridge, host-local and portmap.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::caller::{Caller, inside, names, namespaces, timed};
use crate::spread::Report;

/// Where Debian has them (package containernetworking-plugins).
const DEBIAN_PLUGINS: &str = "/usr/lib/cni";
/// About what one change of the record takes.
const LINE: [u8; 300] = [b'x'; 300];

/// Measures all, with `calls` each, in a namespace of its own.
pub(crate) fn measure(report: &mut Report, folder: &Path, calls: usize) -> Result<()> {
    report.line("floor: one line on disk, synced", disk(folder, calls)?);
    if let Some(empty) = empty_executable(folder)? {
        let times = (0..calls).map(|_| Ok(timed(&mut Command::new(&empty), b"")?.took));
        report.line("floor: empty static executable", times.collect::<Result<_>>()?);
    }
    let node = names("floor", 1);
    let pods = names("f", calls);
    namespaces("add", &node)?;
    namespaces("add", &pods)?;
    let measured = kernel_objects(report, &node[0], &pods).and_then(|()| {
        namespaces("delete", &pods)?;
        namespaces("add", &pods)?;
        debian(report, folder, &node[0], &pods)
    });
    namespaces("delete", &pods)?;
    namespaces("delete", &node)?;
    measured
}

fn disk(folder: &Path, calls: usize) -> Result<Vec<Duration>> {
    let path = folder.join("bench-line");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..calls {
        let start = Instant::now();
        file.write_all(&LINE)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

/// An ELF file whose only instructions end the process; `None` on machines for which it has none.
fn empty_executable(folder: &Path) -> Result<Option<PathBuf>> {
    let (machine, code): (u16, &[u8]) = match std::env::consts::ARCH {
        // xor edi, edi; mov eax, 60; syscall
        "x86_64" => (62, &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]),
        // mov x0, 0; mov x8, 93; svc 0
        "aarch64" => (183, &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4]),
        _ => return Ok(None),
    };
    const BASE: u64 = 0x40_0000;
    const HEADERS: u16 = 64 + 56;
    let size = u64::from(HEADERS) + u64::try_from(code.len())?;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Type, machine, version, entry, program headers, section headers, flags.
    file.extend(2u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for word in [BASE + u64::from(HEADERS), 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // One segment: loaded, readable and executable.
    file.extend(1u32.to_le_bytes());
    file.extend(5u32.to_le_bytes());
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    let path = folder.join("bench-empty");
    let mut options = File::options();
    options.create(true).write(true).truncate(true).mode(0o755).open(&path)?.write_all(&file)?;
    Ok(Some(path))
}

/// The objects of a pod on a secondary ENI, by two runs of `ip`: in the pod and on the node.
fn kernel_objects(report: &mut Report, node: &str, pods: &[String]) -> Result<()> {
    let pods = pods.to_vec();
    let measured = inside(node, move || {
        let (mut adds, mut dels) = (Vec::new(), Vec::new());
        for (index, pod) in pods.iter().enumerate() {
            let address = format!("10.{}.{}.1", 100 + index / 250, index % 250);
            let start = Instant::now();
            ip(
                None,
                &format!(
                    "link add f{index} mtu 9001 type veth peer name eth0 mtu 9001 netns {pod}\n\
                link set f{index} up alias floor\n"
                ),
            )?;
            ip(
                Some(pod),
                &format!(
                    "link set eth0 up\naddr add {address}/32 dev eth0\n\
                route add 169.254.1.1 dev eth0 scope link\nroute add default via 169.254.1.1\n\
                neigh add 169.254.1.1 dev eth0 lladdr 02:00:00:00:00:01 nud permanent\nlink set lo up\n"
                ),
            )?;
            ip(
                None,
                &format!(
                    "route replace {address} dev f{index} scope link\n\
                rule add to {address} lookup main priority 512\nrule add from {address} lookup 2 priority 1536\n"
                ),
            )?;
            adds.push(start.elapsed());
            let start = Instant::now();
            ip(
                None,
                &format!(
                    "rule del to {address} lookup main priority 512\n\
                rule del from {address} lookup 2 priority 1536\nroute del {address}\nlink del f{index}\n"
                ),
            )?;
            dels.push(start.elapsed());
        }
        Ok((adds, dels))
    })?;
    let (adds, dels) = measured.join()?;
    report.line("floor: ADD's kernel objects by 3 runs of ip", adds);
    report.line("floor: DEL's kernel objects by ip", dels);
    Ok(())
}

fn ip(netns: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    timed(command.args(["-batch", "-"]), lines.as_bytes()).map(drop)
}

fn debian(report: &mut Report, folder: &Path, node: &str, pods: &[String]) -> Result<()> {
    let data = folder.join("bench-host-local");
    let ipam = json!({
        "type": "host-local", "dataDir": data, "ranges": [[{"subnet": "10.99.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    let caller = |kind: &str, config: Value| Caller {
        netns: node.to_owned(),
        plugin: Path::new(DEBIAN_PLUGINS).join(kind),
        path: DEBIAN_PLUGINS.into(),
        config,
    };
    let bridge = caller(
        "bridge",
        json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "bench0", "isGateway": true, "ipam": ipam,
        }),
    );
    let portmap = caller(
        "portmap",
        json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "portmap", "capabilities": {"portMappings": true},
        }),
    );
    let pods = pods.to_vec();
    let measured = inside(node, move || {
        let (mut adds, mut dels) = (Vec::new(), Vec::new());
        for pod in &pods {
            let first = bridge.call("ADD", pod)?;
            let result: Value = serde_json::from_slice(&first.stdout).context("bridge's result")?;
            let mut portmap = portmap.clone();
            portmap.config["prevResult"] = result;
            adds.push(first.took + portmap.call("ADD", pod)?.took);
            dels.push(portmap.call("DEL", pod)?.took + bridge.call("DEL", pod)?.took);
        }
        Ok((adds, dels))
    })?;
    let (adds, dels) = measured.join()?;
    report.line("Debian's bridge, host-local, portmap: ADD", adds);
    report.line("Debian's bridge, host-local, portmap: DEL", dels);
    std::fs::remove_dir_all(data).context("remove host-local's data")
}
