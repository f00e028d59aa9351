//! Findings: what is wrong in an audit, how bad it is, and what to do.

use serde::Serialize;

use super::{Audit, Options};
use crate::inventory::Interface;
use crate::overlap::Overlap;
use crate::subnet::SubnetUse;

/// The most findings of one kind that are listed. The last one says how many there are.
const MOST: usize = 100;

/// Something that is wrong, or will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Its kind, for programs: `overlap`, `subnet_full`.
    pub code: &'static str,
    /// What it is about: the id of a resource, or several.
    pub subject: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub cure: String,
}

/// How bad a [`Finding`] is; the worst is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It does not work, or it has passed the threshold for failures.
    Failure,
    /// It works for the time being.
    Warning,
    /// Worth knowing.
    Notice,
}

impl Severity {
    /// As tables show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }

    fn of(percent: u64, options: &Options) -> Option<Self> {
        match percent {
            percent if percent >= options.fail_at => Some(Self::Failure),
            percent if percent >= options.warn_at => Some(Self::Warning),
            _ => None,
        }
    }
}

/// The findings of an audit that has none yet.
pub(super) fn findings(audit: &Audit, left: &[&Interface], options: &Options) -> Vec<Finding> {
    let kinds: [Vec<Finding>; 7] = [
        audit.overlaps.iter().map(overlap).collect(),
        audit.subnets.iter().flat_map(|subnet| full_subnet(subnet, options)).collect(),
        audit.subnets.iter().filter_map(|subnet| fragmented(subnet, options)).collect(),
        audit.subnets.iter().filter_map(unseen).collect(),
        vpcs(audit, options),
        pools(audit, options),
        left.iter().map(|interface| left_behind(interface)).collect(),
    ];
    let [overlaps, rest @ ..] = kinds;
    let mut findings = shortened(overlaps, audit.n_overlaps);
    findings.extend(rest.into_iter().flat_map(|kind| {
        let n_all = kind.len();
        shortened(kind, n_all)
    }));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The worst of one kind. The last says how many of `n_all` are left out.
fn shortened(mut findings: Vec<Finding>, n_all: usize) -> Vec<Finding> {
    findings.sort_by_key(|finding| finding.severity);
    let n_more = n_all.saturating_sub(MOST);
    findings.truncate(MOST);
    if let Some(last) = findings.last_mut().filter(|_| n_more > 0) {
        last.what = format!("{}; {n_more} more of this kind are not listed", last.what);
    }
    findings
}

fn overlap(overlap: &Overlap) -> Finding {
    let [one, other] = &overlap.sides;
    let (severity, code) = if overlap.relation.breaks_routes() {
        (Severity::Failure, "overlap_connected")
    } else {
        (Severity::Warning, "overlap")
    };
    Finding {
        severity,
        code,
        subject: format!("{} {}", one.vpc, other.vpc),
        what: format!(
            "{} of {} and {} of {} overlap in {} ({})",
            one.cidr, one.vpc, other.cidr, other.vpc, overlap.shared, overlap.relation
        ),
        cure: overlap.cure.to_string(),
    }
}

fn full_subnet(subnet: &SubnetUse, options: &Options) -> Option<Finding> {
    let room = &subnet.room;
    Some(Finding {
        severity: Severity::of(room.percent, options)?,
        code: "subnet_full",
        subject: subnet.id.to_string(),
        what: format!(
            "{} of {} addresses of {} are in use ({} %)",
            room.used, room.usable, subnet.cidr, room.percent
        ),
        cure: "lower the warm targets of its nodes, or give the nodes a further subnet".to_owned(),
    })
}

/// A subnet with much room and no block for a prefix. A subnet that is full is another finding.
fn fragmented(subnet: &SubnetUse, options: &Options) -> Option<Finding> {
    let room = &subnet.room;
    let is_fragmented =
        room.free_prefixes == 0 && room.free >= 64 && room.percent < options.warn_at;
    is_fragmented.then(|| Finding {
        severity: Severity::Warning,
        code: "subnet_fragmented",
        subject: subnet.id.to_string(),
        what: format!(
            "{} addresses of {} are free, and no aligned /28 for a prefix",
            room.free, subnet.cidr
        ),
        cure: "reserve a range for prefixes (CreateSubnetCidrReservation), or use a subnet of prefixes alone"
            .to_owned(),
    })
}

fn unseen(subnet: &SubnetUse) -> Option<Finding> {
    let n = subnet.room.unseen;
    (n > 0).then(|| Finding {
        severity: Severity::Notice,
        code: "unseen_addresses",
        subject: subnet.id.to_string(),
        what: format!(
            "{n} addresses of {} are in use, and on no interface that was read: its free blocks may be fewer",
            subnet.cidr
        ),
        cure: "read the accounts with which the subnet is shared too".to_owned(),
    })
}

fn vpcs(audit: &Audit, options: &Options) -> Vec<Finding> {
    let mut findings = vec![];
    for vpc in &audit.vpcs {
        let usage = &vpc.network_usage;
        let subject = vpc.id.to_string();
        for (units, percent, whose) in [
            (usage.units, usage.percent, "network address usage"),
            (usage.peered_units, usage.peered_percent, "network address usage with peered VPCs"),
        ] {
            findings.extend(Severity::of(percent, options).map(|severity| {
                Finding {
                    severity,
                    code: "network_usage",
                    subject: subject.clone(),
                    what: format!("{whose} is {units} units, {percent} % of the quota"),
                    cure:
                        "use prefixes, which count as one unit each, or ask AWS for a higher quota"
                            .to_owned(),
                }
            }));
        }
        // It harms nothing while the subnets have room, so it is never a failure.
        findings.extend((vpc.percent >= options.fail_at).then(|| Finding {
            severity: Severity::Notice,
            code: "vpc_full",
            subject,
            what: format!("{} % of its ranges are given to subnets", vpc.percent),
            cure: "associate a further range before a further subnet is needed".to_owned(),
        }));
    }
    findings
}

fn pools(audit: &Audit, options: &Options) -> Vec<Finding> {
    let mut findings = vec![];
    for pool in &audit.pools {
        let finding = |severity, code, what, cure: &str| Finding {
            severity,
            code,
            subject: pool.id.clone(),
            what,
            cure: cure.to_owned(),
        };
        findings.extend(Severity::of(pool.percent, options).map(|severity| {
            let what = format!(
                "{} of {} addresses are allocated ({} %)",
                pool.allocated, pool.provisioned, pool.percent
            );
            finding(severity, "pool_full", what, "provision a further range")
        }));
        findings.extend(pool.broken_rules.iter().map(|rule| {
            finding(
                Severity::Warning,
                "pool_rule",
                rule.clone(),
                "change the resource, or the rule of the pool",
            )
        }));
    }
    findings
}

fn left_behind(interface: &Interface) -> Finding {
    Finding {
        severity: Severity::Notice,
        code: "left_behind",
        subject: interface.id.to_string(),
        what: "a CNI plugin has created it for an instance that is gone".to_owned(),
        cure: "delete it, unless something outside of what was read uses it".to_owned(),
    }
}
