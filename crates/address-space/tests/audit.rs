//! Audits of small inventories: which findings they give.

#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

use address_space::audit::{Audit, Options, audit};
use address_space::inventory::Inventory;
use address_space::map::{self, Marks};
use address_space::{Pods, Quotas, nodes};
use serde_json::{Value, json};

fn inventory(lists: Value) -> Inventory {
    Inventory::parse(&json!({"version": 2, "inventory": lists}).to_string()).unwrap()
}

fn options() -> Options {
    Options {
        warn_at: 80,
        fail_at: 95,
        expected: vec![],
        quotas: Quotas { vpc: 100, peered: 150 },
        pods: Pods::default(),
    }
}

fn place() -> Value {
    json!({"account": "111122223333", "region": "us-east-1"})
}

fn vpc(id: &str, cidr: &str) -> Value {
    json!({"id": id, "place": place(), "cidrs": [cidr]})
}

fn subnet(id: &str, vpc: &str, cidr: &str) -> Value {
    json!({"id": id, "vpc": vpc, "place": place(), "zone": "us-east-1a", "cidr": cidr})
}

/// An interface of `instance` in `subnet` with `n` addresses from `10.0.HIGH.10` on.
fn interface(id: &str, subnet: &str, instance: Option<&str>, high: u8, n: u8) -> Value {
    let addresses: Vec<_> = (0..n).map(|low| format!("10.0.{high}.{}", low + 10)).collect();
    let attachment = instance.map(|id| json!({"instance": id, "device_index": 0}));
    json!({"id": id, "subnet": subnet, "kind": "interface", "addresses": addresses, "attachment": attachment})
}

/// Severity, code and subject of each finding.
fn findings(audit: &Audit) -> Vec<String> {
    let text = |one: &address_space::audit::Finding| {
        format!("{} {} {}", one.severity.as_str(), one.code, one.subject)
    };
    audit.findings.iter().map(text).collect()
}

#[test]
fn peered_vpcs_share_a_quota_and_may_not_overlap() {
    let check = |peerings: Value, expect: &[&str]| {
        let inventory = inventory(json!({
            "vpcs": [vpc("vpc-a", "10.0.0.0/16"), vpc("vpc-b", "10.0.0.0/20"), vpc("vpc-c", "10.7.0.0/16")],
            "subnets": [subnet("subnet-a", "vpc-a", "10.0.0.0/22"), subnet("subnet-b", "vpc-b", "10.0.8.0/22"),
                subnet("subnet-c", "vpc-c", "10.7.0.0/22")],
            "interfaces": [interface("eni-a", "subnet-a", None, 0, 90), interface("eni-b", "subnet-b", None, 8, 70)],
            "peerings": peerings,
        }));
        assert_eq!(findings(&audit(&inventory, &options())), expect, "{peerings}");
    };
    let alone = ["warning overlap vpc-a vpc-b", "warning network_usage vpc-a"];
    check(json!([]), &alone);
    let peering = |one: &str, other: &str| json!({"id": "pcx-1", "vpcs": [one, other]});
    check(
        json!([peering("vpc-a", "vpc-b")]),
        &[
            "failure overlap_connected vpc-a vpc-b",
            "failure network_usage vpc-a",
            "failure network_usage vpc-b",
            "warning network_usage vpc-a",
        ],
    );
    // A peer outside of the inventory.
    check(json!([peering("vpc-a", "vpc-elsewhere")]), &alone);
}

#[test]
fn peer_in_another_region_has_a_quota_of_its_own() {
    let mut far = vpc("vpc-b", "10.1.0.0/16");
    far["place"]["region"] = json!("eu-west-1");
    let inventory = inventory(json!({
        "vpcs": [vpc("vpc-a", "10.0.0.0/16"), far],
        "subnets": [subnet("subnet-a", "vpc-a", "10.0.0.0/22")],
        "interfaces": [interface("eni-a", "subnet-a", None, 0, 90)],
        "peerings": [{"id": "pcx-1", "vpcs": ["vpc-a", "vpc-b"]}],
    }));
    let usage: Vec<_> = audit(&inventory, &options())
        .vpcs
        .into_iter()
        .map(|vpc| (vpc.network_usage.units, vpc.network_usage.peered_units))
        .collect();
    assert_eq!(usage, [(90, 90), (0, 0)]);
}

#[test]
fn pool_names_its_rules_that_are_broken() {
    let allocation = |cidr: &str, resource: &str, region: &str| json!({"cidr": cidr, "kind": "vpc", "resource": resource, "region": region});
    let mut tagged = vpc("vpc-a", "10.0.0.0/16");
    tagged["tags"] = json!({"team": "blue"});
    let inventory = inventory(json!({
        "vpcs": [tagged, vpc("vpc-b", "10.1.0.0/17")],
        "pools": [{
            "id": "ipam-pool-1", "place": place(), "scope": "ipam-scope-1", "locale": "us-east-1",
            "rules": {"min_netmask": 16, "max_netmask": 16, "tags": {"team": "blue"}},
            "cidrs": ["10.0.0.0/14"],
            "allocations": [allocation("10.0.0.0/16", "vpc-a", "us-east-1"), allocation("10.1.0.0/17", "vpc-b", "us-west-2"),
                {"cidr": "10.2.0.0/15", "kind": "ipam-pool"}],
        }],
    }));
    let audit = audit(&inventory, &options());
    let pool = &audit.pools[0];
    assert_eq!((pool.provisioned, pool.allocated, pool.percent), (262_144, 229_376, 87));
    let expect = [
        "vpc-b: 10.1.0.0/17 is smaller than the /16 that the pool allows",
        "vpc-b: 10.1.0.0/17 is in us-west-2, and the pool is for us-east-1",
        "vpc-b: lacks the tag team=blue",
    ];
    assert_eq!(pool.broken_rules, expect);
    assert_eq!(findings(&audit)[0], "warning pool_full ipam-pool-1");
}

#[test]
fn interface_of_an_instance_that_is_gone_is_named() {
    let mut left = interface("eni-left", "subnet-a", None, 0, 1);
    left["tags"] = json!({"node.k8s.amazonaws.com/instance_id": "i-gone"});
    let mut lists = json!({
        "vpcs": [vpc("vpc-a", "10.0.0.0/16")], "subnets": [subnet("subnet-a", "vpc-a", "10.0.0.0/22")],
        "interfaces": [left], "instances": [{"id": "i-here", "instance_type": "m5.large"}],
    });
    assert_eq!(
        findings(&audit(&inventory(lists.clone()), &options())),
        ["notice left_behind eni-left"]
    );
    lists["instances"][0]["id"] = json!("i-gone");
    assert_eq!(findings(&audit(&inventory(lists.clone()), &options())).len(), 0);
    // Instances may not be readable.
    lists["instances"] = json!([]);
    assert_eq!(findings(&audit(&inventory(lists), &options())).len(), 0);
}

#[test]
fn node_holds_what_all_its_interfaces_have() {
    let mut second = interface("eni-2", "subnet-b", Some("i-1"), 9, 3);
    second["attachment"]["device_index"] = json!(1);
    second["description"] = json!("aws-K8S-i-1");
    second["tags"] = json!({"cluster.k8s.amazonaws.com/name": "blue"});
    second["prefixes"] = json!(["10.0.9.32/28", "2600::/80"]);
    let lists = json!({
        "interfaces": [interface("eni-1", "subnet-a", Some("i-1"), 0, 5), second, interface("eni-3", "subnet-a", Some("i-2"), 1, 5)],
        "instances": [
            {"id": "i-1", "instance_type": "m5.large", "private_dns_name": "ip-1.ec2.internal", "tags": {"kubernetes.io/cluster/blue": "owned"}},
            {"id": "i-2", "instance_type": "m5.large"}],
    });
    let found = |pods: Pods| {
        let nodes = nodes(&inventory(lists.clone()), &pods);
        assert_eq!(nodes.len(), 1, "{nodes:?}");
        nodes.into_iter().next().unwrap()
    };
    let node = found(Pods::default());
    assert_eq!((node.n_enis, node.own, node.single, node.prefixes), (2, 2, 6, 1));
    assert_eq!(
        (&*node.cluster, node.subnet.as_str(), node.held(), node.idle()),
        ("blue", "subnet-a", 22, None)
    );
    let by_name =
        Pods { by_node: [("ip-1.ec2.internal".to_owned(), 20)].into(), otherwise: Some(1) };
    assert_eq!(found(by_name).idle(), Some(2));
    assert_eq!(found(Pods { otherwise: Some(1), ..Pods::default() }).idle(), Some(21));
}

#[test]
fn map_has_a_bound_and_takes_any_name() {
    let vpcs = (0..400).map(|n| {
        let mut vpc = vpc(&format!("vpc-{n}"), &format!("10.{}.{}.0/24", n / 200, n % 200));
        vpc["tags"] = json!({"Name": "<script>&"});
        vpc
    });
    let marks = Marks { warn_at: 80, fail_at: 95 };
    let draw =
        |vpcs: &[Value]| map::svg(&audit(&inventory(json!({"vpcs": vpcs})), &options()), marks);
    let mut vpcs: Vec<_> = vpcs.collect();
    let all = draw(&vpcs);
    assert!(all.contains("(250 more are not shown)") && !all.contains("<script"), "{}", all.len());
    // Overlaps come first, whatever their addresses are.
    vpcs.extend([vpc("vpc-y", "192.168.0.0/16"), vpc("vpc-z", "192.168.0.0/20")]);
    assert_eq!(draw(&vpcs).matches(r#"class="edge""#).count(), 1);
    let (one, other) = (vpc("vpc-a", "10.0.0.0/16"), vpc("vpc-b", "10.0.128.0/17"));
    assert_eq!(draw(&[one.clone(), other]).matches(r#"class="edge""#).count(), 1);
    assert_eq!(draw(&[one]).matches(r#"class="edge""#).count(), 0);
    assert!(draw(&[]).ends_with("</svg>\n"));
}
