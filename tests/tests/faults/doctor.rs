//! `ipamd doctor` on a healthy node, with each kind of difference, and without a daemon.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually, in_netns, output};

use crate::LEAN;

/// The exit code of the command, and its report.
async fn doctor(node: &ExecNode) -> Result<(i32, Value)> {
    let (conf, bin) = (node.conflist(), node.plugin());
    let (conf, bin) = (conf.parent().context("no folder")?, bin.parent().context("no folder")?);
    let (conf, bin) = (conf.display().to_string(), bin.display().to_string());
    let arguments = ["doctor", "--cni-conf-dir", &conf, "--cni-bin-dir", &bin, "--output", "json"];
    let (code, stdout, stderr) = node.ipamd(&arguments).await?;
    let report = serde_json::from_str(&stdout);
    Ok((code, report.with_context(|| format!("{code}: {stdout}{stderr}"))?))
}

/// `weight code: where` of each finding.
fn findings(report: &Value) -> Vec<String> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("?").to_owned();
    let all = report["findings"].as_array().into_iter().flatten();
    all.map(|it| format!("{} {}: {}", text(it, "weight"), text(it, "code"), text(it, "where")))
        .collect()
}

fn has(report: &Value, finding: &str) -> Result<()> {
    let found = findings(report);
    ensure!(found.iter().any(|line| line.starts_with(finding)), "{finding} is missing: {report:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_each_difference_and_nothing_else() -> Result<()> {
    let spec = Spec::new("qdoctor", "m5.large", 1, &LEAN);
    ExecCluster::with(spec, async |cluster| {
        let pods = cluster.nodes[0].runtime.run_all("p", 3).await?;
        let node = &cluster.nodes[0];
        // The metadata service and the kernel may lag for some seconds.
        eventually("healthy node", PATIENCE, async || {
            let (code, report) = doctor(node).await?;
            ensure!(code == 0 && findings(&report).is_empty(), "{code}: {report:#}");
            let gaps = report["not_compared"].as_array().context("no list")?;
            // No container runtime runs here.
            ensure!(gaps.len() == 1, "{report:#}");
            ensure!(gaps[0]["what"] == "record and container runtime", "{report:#}");
            Ok(())
        })
        .await?;

        bundle_has_all_of_a_daemon(node).await?;

        // Each of these is a fault that the daemon does not mend, at least not at once.
        let rule = ["rule", "add", "priority", "100", "from", "10.9.0.0/16", "lookup", "7"];
        output(in_netns(&node.netns, "ip").args(rule)).await?;
        let first = node.conflist().with_file_name("05-other.conf");
        std::fs::write(&first, r#"{"type": "bridge"}"#)?;
        let log = node.state_directory().join("tidepool.jsonl");
        std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o666))?;
        let (code, report) = doctor(node).await?;
        ensure!(code == 6, "{code}: {report:#}");
        has(&report, "notice foreign_rule: 100: from 10.9.0.0/16 lookup 7")?;
        has(&report, &format!("difference other_conflist: {}", first.display()))?;
        has(&report, &format!("difference unsafe_file: {}", log.display()))?;
        // The daemon mends this within half a second, so it is changed again until the doctor looks in between.
        eventually("changed sysctl", PATIENCE, async || {
            output(in_netns(&node.netns, "sysctl").args(["-qw", "net.ipv4.ip_forward=0"])).await?;
            let (_, text, stderr) = node.ipamd(&["doctor"]).await?;
            ensure!(text.contains("DIFFERENCE sysctl: net/ipv4/ip_forward"), "{text}{stderr}");
            Ok(())
        })
        .await?;
        std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o600))?;
        std::fs::remove_file(&first)?;

        // Without a daemon the record on disk counts, and what cannot be compared is said.
        let node = &mut cluster.nodes[0];
        node.kill_ipamd().await?;
        let link = host_link(node, &pods[0].ip).await?;
        output(in_netns(&node.netns, "ip").args(["link", "delete", &link])).await?;
        let (code, report) = doctor(node).await?;
        ensure!(code == 6, "{code}: {report:#}");
        has(&report, "difference daemon_silent: ")?;
        has(&report, "difference pod_without_link: default/p0")?;
        let gaps = report["not_compared"].to_string();
        ensure!(gaps.contains("record and EC2") && gaps.contains("metadata"), "{report:#}");

        // Somebody takes a pod's address at EC2.
        let enis = cluster.sim.network().await?;
        let primary = enis["instances"][0]["enis"][0]["id"].as_str().context("no ENI")?;
        let taken = [("NetworkInterfaceId", primary), ("PrivateIpAddress.1", &*pods[1].ip)];
        cluster.sim.ec2("UnassignPrivateIpAddresses", &taken).await?;
        cluster.nodes[0].start_ipamd().await?;
        let node = &cluster.nodes[0];
        eventually("lost address", PATIENCE, async || {
            let (code, report) = doctor(node).await?;
            ensure!(code == 6, "{code}: {report:#}");
            has(&report, &format!("difference lost_address: {}", pods[1].ip))
        })
        .await?;
        let (_, why, _) = node.ipamd(&["why", "default/p1"]).await?;
        let problem = format!("problem: EC2 describes {} on no ENI of this instance", pods[1].ip);
        ensure!(why.contains(&problem), "{why}");
        Ok(())
    })
    .await
}

/// The name of the link to which the host routes the address.
async fn host_link(node: &ExecNode, address: &str) -> Result<String> {
    let route = output(in_netns(&node.netns, "ip").args(["route", "show", address])).await?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "dev");
    words.nth(1).map(str::to_owned).with_context(|| format!("no device: {route:?}"))
}

/// The support bundle with what only a daemon can say.
async fn bundle_has_all_of_a_daemon(node: &ExecNode) -> Result<()> {
    let (dir, conf) = (node.state_directory(), node.conflist());
    let (to, conf) = (dir.join("bundle.tar.gz"), conf.parent().context("no folder")?);
    let (to, conf) = (to.display().to_string(), conf.display().to_string());
    let (code, _, list) = node.ipamd(&["support-bundle", &to, "--cni-conf-dir", &conf]).await?;
    ensure!(code == 0, "{code}: {list}");
    let read = async |name: &str| {
        let path = format!("tidepool-support/{name}");
        output(tokio::process::Command::new("tar").args(["-xzOf", &to, &path])).await
    };
    let status: Value = serde_json::from_str(&read("status.json").await?)?;
    ensure!(status["pods"].as_array().map(Vec::len) == Some(3), "{status}");
    ensure!(read("metrics.txt").await?.contains("tidepool_ready 1"), "{list}");
    ensure!(read("record.jsonl").await?.contains("\"format\":\"tidepool\""), "{list}");
    ensure!(read("kernel/rules.txt").await?.contains("512: to "), "{list}");
    ensure!(read("kernel/nft-ip.txt").await?.contains("table ip tidepool"), "{list}");
    ensure!(read("log/plugin.log").await?.contains("ADD"), "{list}");
    Ok(())
}
