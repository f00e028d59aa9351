//! `ipamd subnets`: the subnets that the node uses or could use, by EC2's last answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use command_line::{Failure, Output};
use proto::v1::{SubnetRefusal, SubnetView, SubnetsReply, SubnetsRequest};
use serde::Serialize;

use crate::asking;
use crate::status::{json, print, table};

/// Keys are added, never renamed or removed.
#[derive(Serialize)]
struct Subnets<'a> {
    /// When EC2 was asked, in milliseconds since the Unix epoch; `null` if it has not answered yet.
    described_ms: Option<u64>,
    subnets: Vec<Subnet<'a>>,
}

#[derive(Serialize)]
struct Subnet<'a> {
    id: &'a str,
    /// Empty until EC2 has described it.
    cidr: &'a str,
    /// Single IPv4 addresses in EC2's last answer, less those that it has granted since; `null` without an answer.
    free_addresses: Option<u32>,
    /// `new-enis`, `excluded` (by a tag) or `unused` (no tag offers it to pods).
    role: &'a str,
    /// The node's ENIs in it.
    enis: u64,
    /// As in `ipamd status`, for these ENIs; `waiting` is 0.
    counts: json::Counts,
    refusals: Vec<Refusal<'a>>,
}

#[derive(Serialize)]
struct Refusal<'a> {
    /// `address`, `prefix` or `ipv6-prefix`.
    of: &'a str,
    /// As in docs/errors.md.
    code: &'a str,
    /// When a waiting pod makes the daemon ask again, in milliseconds since the Unix epoch.
    until_ms: u64,
}

/// Asks the daemon for the subnets and prints them.
pub(crate) fn run(arguments: &asking::Arguments) -> Result<(), Failure> {
    let reply = asking::ask(arguments.socket.as_deref(), async |mut client| {
        client.subnets(SubnetsRequest {}).await
    })?;
    let text = match arguments.output {
        Output::Table => render(&reply, SystemTime::now()),
        Output::Json => as_json(&reply).context("write the subnets as JSON")?,
    };
    print(&text)
}

/// The subnets as JSON.
pub(crate) fn as_json(reply: &SubnetsReply) -> serde_json::Result<String> {
    json::pretty(&shape(reply))
}

fn shape(reply: &SubnetsReply) -> Subnets<'_> {
    Subnets {
        described_ms: Some(reply.described_ms).filter(|at| *at > 0),
        subnets: reply.subnets.iter().map(subnet).collect(),
    }
}

fn subnet(subnet: &SubnetView) -> Subnet<'_> {
    let SubnetView { id, cidr, free_addresses, role, enis, counts, refusals } = subnet;
    let refusals = refusals.iter().map(|SubnetRefusal { of, code, until_ms }| Refusal {
        of,
        code,
        until_ms: *until_ms,
    });
    Subnet {
        id,
        cidr,
        free_addresses: *free_addresses,
        role,
        enis: *enis,
        counts: json::sums(counts.unwrap_or_default()),
        refusals: refusals.collect(),
    }
}

fn render(reply: &SubnetsReply, now: SystemTime) -> String {
    let header =
        ["SUBNET", "RANGE", "ROLE", "FREE AT EC2", "ENIS", "HELD", "USED", "FREE HERE", "REFUSES"];
    let mut rows = table::table(&header);
    for subnet in &reply.subnets {
        let counts = subnet.counts.unwrap_or_default();
        let refusals: Vec<_> = subnet.refusals.iter().map(|it| refusal(it, now)).collect();
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let cells = [
            subnet.id.clone(),
            or_dash(subnet.cidr.clone()),
            subnet.role.clone(),
            subnet.free_addresses.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            subnet.enis.to_string(),
            counts.total.to_string(),
            counts.assigned.to_string(),
            counts.free.to_string(),
            or_dash(refusals.join(", ")),
        ];
        table::add_row(&mut rows, cells);
    }
    let asked = match reply.described_ms {
        0 => "EC2 has not described the subnets yet".to_owned(),
        at => format!("EC2 was asked {} ago", table::age(at, now)),
    };
    format!("{rows}\n\n{asked}\n")
}

/// `prefix SUBNET_FRAGMENTED for 12s`.
fn refusal(refusal: &SubnetRefusal, now: SystemTime) -> String {
    let SubnetRefusal { of, code, until_ms } = refusal;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_millis(*until_ms).saturating_sub(now).as_secs();
    format!("{of} {code} for {left}s")
}

#[cfg(test)]
mod tests {
    use proto::v1::PoolCounts;

    use super::*;

    fn reply() -> SubnetsReply {
        let counts = PoolCounts { total: 9, assigned: 8, free: 1, ..PoolCounts::default() };
        let refusal = |of: &str, code: &str| SubnetRefusal {
            of: of.into(),
            code: code.into(),
            until_ms: 112_000,
        };
        let used = SubnetView {
            id: "subnet-a".into(),
            cidr: "10.0.0.0/28".into(),
            free_addresses: Some(3),
            role: "new-enis".into(),
            enis: 1,
            counts: Some(counts),
            refusals: vec![refusal("prefix", "SUBNET_FRAGMENTED")],
        };
        let unknown = SubnetView { id: "subnet-b\n".into(), ..SubnetView::default() };
        SubnetsReply { described_ms: 95_000, subnets: vec![used, unknown] }
    }

    #[test]
    fn subnets_are_one_row_each() {
        let text = render(&reply(), UNIX_EPOCH + Duration::from_secs(100));
        let trimmed: Vec<&str> = text.lines().map(str::trim).collect();
        let expect = expect_test::expect![[r#"
            SUBNET      RANGE        ROLE      FREE AT EC2  ENIS  HELD  USED  FREE HERE  REFUSES
            subnet-a    10.0.0.0/28  new-enis  3            1     9     8     1          prefix SUBNET_FRAGMENTED for 12s
            subnet-b\n  -                      -            0     0     0     0          -

            EC2 was asked 5s ago"#]];
        expect.assert_eq(&trimmed.join("\n"));
    }

    #[test]
    fn json_keys_stay_the_same() {
        let json = serde_json::to_value(shape(&reply())).unwrap();
        let keys = |value: &serde_json::Value| {
            let keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.join(" ")
        };
        assert_eq!(keys(&json), "described_ms subnets");
        assert_eq!(keys(&json["subnets"][0]), "cidr counts enis free_addresses id refusals role");
        assert_eq!(keys(&json["subnets"][0]["refusals"][0]), "code of until_ms");
        assert_eq!(json["subnets"][1]["free_addresses"], serde_json::Value::Null);
    }
}
