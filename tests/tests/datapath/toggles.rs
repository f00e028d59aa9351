//! Settings that change on a live node, again and again, leave what a fresh start leaves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::Spec;
use tests::exec::{ExecCluster, ExecNode};
use tests::process::{PATIENCE, eventually};

use crate::kube_proxy::forget_all;
use crate::{pod_on_each_eni, shell};

/// How often each setting changes while the daemon runs.
const TIMES: usize = 100;
/// What all rounds have. The pool is at rest with it, and with [`POOL`].
const BASE: &str = "WARM_IP_TARGET=1\n";
/// Settings without an effect on the kernel while the pool is at rest. They change together with the first of [`CASES`].
const POOL: &str = "WARM_ENI_TARGET=2
WARM_PREFIX_TARGET=2
WARM_IP_TARGET=2
MINIMUM_IP_TARGET=3
MAX_ENI=3
TIDEPOOL_MAX_PODS=10
IP_COOLDOWN_PERIOD=31
TIDEPOOL_ADD_WAIT=59s
TIDEPOOL_GROW_DELAY=60ms
TIDEPOOL_SHRINK_DELAY=40s
TIDEPOOL_MIN_ENI_AGE=70s
TIDEPOOL_LEAK_AGE=2h
DISABLE_LEAKED_ENI_CLEANUP=true
DISABLE_NETWORK_RESOURCE_PROVISIONING=true
AWS_MANAGE_ENIS_NON_SCHEDULABLE=true
TIDEPOOL_DELEGATED_PREFIXES=0
TIDEPOOL_DUAL_STACK=preferred
TIDEPOOL_TCP_ESTABLISHED_TIMEOUT=350
TIDEPOOL_UDP_STREAM_TIMEOUT=120
TIDEPOOL_UDP_TIMEOUT=45
DISABLE_POD_V6=true
ENABLE_V4_EGRESS=false
AWS_VPC_K8S_CNI_LOGLEVEL=info
";
/// Other values than the defaults.
const CASES: [&str; 10] = [
    "AWS_VPC_K8S_CNI_EXTERNALSNAT=true\n",
    "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS=10.1.0.0/16,192.0.2.0/24\n",
    "AWS_VPC_K8S_CNI_RANDOMIZESNAT=hashrandom\n",
    "AWS_VPC_K8S_CNI_RANDOMIZESNAT=none\n",
    "AWS_VPC_CNI_NODE_PORT_SUPPORT=false\n",
    "AWS_VPC_CNI_NODE_PORT_SUPPORT=false\nAWS_VPC_K8S_CNI_EXTERNALSNAT=true\n",
    "AWS_VPC_K8S_CNI_CONNMARK=0x100\n",
    "AWS_EXTERNAL_SERVICE_CIDRS=198.51.100.0/24,203.0.113.0/25\n",
    "AWS_VPC_K8S_CNI_VETHPREFIX=ben\n",
    EGRESS,
];
/// Its sysctls stay when it is switched off, since nobody knows who else relies on them.
const EGRESS: &str = "ENABLE_V6_EGRESS=true\n";

/// The text of everything in the kernel that the daemon may change on a node.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// What the settings of [`CASES`] change.
    rules: String,
    /// Links, addresses, routes and sysctls.
    rest: String,
}

impl State {
    /// Once the kernel has found no duplicate of any IPv6 address, which takes it two seconds.
    async fn of(node: &ExecNode) -> Result<Self> {
        let in_use = eventually("addresses in use", PATIENCE, async || {
            let tentative = shell(&node.netns, "ip -6 address show tentative").await?;
            ensure!(tentative.is_empty(), "{tentative}");
            Ok(())
        });
        in_use.await?;
        // Lifetimes and counts of connections pass by themselves.
        let rest = "
            ip -o link
            ip -o address | sed -E 's/(valid|preferred)_lft [0-9]+sec//g'
            ip route show table all
            ip -6 route show table all | sed -E 's/ expires [0-9]+sec//'
            sysctl -a 2>/dev/null | grep '^net\\.' | grep -v nf_conntrack_count";
        Ok(Self { rules: rules(node).await?, rest: shell(&node.netns, rest).await? })
    }
}

/// Rules of equal priority have any order, and so have tables.
async fn rules(node: &ExecNode) -> Result<String> {
    let script = "ip rule | sort; ip -6 rule | sort
        nft list tables | sort | while read -r table; do nft -s list $table; done";
    shell(&node.netns, script).await
}

fn file(node: &ExecNode) -> PathBuf {
    node.state_directory().join("env")
}

/// Starts the daemon with `settings` on a node without any rule of it.
async fn fresh(node: &mut ExecNode, settings: &str) -> Result<State> {
    node.stop_ipamd().await?;
    forget_all(node).await?;
    std::fs::write(file(node), settings).context("write the settings")?;
    node.start_ipamd().await?;
    State::of(node).await
}

/// Changes the settings of the running daemon and waits until it has the rules of `wanted`.
async fn change(node: &ExecNode, settings: &str, wanted: &State) -> Result<()> {
    std::fs::write(file(node), settings).context("write the settings")?;
    let pid = i32::try_from(node.ipamd_pid()?)?;
    let pid = rustix::process::Pid::from_raw(pid).context("pid 0")?;
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).context("send SIGHUP")?;
    let reached = eventually("rules of a fresh start", PATIENCE, async || {
        let found = rules(node).await?;
        ensure!(found == wanted.rules, "with {settings}{}", difference(&wanted.rules, &found));
        Ok(())
    });
    reached.await
}

fn difference(wanted: &str, found: &str) -> String {
    let [wanted, found] = [wanted, found].map(|text| text.lines().collect::<BTreeSet<_>>());
    let missing = wanted.difference(&found).map(|line| format!("\nmissing: {line}"));
    missing.chain(found.difference(&wanted).map(|line| format!("\nnew: {line}"))).collect()
}

/// Compares the whole texts; the error has the lines that differ.
fn is_same(wanted: &State, found: &State, settings: &str) -> Result<()> {
    let rules = difference(&wanted.rules, &found.rules);
    let rest = difference(&wanted.rest, &found.rest);
    ensure!(wanted == found, "with {settings}{rules}{rest}");
    Ok(())
}

async fn on_node(name: &str, body: impl AsyncFnOnce(&mut ExecNode) -> Result<()>) -> Result<()> {
    on_node_of(Spec::new(name, "t3.small", 1, &[]), body).await
}

async fn on_node_of(spec: Spec, body: impl AsyncFnOnce(&mut ExecNode) -> Result<()>) -> Result<()> {
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        node.stop_ipamd().await?;
        std::fs::write(file(node), BASE).context("write the settings")?;
        let path = file(node).display().to_string();
        node.configure(&[("TIDEPOOL_ENV_FILE", &path)]);
        node.start_ipamd().await?;
        pod_on_each_eni(node, "p").await?;
        body(node).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn live_settings_changed_often_are_as_from_a_fresh_start() -> Result<()> {
    on_node("dtoggle", async |node| {
        fresh(node, &[BASE, EGRESS].concat()).await?;
        let off = fresh(node, BASE).await?;
        let mut repaired = 0;
        for (index, case) in CASES.iter().enumerate() {
            let settings = [if index == 0 { POOL } else { BASE }, case].concat();
            let on = fresh(node, &settings).await?;
            ensure!(on.rules != off.rules, "{case} changes nothing");
            for _ in 0..TIMES / 2 {
                change(node, BASE, &off).await?;
                change(node, &settings, &on).await?;
            }
            is_same(&on, &State::of(node).await?, &settings)?;
            change(node, BASE, &off).await?;
            is_same(&off, &State::of(node).await?, BASE)?;
            repaired += n_repairs(node).await?;
        }
        // What a setting changes is no damage by another program.
        ensure!(repaired == 0, "{repaired} repairs were counted");
        Ok(())
    })
    .await
}

async fn n_repairs(node: &ExecNode) -> Result<u64> {
    let metrics = node.scrape().await?;
    let of = metrics.iter().filter(|(name, _)| name.starts_with("tidepool_host_network_repairs"));
    Ok(of.filter_map(|(_, value)| value.parse::<u64>().ok()).sum())
}

/// Settings that take effect at the start.
#[tokio::test(flavor = "multi_thread")]
async fn mtu_changed_at_restarts_is_as_from_a_fresh_start() -> Result<()> {
    on_node("dmtu", async |node| {
        let small = format!("{BASE}AWS_VPC_ENI_MTU=1500\nPOD_MTU=1400\n");
        let (before, with) = (fresh(node, BASE).await?, fresh(node, &small).await?);
        ensure!(with.rest.contains("mtu 1500"), "{}", with.rest);
        for _ in 0..3 {
            for (settings, wanted) in [(BASE, &before), (small.as_str(), &with)] {
                restart(node, settings).await?;
                is_same(wanted, &State::of(node).await?, settings)?;
            }
        }
        Ok(())
    })
    .await
}

/// The node's sysctls for IPv6 stay when its pods get no IPv6 any more, since nobody knows who else relies on them.
#[tokio::test(flavor = "multi_thread")]
async fn families_changed_at_restarts_are_as_from_a_fresh_start() -> Result<()> {
    on_node_of(Spec::dual("dfamily", "t3.small", 1, &[]), async |node| {
        // Another ENI would be another state, and a pod would wait for a resting address.
        let both = format!("{BASE}MAX_ENI=2\nIP_COOLDOWN_PERIOD=0\n");
        let ipv4 = format!("{both}ENABLE_IPv6=false\n");
        let after_both = fresh(node, &both).await?;
        let wanted = [(&both, &after_both, 2), (&ipv4, &fresh(node, &ipv4).await?, 1)];
        for _ in 0..3 {
            for (settings, wanted, n_addresses) in wanted {
                restart(node, settings).await?;
                let pod = node.runtime.pod("p").await?;
                let result = node.runtime.call("ADD", Some(&pod), json!({})).await?;
                let ips = result["ips"].as_array().context("no ips")?;
                ensure!(ips.len() == n_addresses, "with {settings}{ips:?}");
                node.runtime.remove(&pod).await?;
                let same = eventually("what a fresh start leaves", PATIENCE, async || {
                    is_same(wanted, &State::of(node).await?, settings)
                });
                same.await?;
            }
        }
        Ok(())
    })
    .await
}

async fn restart(node: &mut ExecNode, settings: &str) -> Result<()> {
    node.stop_ipamd().await?;
    std::fs::write(file(node), settings).context("write the settings")?;
    node.start_ipamd().await
}

/// A new live setting needs a case above.
#[test]
fn every_documented_live_setting_is_changed() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let document = std::fs::read_to_string(document).unwrap();
    let rows = document.lines().filter(|line| line.contains("| live |"));
    let documented: BTreeSet<_> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let lines = POOL.lines().chain(CASES.iter().flat_map(|case| case.lines()));
    let changed: BTreeSet<_> = lines.filter_map(|line| line.split('=').next()).collect();
    assert!(documented.contains("AWS_VPC_K8S_CNI_EXTERNALSNAT"), "{documented:?}");
    assert_eq!(documented, changed);
}
