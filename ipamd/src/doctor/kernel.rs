//! The kernel against the record: pods' links and routes, sysctls, and rules of others.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use agent::error_chain;
use agent::examine::{self, HostLink, MacAddr, SysctlDifference};
use proto::v1::{PodView, ViewReply, ViewRequest};
use settings::Settings;

use super::report::{Finding, Report};
use crate::asking;

/// The pause before a difference is looked at again. A pod that comes or goes meanwhile is no difference.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A pod on record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    name: String,
    /// As its link is marked.
    mark: String,
    addresses: BTreeSet<IpAddr>,
}

/// Compares the kernel with the daemon's pods, else with the record on disk.
pub(super) async fn examine(
    socket: &Path,
    settings: &Settings,
    view: Option<&ViewReply>,
    report: &mut Report,
) {
    report.note("pods on record and the kernel's links", links(socket, settings, view).await);
    let rules = examine::foreign_rules().await.map_err(|fault| error_chain(&fault));
    report
        .note("rules of others", rules.map(|rules| rules.into_iter().map(foreign_rule).collect()));
    let sysctls = match view {
        None => Err("no daemon answers, and it knows the primary ENI".to_owned()),
        Some(view) => sysctls(view).await,
    };
    report.note("sysctls", sysctls);
}

async fn links(
    socket: &Path,
    settings: &Settings,
    view: Option<&ViewReply>,
) -> Result<Vec<Finding>, String> {
    let first = compare(&held(settings, view)?, &kernel().await?);
    if first.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(AGAIN_AFTER).await;
    let later = match view {
        None => None,
        Some(_) => Some(ask_again(socket.to_owned()).await?),
    };
    let second = compare(&held(settings, later.as_ref())?, &kernel().await?);
    Ok(first.into_iter().filter(|finding| second.contains(finding)).collect())
}

/// The daemon's view. Asking blocks, and has a runtime of its own.
async fn ask_again(socket: std::path::PathBuf) -> Result<ViewReply, String> {
    let asking = tokio::task::spawn_blocking(move || {
        asking::ask(Some(&socket), async |mut client| client.view(ViewRequest {}).await)
    });
    let answer = asking.await.map_err(|panic| panic.to_string())?;
    answer.map_err(|fault| fault.to_string())
}

async fn kernel() -> Result<Vec<HostLink>, String> {
    examine::host_links().await.map_err(|fault| error_chain(&fault))
}

fn held(settings: &Settings, view: Option<&ViewReply>) -> Result<Vec<Held>, String> {
    if let Some(view) = view {
        return Ok(view.pods.iter().map(held_by).collect());
    }
    let record = agent::migration::read_record(&settings.state_directory);
    let record = record.map_err(|fault| format!("{fault:#}"))?;
    let record = record.ok_or_else(|| "no daemon answers, and there is no record".to_owned())?;
    let held = record.assignments().iter().map(|(key, held)| Held {
        name: name(&held.pod.namespace, &held.pod.name, &key.container),
        mark: key.mark(),
        addresses: held.ips().collect(),
    });
    Ok(held.collect())
}

fn held_by(view: &PodView) -> Held {
    let attachment = view.attachment.clone().unwrap_or_default();
    let pod = view.pod.clone().unwrap_or_default();
    let addresses = [&view.address, &view.second_address].into_iter().flatten();
    Held {
        name: name(&pod.namespace, &pod.name, &attachment.container_id),
        mark: format!("{}/{}", attachment.container_id, attachment.ifname),
        addresses: addresses.filter_map(|held| held.address.parse().ok()).collect(),
    }
}

fn name(namespace: &str, name: &str, container: &str) -> String {
    match name.is_empty() {
        true => format!("container {container}"),
        false => format!("{namespace}/{name}"),
    }
}

fn compare(held: &[Held], links: &[HostLink]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let marks: BTreeSet<_> = held.iter().map(|held| held.mark.as_str()).collect();
    for Held { name, mark, addresses } in held {
        let has_mark = |link: &&HostLink| link.owner.as_deref() == Some(mark);
        // Links of amazon-vpc-cni-k8s have no mark.
        let leads =
            |link: &&HostLink| link.owner.is_none() && !link.addresses.is_disjoint(addresses);
        let Some(link) = links.iter().find(has_mark).or_else(|| links.iter().find(leads)) else {
            let found = format!("{} on record, and no link leads to it", listed(addresses));
            let advice = "wait two minutes for the daemon's own check; if it lasts, delete the pod";
            findings.push(Finding::difference("pod_without_link", name.as_str(), found, advice));
            continue;
        };
        let missing: BTreeSet<_> = addresses.difference(&link.addresses).copied().collect();
        if !missing.is_empty() {
            let found = format!("no route leads to {} by its link {}", listed(&missing), link.name);
            let advice = "the daemon puts it back within a second; if it lasts, stop the program that removes it";
            findings.push(Finding::difference("pod_without_route", name.as_str(), found, advice));
        }
    }
    let strangers = links.iter().filter_map(|link| Some((link, link.owner.as_deref()?)));
    for (link, mark) in strangers.filter(|(_, mark)| !marks.contains(mark)) {
        let found = format!(
            "its mark is {mark}, which is not on record; it has {}",
            listed(&link.addresses)
        );
        let advice =
            "wait two minutes for the daemon's own check; if it lasts, delete that container";
        findings.push(Finding::difference(
            "link_without_record",
            link.name.as_str(),
            found,
            advice,
        ));
    }
    findings
}

fn listed(addresses: &BTreeSet<IpAddr>) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "no address".to_owned() } else { texts.join(", ") }
}

fn foreign_rule(line: String) -> Finding {
    let found = "another program's rule counts before those of pods";
    let advice = "if packets of pods take a wrong way, remove it; `ip rule` lists all";
    Finding::notice("foreign_rule", line, found, advice)
}

async fn sysctls(view: &ViewReply) -> Result<Vec<Finding>, String> {
    let primary = view.enis.iter().find(|eni| eni.primary);
    let primary =
        primary.ok_or_else(|| "the daemon does not know the primary ENI yet".to_owned())?;
    let mac: MacAddr = primary.mac.parse().map_err(|_| format!("{} is no MAC", primary.mac))?;
    let found = examine::sysctls(mac, super::has_ipv6(view)).await;
    let found = found.map_err(|fault| error_chain(&fault))?;
    let findings = found.into_iter().map(|SysctlDifference { key, value, wanted }| {
        let found = format!("it is {value}, and pods need {wanted}");
        let advice = "the daemon sets it at its start and with each change of ENIs; stop the program that changes it";
        Finding::difference("sysctl", key, found, advice)
    });
    Ok(findings.collect())
}

#[cfg(test)]
mod tests;
