//! Limits of bandwidth: what the kernel has, that packets pass by it, and every harm that a check finds.

use std::num::NonZeroU64;

use datapath::pod::MadeLink;
use datapath::shaping::{self, Limit, Limits, ShapingError};

use crate::lab::{Namespace, Pod, on_node};

fn limit(rate: u64, burst: Option<u32>) -> Option<Limit> {
    Some(Limit { rate: NonZeroU64::new(rate).unwrap(), burst })
}

/// 1 Mbit/s to the pod and 2 Mbit/s from it.
fn both() -> Limits {
    Limits { to_pod: limit(125_000, None), from_pod: limit(250_000, Some(32_768)) }
}

fn limited(node: &Namespace, limits: &Limits) -> Pod {
    let pod = Pod::planned("a", &["10.0.0.20@main"]);
    node.block_on(async {
        let made: MadeLink = datapath::pod::make(pod.link.clone()).await.unwrap();
        made.furnish().await.unwrap();
        shaping::limit(&made, limits).await.unwrap();
    });
    pod
}

fn check(node: &Namespace, pod: &Pod, limits: &Limits) -> Result<(), ShapingError> {
    let link = &pod.link;
    node.block_on(shaping::check(&link.netns, &link.ifname, &link.host_name, limits))
}

fn qdisc(namespace: &Namespace, device: &str) -> String {
    namespace.exec(&format!("tc -s qdisc show dev {device}"))
}

#[test]
fn limits_are_buckets_at_both_ends_that_packets_pass() {
    on_node(|node| {
        node.ip("link set lo up");
        node.ip("addr add 10.0.0.10/32 dev lo");
        let pod = limited(node, &both());
        let host_name = pod.link.host_name.as_str();
        let ends = || [qdisc(node, host_name), qdisc(&pod.namespace, "eth0")];
        // `tc` prints a queue by the time that it takes: 25 ms and what the burst adds.
        for (end, rate, burst) in ends()
            .iter()
            .zip(["1Mbit", "2Mbit"])
            .zip(["12500b", "32Kb"])
            .map(|((a, b), c)| (a, b, c))
        {
            assert!(end.starts_with("qdisc tbf ") && end.contains(" root "), "{end}");
            assert!(end.contains(&format!("rate {rate} ")), "{end}");
            assert!(end.contains(&format!("burst {burst} ")), "{end}");
        }
        check(node, &pod, &both()).unwrap();
        let n_sent = |end: &String| {
            let sent = end.split("Sent ").nth(1).unwrap();
            sent.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let before = ends().each_ref().map(n_sent);
        assert!(pod.namespace.pings("10.0.0.10"), "{}", node.dump());
        let after = ends().each_ref().map(n_sent);
        assert!(after.iter().zip(before).all(|(after, before)| *after > before), "{:?}", ends());
        // The end of the link is the end of its limits.
        node.block_on(datapath::pod::del(&pod.removal())).unwrap();
        assert!(!node.exec("tc qdisc show").contains("tbf"));
    });
}

#[test]
fn limit_of_one_direction_leaves_the_other_alone() {
    on_node(|node| {
        let to_pod = Limits { to_pod: limit(125_000, None), from_pod: None };
        let pod = limited(node, &to_pod);
        assert!(qdisc(node, pod.link.host_name.as_str()).contains("tbf"));
        assert!(!qdisc(&pod.namespace, "eth0").contains("tbf"));
        check(node, &pod, &to_pod).unwrap();
        check(node, &pod, &Limits::default()).unwrap();
    });
}

/// A rate that does not fit the field for it, and one below a packet a second.
#[test]
fn limits_of_any_size_are_set_and_read() {
    on_node(|node| {
        for rate in [125, 4_294_967_295, 12_500_000_000] {
            let limits = Limits { to_pod: limit(rate, None), from_pod: limit(rate, None) };
            let pod = limited(node, &limits);
            check(node, &pod, &limits).unwrap();
            let pings = pod.namespace.pings("169.254.1.1");
            assert!(!pings, "nobody has this address");
            node.block_on(datapath::pod::del(&pod.removal())).unwrap();
        }
    });
}

#[test]
fn check_finds_each_limit_that_is_gone_or_changed() {
    on_node(|node| {
        let pod = limited(node, &both());
        let host_name = pod.link.host_name.as_str();
        let finds = |device: &str, rate: u64| {
            let error = check(node, &pod, &both()).unwrap_err().to_string();
            assert_eq!(error, format!("{device} has no limit of {rate} bytes per second"));
        };
        let tc = |namespace: &Namespace, arguments: &str| {
            namespace.exec(&format!("tc qdisc {arguments}"))
        };
        tc(node, &format!("replace dev {host_name} root tbf rate 9mbit burst 20k latency 25ms"));
        finds(host_name, 125_000);
        tc(node, &format!("del dev {host_name} root"));
        finds(host_name, 125_000);
        tc(node, &format!("add dev {host_name} root tbf rate 1mbit burst 20k latency 25ms"));
        tc(&pod.namespace, "del dev eth0 root");
        finds("eth0", 250_000);
        tc(&pod.namespace, "add dev eth0 root pfifo");
        finds("eth0", 250_000);
        node.ip(&format!("link del {host_name}"));
        let error = check(node, &pod, &both()).unwrap_err();
        assert!(matches!(error, ShapingError::NoLink { .. }), "{error}");
    });
}

#[test]
fn ipv6_that_is_switched_off_stays_off() {
    on_node(|node| {
        let pod = Pod::planned_in(Namespace::with_ipv6("pod"), "a", &["10.0.0.20@main"]);
        node.block_on(async {
            let made: MadeLink = datapath::pod::make(pod.link.clone()).await.unwrap();
            made.switch_ipv6_off().unwrap();
            made.furnish().await.unwrap();
        });
        for interfaces in ["all", "default", "lo", "eth0"] {
            let key = format!("net/ipv6/conf/{interfaces}/disable_ipv6");
            assert_eq!(pod.namespace.sysctl(&key), "1", "{interfaces}");
        }
        assert_eq!(pod.namespace.ip("-6 addr"), "");
        pod.namespace.ip("link add later type veth peer name later-peer");
        pod.namespace.ip("link set later up");
        assert_eq!(pod.namespace.ip("-6 addr"), "");
        assert_eq!(node.sysctl("net/ipv6/conf/default/disable_ipv6"), "1", "as the lab has set it");
    });
}
