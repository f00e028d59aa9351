//! Plans: where everything goes, what is wrong, and what is made of it.

#![expect(clippy::unwrap_used, reason = "a panic is a test's report")]

use std::collections::BTreeSet;

use address_space::design::diff::diff;
use address_space::design::export::{commands, terraform};
use address_space::design::steps::{Make, Mark, Next, Scope, after, marks, steps};
use address_space::design::{Design, Intent, NodeNeed, lay_out};
use address_space::inventory::{Inventory, Reservation, ReservationKind};
use ipam::call::{CallError, CallErrorKind};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Each node holds ten addresses and two prefixes.
fn laid(intent: Value) -> Design {
    let intent: Intent = serde_json::from_value(intent).unwrap();
    lay_out(&intent, &mut |_| Ok(NodeNeed { single: 10, prefixes: 2 }))
}

fn cluster(name: &str, nodes: u64) -> Value {
    json!({"name": name, "instance_type": "m5.large", "nodes": nodes, "pods_per_node": 5, "growth_percent": 50})
}

fn vpc(name: &str, clusters: &[Value]) -> Value {
    json!({"name": name, "zones": ["a", "b"], "clusters": clusters})
}

fn pool(name: &str, vpcs: &[Value]) -> Value {
    json!({"name": name, "region": "eu-central-1", "environment": "prod", "vpcs": vpcs})
}

fn plan(pools: &[Value]) -> Value {
    json!({"space": ["10.0.0.0/8"], "reserved": [{"cidr": "10.0.0.0/12", "why": "VPN"}],
        "on_premises": [{"cidr": "10.16.0.0/16"}], "pools": pools})
}

fn codes(design: &Design) -> Vec<(&str, &str)> {
    design.findings.iter().map(|one| (one.code, one.subject.as_str())).collect()
}

#[test]
fn subnets_hold_the_nodes_of_the_horizon() {
    let design = laid(plan(&[pool("eu", &[vpc("shop", &[cluster("blue", 10)])])]));
    assert_eq!(codes(&design), []);
    let pool = &design.pools[0];
    // 10, 15, 23, 35 nodes: 18 in a zone and one while they are replaced, with 42 addresses each; 20 others.
    let subnet = &pool.vpcs[0].subnets[0];
    assert_eq!((subnet.need, subnet.lasts_years), ([272, 818], 3));
    let ranges = [pool.cidr, pool.vpcs[0].cidr, subnet.cidr].map(|net| net.to_string());
    assert_eq!(ranges, ["10.17.0.0/21", "10.17.0.0/21", "10.17.0.0/22"]);
    // 38 prefixes, and one for the last /28, which AWS has an address in.
    let reserved: Vec<_> = subnet.for_prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(reserved, ["10.17.2.0/23", "10.17.1.192/26", "10.17.1.160/27", "10.17.1.144/28"]);
    assert_eq!((subnet.name.as_str(), subnet.zone.as_str()), ("blue-a", "eu-central-1a"));
}

#[test]
fn what_cannot_be_is_a_failure_with_a_cure() {
    let check = |plan: Value, expect: &[(&str, &str)]| {
        let design = laid(plan.clone());
        assert_eq!(codes(&design), expect, "{plan}\n{:#?}", design.findings);
    };
    let with = |key: &str, value: Value| {
        let mut pool = pool("eu", &[]);
        pool[key] = value;
        plan(&[pool])
    };
    check(with("cidr", json!("10.32.0.0/16")), &[]);
    check(with("cidr", json!("10.1.0.0/16")), &[("overlap", "eu")]);
    check(with("cidr", json!("10.16.0.0/16")), &[("overlap", "eu")]);
    check(with("cidr", json!("192.168.0.0/16")), &[("overlap", "eu")]);
    check(with("cidr", json!("10.32.0.1/16")), &[("unaligned", "eu")]);
    check(with("size", json!("/7")), &[("no_room", "eu")]);
    check(with("name", json!("$(reboot)")), &[("bad_name", "$(reboot)")]);
    check(plan(&[pool("eu", &[]), pool("eu", &[])]), &[("bad_name", "eu")]);
    let mut small = vpc("shop", &[cluster("blue", 10)]);
    small["clusters"][0]["subnet_size"] = json!("/23");
    check(plan(&[pool("eu", &[small.clone()])]), &[("too_small", "eu/shop/blue")]);
    small["clusters"][0]["subnet_size"] = json!("/24");
    check(plan(&[pool("eu", &[small.clone()])]), &[("too_small", "eu/shop/blue")]);
    small["clusters"][0]["subnet_size"] = json!("/22");
    small["cidr"] = json!("10.32.0.0/22");
    let mut fixed = pool("eu", &[small]);
    fixed["cidr"] = json!("10.32.0.0/16");
    check(plan(&[fixed]), &[("too_small", "eu/shop"), ("no_room", "eu/shop/blue-b")]);
    let huge = plan(&[pool("eu", &[vpc("shop", &[cluster("blue", 2000)])])]);
    check(huge, &[("subnet_too_large", "eu/shop/blue"), ("vpc_too_large", "eu/shop")]);
}

#[test]
fn commands_and_terraform_name_every_range_once() {
    let design =
        laid(plan(&[pool("eu", &[vpc("shop", &[cluster("blue", 4), cluster("red", 4)])])]));
    let script = commands(&design, None);
    let terraform = terraform(&design, Some("ipam-scope-1"));
    let resource = |kind: &str| terraform["resource"][kind].as_object().unwrap().len();
    assert_eq!(
        (resource("aws_vpc"), resource("aws_subnet"), resource("aws_vpc_ipam_pool")),
        (1, 4, 1)
    );
    assert_eq!(
        terraform["resource"]["aws_subnet"]["eu_shop_blue-a"]["vpc_id"],
        "${aws_vpc.eu_shop.id}"
    );
    assert_eq!(
        terraform["resource"]["aws_vpc"]["eu_shop"]["depends_on"][0],
        "aws_vpc_ipam_pool_cidr.eu"
    );
    for subnet in &design.pools[0].vpcs[0].subnets {
        assert_eq!(
            script.matches(&format!("--cidr-block {} ", subnet.cidr)).count(),
            1,
            "{script}"
        );
        for range in &subnet.for_prefixes {
            assert_eq!(script.matches(&format!("--cidr {range} ")).count(), 1, "{script}");
        }
    }
    assert!(
        script.contains(
            "Tags=[{Key=Name,Value=shop},{Key=environment,Value=prod},{Key=pool,Value=eu},{Key=tidepool/plan,Value=eu/shop}]"
        )
    );
}

#[test]
fn difference_names_what_is_missing_and_what_collides() {
    let design =
        laid(plan(&[pool("eu", &[vpc("shop", &[cluster("blue", 4)]), vpc("billing", &[])])]));
    let check = |change: &dyn Fn(&mut address_space::inventory::Inventory),
                 expect: &[(&str, &str)]| {
        let mut inventory = design.inventory();
        change(&mut inventory);
        let found = diff(&design, &inventory);
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.kind.as_str(), one.subject.as_str()))
            .filter(|(kind, _)| *kind != "same")
            .collect();
        assert_eq!(found, expect);
    };
    check(&|_| {}, &[]);
    check(
        &|real| {
            real.subnets.remove(0);
        },
        &[("missing", "eu/shop/blue-a")],
    );
    check(
        &|real| real.vpcs.retain(|vpc| vpc.tags["Name"] != "billing"),
        &[("missing", "eu/billing")],
    );
    check(
        &|real| real.vpcs[1].cidrs = vec!["10.99.0.0/16".parse().unwrap()],
        &[("differs", "eu/billing")],
    );
    check(
        &|real| real.vpcs[1].tags.clear(),
        &[("collides", "vpc-eu-billing"), ("missing", "eu/billing")],
    );
    check(
        &|real| real.vpcs[1].place.region = "us-east-1".to_owned(),
        &[("collides", "vpc-eu-billing"), ("missing", "eu/billing")],
    );
    check(
        &|real| {
            let mut other = real.vpcs[1].clone();
            other.id = "vpc-other".try_into().unwrap();
            other.cidrs = vec!["192.168.0.0/16".parse().unwrap()];
            other.tags.clear();
            real.vpcs.push(other);
        },
        &[("unplanned", "vpc-other")],
    );
}

/// A range that EC2 has reserved in a subnet.
fn reservation(cidr: ipnet::Ipv4Net, kind: ReservationKind) -> Reservation {
    Reservation { cidr: cidr.into(), kind }
}

/// What is there once all of the design is made.
fn made(design: &Design) -> Inventory {
    let mut inventory = design.inventory();
    let planned = design.pools[0].vpcs[0].subnets.iter();
    for (real, planned) in inventory.subnets.iter_mut().zip(planned) {
        let ranges = planned.for_prefixes.iter();
        real.reservations =
            ranges.map(|cidr| reservation(*cidr, ReservationKind::Prefix)).collect();
    }
    inventory
}

#[test]
fn step_is_done_missing_or_blocked() {
    let mut one_zone = vpc("shop", &[cluster("blue", 4)]);
    one_zone["zones"] = json!(["a"]);
    let design = laid(plan(&[pool("eu", &[one_zone])]));
    let steps = steps(&design, None);
    // The VPC, its subnet, and the first two reservations.
    let check = |change: &dyn Fn(&mut Inventory), expect: [&str; 4]| {
        let mut inventory = made(&design);
        change(&mut inventory);
        let found = marks(&steps, &inventory);
        for (mark, expect) in found.iter().zip(expect) {
            let text = match mark {
                Mark::Done(_) => "done",
                Mark::Missing => "missing",
                Mark::Blocked(why) => why.as_str(),
            };
            assert!(text.contains(expect), "{text}, not {expect}: {found:?}");
        }
    };
    const ALL: [&str; 4] = ["done"; 4];
    const NONE: [&str; 4] = ["missing"; 4];
    const PART: &str = "belongs to";
    let range = |text: &str| text.parse::<ipnet::Ipv4Net>().unwrap();
    let tag = |value: &str| [("tidepool/plan".to_owned(), value.to_owned())];
    check(&|_| {}, ALL);
    check(&|real| *real = Inventory::default(), NONE);
    check(&|real| real.subnets.clear(), ["done", "missing", "missing", "missing"]);
    check(&|real| real.subnets[0].reservations.truncate(1), ["done", "done", "done", "missing"]);
    // By its own tag, whatever its name is now; and not if it is another's.
    check(
        &|real| {
            real.vpcs[0].tags = tag("eu/shop").into();
        },
        ALL,
    );
    check(&|real| real.vpcs[0].tags.extend(tag("us/shop")), ["which overlaps", PART, PART, PART]);
    check(&|real| real.vpcs[0].tags.clear(), ["which overlaps", PART, PART, PART]);
    check(
        &|real| real.vpcs[0].cidrs = vec![range("10.99.0.0/16").into()],
        ["10.99.0.0/16 where", PART, PART, PART],
    );
    check(
        &|real| {
            let mut second = real.vpcs[0].clone();
            second.id = "vpc-second".try_into().unwrap();
            real.vpcs.push(second);
        },
        ["vpc-eu-shop and vpc-second have", PART, PART, PART],
    );
    check(
        &|real| real.subnets[0].zone = "eu-central-1b".to_owned(),
        ["done", "eu-central-1b where eu-central-1a is planned", PART, PART],
    );
    check(
        &|real| real.subnets[0].reservations[0].kind = ReservationKind::Explicit,
        ["done", "done", "which overlaps", "done"],
    );
}

#[test]
fn pool_is_found_by_scope_and_tag() {
    let design = laid(plan(&[pool("eu", &[vpc("shop", &[])])]));
    let scope = Scope { id: "ipam-scope-1".to_owned(), region: "us-east-1".to_owned() };
    let steps = steps(&design, Some(&scope));
    let regions: Vec<_> = steps.iter().map(|step| step.region.as_str()).collect();
    assert_eq!(regions, ["us-east-1", "us-east-1", "eu-central-1"]);
    let check = |change: &dyn Fn(&mut Vec<address_space::inventory::Pool>), expect: [&str; 3]| {
        let mut real = vec![address_space::inventory::Pool {
            id: "ipam-pool-1".to_owned(),
            place: address_space::inventory::Place::default(),
            scope: scope.id.clone(),
            source: None,
            locale: Some("eu-central-1".to_owned()),
            rules: address_space::inventory::PoolRules::default(),
            cidrs: vec![design.pools[0].cidr.into()],
            allocations: vec![],
            tags: [("tidepool/plan".to_owned(), "eu".to_owned())].into(),
        }];
        change(&mut real);
        let inventory = Inventory { pools: real, ..Inventory::default() };
        for (mark, expect) in marks(&steps, &inventory).iter().zip(expect) {
            let text = format!("{mark:?}");
            assert!(text.contains(expect), "{text}, not {expect}");
        }
    };
    const ID: &str = "Done(\"ipam-pool-1\")";
    check(&|_| {}, [ID, ID, "Missing"]);
    check(&|real| real.clear(), ["Missing", "Missing", "Missing"]);
    check(&|real| real[0].scope = "ipam-scope-2".to_owned(), ["Missing", "Missing", "Missing"]);
    check(&|real| real[0].cidrs.clear(), [ID, "Missing", "Missing"]);
    check(&|real| real[0].locale = None, ["is not for eu-central-1", "Blocked", "Blocked"]);
    check(
        &|real| {
            let mut second = real[0].clone();
            second.id = "ipam-pool-2".to_owned();
            real.push(second);
        },
        ["ipam-pool-1 and ipam-pool-2", "Blocked", "Blocked"],
    );
    let half =
        ipnet::Ipv4Net::new(design.pools[0].cidr.network(), design.pools[0].cidr.prefix_len() + 1)
            .unwrap();
    check(&|real| real[0].cidrs = vec![half.into()], [ID, "which overlaps", "Blocked"]);
}

#[test]
fn failed_call_is_repeated_only_if_nothing_is_made() {
    let check = |code: &str, kind, is_open, expect| {
        let error = CallError { kind, code: code.to_owned(), message: String::new() };
        assert_eq!(after(&error, is_open), expect, "{code} {kind:?} {is_open}");
    };
    for is_open in [false, true] {
        check("RequestLimitExceeded", CallErrorKind::Throttled, is_open, Next::Repeat);
        check("InvalidVpcID.NotFound", CallErrorKind::Lasting, is_open, Next::Repeat);
        check("InternalError", CallErrorKind::OutcomeUnknown, is_open, Next::Look);
        check("UnauthorizedOperation", CallErrorKind::AccessDenied, is_open, Next::Stop);
    }
    check("InvalidSubnet.Conflict", CallErrorKind::Lasting, false, Next::Stop);
    check("InvalidSubnet.Conflict", CallErrorKind::Lasting, true, Next::Look);
}

#[test]
fn step_comes_after_what_it_is_inside_of() {
    let design = laid(plan(&[pool(
        "eu",
        &[vpc("a", &[cluster("blue", 4)]), vpc("b", &[cluster("blue", 4)])],
    )]));
    let steps = steps(&design, None);
    for (n, step) in steps.iter().enumerate() {
        let before = match &step.make {
            Make::Vpc { .. } | Make::Pool { .. } => continue,
            Make::PoolRange { pool, .. } => *pool,
            Make::Subnet { vpc, .. } => *vpc,
            Make::Reservation { subnet, .. } => *subnet,
        };
        assert!(before < n && step.subject.starts_with(&steps[before].subject), "{step:?}");
    }
    let subjects: BTreeSet<_> = steps.iter().map(|step| &step.subject).collect();
    assert_eq!(subjects.len(), steps.len(), "two steps have one subject");
}

proptest! {
    /// Whatever is laid out is inside of what it draws from, and overlaps nothing.
    #[test]
    fn laid_ranges_are_nested_and_disjoint(nodes in proptest::collection::vec(proptest::collection::vec(0_u64..400, 0..4), 0..6)) {
        let pools: Vec<_> = nodes.iter().enumerate().map(|(n, clusters)| {
            let clusters: Vec<_> = clusters.iter().enumerate().map(|(c, nodes)| cluster(&format!("c{c}"), *nodes)).collect();
            pool(&format!("p{n}"), &[vpc("v", &clusters), vpc("w", &clusters[..clusters.len().min(1)])])
        }).collect();
        let design = laid(plan(&pools));
        let taken: BTreeSet<_> = ["10.0.0.0/12", "10.16.0.0/16"].map(|net| net.parse::<ipnet::Ipv4Net>().unwrap()).into();
        let apart = |nets: &[ipnet::Ipv4Net]| nets.iter().enumerate().all(|(n, one)| {
            nets[n + 1..].iter().all(|other| !one.contains(other) && !other.contains(one))
        });
        let own: Vec<_> = design.pools.iter().map(|pool| pool.cidr).chain(taken).collect();
        prop_assert!(apart(&own), "{:?}", own);
        for pool in &design.pools {
            let vpcs: Vec<_> = pool.vpcs.iter().map(|vpc| vpc.cidr).collect();
            prop_assert!(apart(&vpcs) && vpcs.iter().all(|net| pool.cidr.contains(net)));
            for vpc in &pool.vpcs {
                let subnets: Vec<_> = vpc.subnets.iter().map(|subnet| subnet.cidr).collect();
                prop_assert!(apart(&subnets) && subnets.iter().all(|net| vpc.cidr.contains(net)));
                for subnet in &vpc.subnets {
                    let size = |net: &ipnet::Ipv4Net| 1_u64 << (32 - net.prefix_len());
                    let reserved: u64 = subnet.for_prefixes.iter().map(size).sum();
                    let nodes = (subnet.need[1] - 20) / 42;
                    prop_assert!(reserved >= 16 * (2 * nodes + 1), "room for the prefixes: {:?}", subnet);
                    prop_assert!(size(&subnet.cidr) - reserved >= 10 * nodes + 20 + 4, "room for the others: {:?}", subnet);
                    prop_assert!(apart(&subnet.for_prefixes));
                    prop_assert!(subnet.for_prefixes.iter().all(|net| subnet.cidr.contains(net)));
                }
            }
        }
    }
}
