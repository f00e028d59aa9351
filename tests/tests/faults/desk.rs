//! `tidepool node` and `tidepool cluster` against two daemons, by a kubectl that runs `ipamd` on the simulated nodes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::Spec;
use tests::exec::ExecCluster;
use tests::process::{PATIENCE, eventually, program};
use tokio::process::Command;

use crate::LEAN;

/// Answers `get pods` from files and runs `exec` in the node's network namespace. It fails for anything else, and
/// notes each call.
const KUBECTL: &str = r#"#!/bin/sh
echo "$*" >> "DIR/calls"
node=all
while [ $# -gt 0 ]; do
  case "$1" in
    --namespace) [ "$2" = kube-system ] || exit 9; shift 2;;
    --field-selector=spec.nodeName=*) node="${1#--field-selector=spec.nodeName=}"; shift;;
    get) verb=get; [ "$2" = pods ] || exit 9; shift 2;;
    --selector) [ "$2" = k8s-app=aws-node ] || exit 9; shift 2;;
    --output) [ "$2" = json ] || exit 9; shift 2;;
    exec)
      pod="$2"; [ "$3 $4 $5 $6" = "--container aws-node -- ipamd" ] || exit 9; shift 6
      . "DIR/$pod"
      exec nsenter --net="/run/netns/$NETNS" -- env TIDEPOOL_SOCKET="$SOCKET" IPAMD "$@";;
    *) echo "no $1 here" >&2; exit 9;;
  esac
done
[ "$verb" = get ] && exec cat "DIR/pods-$node.json"
"#;

/// A desk: a folder with a kubectl for these nodes, which are named `n0`, `n1` and so on.
fn desk(cluster: &ExecCluster, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let pod = |index: usize| {
        json!({
            "metadata": {"name": format!("aws-node-{index}")},
            "spec": {"nodeName": format!("n{index}")}, "status": {"phase": "Running"},
        })
    };
    let all: Vec<_> = (0..cluster.nodes.len()).map(pod).collect();
    std::fs::write(dir.join("pods-all.json"), json!({"items": all}).to_string())?;
    std::fs::write(dir.join("pods-none.json"), json!({"items": []}).to_string())?;
    for (index, node) in cluster.nodes.iter().enumerate() {
        let one = json!({"items": [pod(index)]}).to_string();
        std::fs::write(dir.join(format!("pods-n{index}.json")), one)?;
        let place = format!("NETNS={}\nSOCKET={}\n", node.netns, node.socket().display());
        std::fs::write(dir.join(format!("aws-node-{index}")), place)?;
    }
    let script = KUBECTL.replace("DIR", &dir.display().to_string());
    let script = script.replace("IPAMD", &program("ipamd")?.display().to_string());
    let kubectl = dir.join("kubectl");
    std::fs::write(&kubectl, script)?;
    std::fs::set_permissions(&kubectl, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The exit code, standard output and standard error of `tidepool` with this folder in front of PATH.
async fn tidepool(dir: &Path, arguments: &[&str]) -> Result<(i32, String, String)> {
    let mut command = Command::new(program("tidepool")?);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.display());
    let out = command.args(arguments).env_clear().env("PATH", path).output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((out.status.code().context("a signal")?, text(&out.stdout), text(&out.stderr)))
}

async fn cluster_json(dir: &Path) -> Result<(i32, Value)> {
    let (code, stdout, stderr) = tidepool(dir, &["cluster", "--output", "json"]).await?;
    let json = serde_json::from_str(&stdout);
    Ok((code, json.with_context(|| format!("{code}: {stdout}{stderr}"))?))
}

#[tokio::test(flavor = "multi_thread")]
async fn desk_sees_all_nodes_and_asks_each() -> Result<()> {
    let mut spec = Spec::new("qdesk", "m5.large", 2, &LEAN);
    spec.nodes[1].settings.insert("WARM_IP_TARGET", "6".to_owned());
    ExecCluster::with(spec, async |cluster| {
        let dir = cluster.nodes[0].state_directory().join("desk");
        desk(cluster, &dir)?;
        cluster.nodes[0].runtime.run_all("a", 3).await?;
        cluster.nodes[1].runtime.run_all("b", 2).await?;
        eventually("pools at rest", PATIENCE, async || {
            let (code, seen) = cluster_json(&dir).await?;
            ensure!(code == 0 && seen["used"] == 5 && seen["idle"] == 7, "{code}: {seen}");
            ensure!(seen["held"] == 12 && seen["hoarders"] == json!(["n1"]), "{seen}");
            let [first, second] = [&seen["nodes"][0], &seen["nodes"][1]];
            ensure!(first["node"] == "n0" && first["used"] == 3 && first["idle"] == 1, "{seen}");
            ensure!(second["node"] == "n1" && second["used"] == 2 && second["idle"] == 6, "{seen}");
            let subnet = &seen["subnets"][0];
            ensure!(subnet["nodes"] == 2 && subnet["held"] == 12, "{seen}");
            ensure!(subnet["free"].is_u64() && subnet["exhausted_in_s"].is_null(), "{seen}");
            Ok(())
        })
        .await?;
        let (code, table, stderr) = tidepool(&dir, &["cluster"]).await?;
        ensure!(
            code == 0 && table.contains("2 of 2 nodes hold 12 addresses: 5 used"),
            "{table}{stderr}"
        );

        let (code, why, _) = tidepool(&dir, &["node", "n1", "why", "default/b0"]).await?;
        ensure!(code == 0 && why.contains("default/b0 (container b0, eth0): has had "), "{why}");
        let (code, _, stderr) = tidepool(&dir, &["node", "n1", "why", "default/a0"]).await?;
        ensure!(code == 5 && stderr.contains("never heard of pod default/a0"), "{code}: {stderr}");
        let (code, status, _) = tidepool(&dir, &["node", "n0"]).await?;
        ensure!(code == 0 && status.contains("3 used"), "{status}");
        let (code, _, stderr) = tidepool(&dir, &["node", "none"]).await?;
        ensure!(code == 1 && stderr.contains("no pod of the daemon is on node none"), "{stderr}");

        cluster.nodes[1].stop_ipamd().await?;
        let (code, seen) = cluster_json(&dir).await?;
        ensure!(code == 2 && seen["nodes"][0]["used"] == 3, "{code}: {seen}");
        let fault = seen["nodes"][1]["fault"].as_str().unwrap_or_default();
        ensure!(fault.contains("no ipamd answers"), "{seen}");
        for arguments in [&["cluster"][..], &["node", "n0"]] {
            let mut command = Command::new(program("tidepool")?);
            let out =
                command.args(arguments).env_clear().env("PATH", "/nonexistent").output().await?;
            let stderr = String::from_utf8_lossy(&out.stderr);
            ensure!(stderr.contains("kubectl is not in PATH"), "{arguments:?}: {stderr}");
            ensure!(out.status.code() == Some(1), "{arguments:?}: {}", out.status);
        }
        Ok(())
    })
    .await
}
