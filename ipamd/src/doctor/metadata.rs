//! The metadata service against EC2's answer as the daemon has it. The service lags behind EC2 by up to a minute, so
//! most of it is a notice.

use std::collections::BTreeSet;
use std::time::Duration;

use agent::error_chain;
use aws::{Imds, NodeFacts, ShownEni};
use proto::v1::{EniView, ViewReply};

use super::report::{Finding, Report};

/// The service answers within milliseconds; fifteen ENIs take a hundred small requests in a row.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What helps in each case.
const ADVICE: &str = "run this command again in a minute; if it lasts, see ipamd status";

/// Compares the metadata service with the daemon's view.
pub(super) async fn examine(view: Option<&ViewReply>, report: &mut Report) {
    let asking = async {
        let imds = Imds::connect();
        let facts = imds.node_facts().await.map_err(|fault| error_chain(&fault))?;
        Ok((facts, imds.enis().await.map_err(|fault| error_chain(&fault))?))
    };
    let shown = match tokio::time::timeout(TIMEOUT, asking).await {
        Ok(shown) => shown,
        Err(_late) => Err(format!("no answer within {TIMEOUT:?}")),
    };
    let compared = match (shown, view) {
        (Ok((facts, enis)), Some(view)) => Ok(compare(&facts, &enis, view)),
        (Ok(_), None) => Err("no daemon answers".to_owned()),
        (Err(why), _) => Err(why),
    };
    report.note("metadata service and EC2", compared);
}

fn compare(facts: &NodeFacts, shown: &[ShownEni], view: &ViewReply) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.instance.as_str() != view.instance_id {
        let found = format!(
            "the metadata service names {}, and the daemon serves {}",
            facts.instance, view.instance_id
        );
        let advice = "restart the daemon: it runs with another instance's facts";
        findings.push(Finding::difference("other_instance", "instance", found, advice));
    }
    let attached = view.enis.iter().filter(|eni| eni.table != 0);
    let of_ec2: BTreeSet<_> = attached.map(|eni| &eni.id).chain(&view.foreign_enis).collect();
    let of_service: BTreeSet<_> = shown.iter().map(|eni| eni.id.to_string()).collect();
    let notice = |eni: &str, found: &str| Finding::notice("metadata_lags", eni, found, ADVICE);
    let unknown = of_service.iter().filter(|eni| !of_ec2.contains(eni));
    findings.extend(unknown.map(|eni| {
        notice(eni, "the metadata service shows it, and EC2 does not describe it here")
    }));
    let hidden = of_ec2.iter().filter(|eni| !of_service.contains(**eni));
    findings.extend(hidden.map(|eni| {
        notice(eni, "EC2 describes it here, and the metadata service does not show it")
    }));
    for eni in shown {
        let ours = view.enis.iter().find(|ours| ours.id == eni.id.as_str());
        if let Some(found) = ours.and_then(|ours| blocks(eni, ours)) {
            findings.push(notice(eni.id.as_str(), &found));
        }
    }
    findings
}

/// The addresses and prefixes on which the two differ. The daemon leaves out blocks that are not its own, so only those
/// that the service lacks count.
fn blocks(shown: &ShownEni, ours: &EniView) -> Option<String> {
    let shown: BTreeSet<_> = shown.blocks.iter().map(ToString::to_string).collect();
    let known = ours.blocks.iter().map(|block| &block.cidr).chain(&ours.delegated);
    let missing: Vec<_> = known.filter(|block| !shown.contains(*block)).cloned().collect();
    let text = format!(
        "EC2 has assigned {}, which the metadata service does not show",
        missing.join(", ")
    );
    (!missing.is_empty()).then_some(text)
}
