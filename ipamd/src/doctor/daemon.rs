//! What the daemon itself says: where record, EC2, kernel and metadata service differ, and what stands in its way.

use std::path::Path;

use proto::v1::{Difference, DifferencesReply, DifferencesRequest, Source, ViewReply, ViewRequest};

use super::report::{Finding, Report};
use crate::asking;

/// The obstacles that do not pass on their own, with the advice that docs/errors.md has at length. Others are shortages,
/// which `ipamd status` names.
const LASTING: [(&str, &str); 6] = [
    ("ACCESS_DENIED", "allow the action to the node's role (docs/iam.md)"),
    ("EC2_REFUSES", "change the quota, tag, security group or subnet that is named"),
    (
        "LINK_FAILING",
        "see the daemon's log; if devices fail to come again and again, replace the instance",
    ),
    ("STATE_UNWRITABLE", "look at the disk that holds the daemon's state"),
    (
        "LEGACY_IPTABLES",
        "run the commands that are named (docs/migration.md says what they do), or restart the machine",
    ),
    ("KERNEL_UNREAD", "look at the kernel's log and the node's memory"),
];

/// Notes what the daemon at `socket` says, and returns its view of the pool; `None` if it does not answer.
pub(super) fn examine(socket: &Path, report: &mut Report) -> Option<ViewReply> {
    let view = asking::ask(Some(socket), async |mut client| client.view(ViewRequest {}).await);
    let view = match view {
        Ok(view) => view,
        Err(fault) => {
            let advice = "start the daemon; if it runs, see its log and `ipamd ready`";
            let path = socket.display().to_string();
            let silent = Finding::difference("daemon_silent", path, fault.to_string(), advice);
            report.findings.push(silent);
            for what in ["record and EC2", "record and kernel, as the daemon sees them"] {
                report.note(what, Err("no daemon answers".to_owned()));
            }
            return None;
        }
    };
    report.note("daemon's obstacles", Ok(obstacles(&view)));
    report.note("versions", Ok(version(&view)));
    let differences = asking::ask(Some(socket), async |mut client| {
        client.differences(DifferencesRequest {}).await
    });
    match differences {
        Ok(differences) => note(differences, report),
        Err(fault) => report.note("record and EC2", Err(fault.to_string())),
    }
    Some(view)
}

fn note(reply: DifferencesReply, report: &mut Report) {
    let DifferencesReply { differences, n_more, sources } = reply;
    let mut findings: Vec<_> = differences.into_iter().map(finding).collect();
    if n_more > 0 {
        let found = format!("{n_more} further differences are not listed");
        findings.push(Finding::difference("more", "daemon", found, "see ipamd status"));
    }
    report.note("daemon's comparison", Ok(findings));
    for Source { name, seen_ms: _, fault } in sources {
        let what = match name.as_str() {
            "ec2" => "record and EC2",
            "kernel" => "record and kernel, as the daemon sees them",
            "runtime" => "record and container runtime",
            _ => continue,
        };
        let outcome = if fault.is_empty() { Ok(Vec::new()) } else { Err(fault) };
        report.note(what, outcome);
    }
}

fn finding(difference: Difference) -> Finding {
    let Difference { kind, subject, found, advice } = difference;
    // Somebody may have put it there on purpose, and no pod is touched.
    match kind == "foreign_block" {
        true => Finding::notice(&kind, subject, found, &advice),
        false => Finding::difference(&kind, subject, found, &advice),
    }
}

fn obstacles(view: &ViewReply) -> Vec<Finding> {
    let lasting = view.blocked.iter().filter_map(|line| {
        let (code, text) = line.split_once(": ")?;
        let (_, advice) = LASTING.iter().find(|(lasting, _)| *lasting == code)?;
        Some(Finding::difference(&code.to_lowercase(), view.instance_id.as_str(), text, advice))
    });
    lasting.collect()
}

fn version(view: &ViewReply) -> Vec<Finding> {
    let theirs = &view.server_version;
    let found = format!("the daemon has version {theirs}, this command {}", proto::VERSION);
    let advice = "run the command in the daemon's container";
    let other = || Finding::notice("other_version", "ipamd", found, advice);
    (theirs != proto::VERSION).then(other).into_iter().collect()
}
