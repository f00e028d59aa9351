//! How soon the daemon puts back what another program removes, on a node with many pods and ranges.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tests::exec::ExecNode;
use tests::process::{PATIENCE, eventually, in_netns, output};

use crate::spread::Report;

/// Each kind of damage so often, by turns and without a pause: so the next one follows upon a repair.
const ROUNDS: usize = 20;

/// What another program does, as a script, and a script that succeeds once the daemon has put it back.
struct Damage {
    name: String,
    script: &'static str,
    is_back: String,
}

/// Ranges without SNAT, for the setting.
pub(crate) fn ranges() -> String {
    let ranges: Vec<_> = (0..50).map(|index| format!("172.16.{index}.0/24")).collect();
    ranges.join(",")
}

/// On a node with a secondary ENI and so many pods.
fn damages(n_pods: usize) -> [Damage; 5] {
    let damage =
        |name: String, script, is_back: &str| Damage { name, script, is_back: is_back.to_owned() };
    let all_pods = |list: &str| format!("[ $({list} | wc -l) -ge {n_pods} ]");
    [
        damage(
            "nft flush ruleset, 50 ranges".to_owned(),
            "nft flush ruleset",
            "nft list set ip tidepool untranslated",
        ),
        damage(
            format!("ip rule flush, {n_pods} pods"),
            // The kernel's own come back at once, or nothing would leave the node. The daemon may be first.
            "ip rule flush; ip rule add priority 32766 lookup main || true; ip rule add priority 32767 lookup default || true",
            &all_pods("ip rule show priority 512"),
        ),
        damage(
            format!("host routes of {n_pods} pods"),
            "ip route show scope link | awk '/ dev eni/ {print \"route del \" $1}' | ip -batch -",
            &all_pods("ip route show scope link | grep ' dev eni'"),
        ),
        damage(
            "address of a secondary ENI".to_owned(),
            "ip address flush dev $(ip -o route show table 2 default | awk '{print $5}')",
            "ip -o address show dev $(ip -o route show table 2 default | awk '{print $5}') | grep -q inet",
        ),
        damage(
            "sysctl ip_forward".to_owned(),
            "sysctl -qw net.ipv4.ip_forward=0",
            "[ $(sysctl -n net.ipv4.ip_forward) = 1 ]",
        ),
    ]
}

/// Measures the daemon's repairs on a node with `n_pods` pods.
pub(crate) async fn measure(report: &mut Report, node: &ExecNode, n_pods: usize) -> Result<()> {
    let damages = damages(n_pods);
    let mut times = vec![Vec::new(); damages.len()];
    for _ in 0..ROUNDS {
        for (damage, times) in damages.iter().zip(&mut times) {
            times.push(until_back(node, damage).await?);
        }
    }
    for (damage, times) in damages.iter().zip(times) {
        report.line(&format!("repair: {}", damage.name), times);
    }
    Ok(())
}

/// From the end of the damage on.
async fn until_back(node: &ExecNode, damage: &Damage) -> Result<Duration> {
    let Damage { name, script, is_back } = damage;
    run(node, script).await.with_context(|| format!("damage: {name}"))?;
    let start = Instant::now();
    eventually(name, PATIENCE, || run(node, is_back)).await?;
    Ok(start.elapsed())
}

async fn run(node: &ExecNode, script: &str) -> Result<()> {
    output(in_netns(&node.netns, "bash").args(["-ec", script])).await.map(drop)
}
