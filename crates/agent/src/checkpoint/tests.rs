//! Samples as the incumbent writes them, damaged ones, and arbitrary ones.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// As the incumbent writes it: one pod on IPv4, one on IPv6, one that was there before it recorded
/// names, and one from before it had a file at all.
pub(super) const SAMPLE: &str = r#"{"version":"vpc-cni-ipam/1","allocations":[{"networkName":"aws-cni","containerID":"4b1c","ifName":"eth0","ipv4":"10.0.12.34","allocationTimestamp":1718000000123456789,"metadata":{"k8sPodNamespace":"default","k8sPodName":"web-0","interfacesCount":1}},{"networkName":"aws-cni","containerID":"77aa","ifName":"eth0","ipv6":"2001:db8:0:1:2::","allocationTimestamp":1718000000223456789,"metadata":{"k8sPodNamespace":"default","k8sPodName":"web-1","interfacesCount":1}},{"networkName":"aws-cni","containerID":"88bb","ifName":"eth0","ipv4":"10.0.12.35","allocationTimestamp":1718000000323456789,"metadata":{}},{"networkName":"_migrated-from-cri","containerID":"99cc","ifName":"unknown","ipv4":"10.0.12.36","allocationTimestamp":0,"metadata":{}}]}
"#;

fn allocation(
    (network, container, ifname): (&str, &str, &str),
    address: &str,
    since_ns: i64,
    (namespace, pod, interfaces): (&str, &str, u32),
) -> Allocation {
    Allocation {
        key: AttachmentKey {
            network: network.into(),
            container: container.into(),
            ifname: ifname.into(),
        },
        address: address.parse().unwrap(),
        since_ns,
        namespace: namespace.into(),
        pod: pod.into(),
        interfaces,
    }
}

fn sample() -> Vec<Allocation> {
    let key = |container| ("aws-cni", container, "eth0");
    vec![
        allocation(key("4b1c"), "10.0.12.34", 1_718_000_000_123_456_789, ("default", "web-0", 1)),
        allocation(
            key("77aa"),
            "2001:db8:0:1:2::",
            1_718_000_000_223_456_789,
            ("default", "web-1", 1),
        ),
        allocation(key("88bb"), "10.0.12.35", 1_718_000_000_323_456_789, ("", "", 0)),
        allocation(("_migrated-from-cri", "99cc", "unknown"), "10.0.12.36", 0, ("", "", 0)),
    ]
}

#[test]
fn what_the_incumbent_writes_is_read_and_written() {
    assert_eq!(parse(SAMPLE.as_bytes()).unwrap(), sample());
    assert_eq!(write(&sample()), SAMPLE);
    assert_eq!(write(&[]), "{\"version\":\"vpc-cni-ipam/1\",\"allocations\":[]}\n");
}

#[test]
fn what_the_incumbent_tolerates_is_tolerated() {
    for none in
        [r#"{"version":"vpc-cni-ipam/1"}"#, r#"{"version":"vpc-cni-ipam/1","allocations":null}"#]
    {
        assert_eq!(parse(none.as_bytes()).unwrap(), []);
    }
    let odd = r#" { "later": [1], "allocations": [ {"ipv4": "10.0.0.9", "containerID": "a",
        "containerID": "c1", "ipv6": "", "networkName": null, "metadata": null, "new": {}} ],
        "version": "vpc-cni-ipam/1" } "#;
    let expect = allocation(("", "c1", ""), "10.0.0.9", 0, ("", "", 0));
    assert_eq!(parse(odd.as_bytes()).unwrap(), [expect]);
}

#[test]
fn what_would_be_dangerous_is_refused_by_entry_and_field() {
    let check = |old: &str, new: &str, expect: &str| {
        assert!(SAMPLE.contains(old), "{old}");
        let fault = parse(SAMPLE.replace(old, new).as_bytes()).unwrap_err();
        assert_eq!(fault.to_string(), expect);
    };
    check("ipam/1", "ipam/2", r#"version: "vpc-cni-ipam/2" is not "vpc-cni-ipam/1""#);
    check(
        "10.0.12.35",
        "10.0.12.34",
        "allocations[2].ipv4: 10.0.12.34 is that of allocations[0] too",
    );
    let double = "allocations[2].containerID: 4b1c/eth0 is that of allocations[0] too";
    check("88bb", "4b1c", double);
    let (named, nameless) =
        (r#""networkName":"aws-cni","containerID":"88bb""#, r#""containerID":"4b1c""#);
    check(named, nameless, double);
    check("88bb", "", "allocations[2].containerID: it is empty, so no DEL would find it");
    check(
        "10.0.12.35",
        "10.0.12.350",
        r#"allocations[2].ipv4: "10.0.12.350" is no address of that family"#,
    );
    check(
        "2001:db8:0:1:2::",
        "10.0.12.37",
        r#"allocations[1].ipv6: "10.0.12.37" is no address of that family"#,
    );
    for bad in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.1.1", "255.255.255.255"] {
        check("10.0.12.34", bad, &format!("allocations[0].ipv4: {bad} cannot be a pod's"));
    }
    for bad in ["::", "::1", "ff02::1", "fe80::1", "::ffff:10.0.12.37"] {
        check("2001:db8:0:1:2::", bad, &format!("allocations[1].ipv6: {bad} cannot be a pod's"));
    }
    check(r#""ipv4":"10.0.12.35","#, "", "allocations[2].ipv4: neither it nor ipv6 is there");
    check(
        r#""ipv4":"10.0.12.35""#,
        r#""ipv4":"10.0.12.35","ipv6":"2001:db8::1""#,
        "allocations[2].ipv6: ipv4 is there too",
    );
    check(r#""10.0.12.35""#, "7", "allocations[2].ipv4: 7 is no text");
    check(
        "1718000000323456789",
        "1e99",
        "allocations[2].allocationTimestamp: 1e+99 is no whole number of 64 bits",
    );
    check(
        r#""web-0","interfacesCount":1"#,
        r#""web-0","interfacesCount":-1"#,
        "allocations[0].metadata.interfacesCount: -1 is no count",
    );
    check(r#""metadata":{}}]"#, r#""metadata":[]}]"#, "allocations[3].metadata: [] is no object");
    for (text, expect) in [
        ("[]", "the checkpoint: [] is no object"),
        ("{}", r#"version: "" is not "vpc-cni-ipam/1""#),
        (r#"{"version":"vpc-cni-ipam/1","allocations":{}}"#, "allocations: {} is no list"),
        (
            r#"{"version":"vpc-cni-ipam/1","allocations":[true]}"#,
            "allocations[0]: true is no object",
        ),
    ] {
        assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), expect);
    }
}

#[test]
fn a_file_that_was_cut_off_is_refused() {
    for n in 0..SAMPLE.trim_end().len() {
        let fault = parse(&SAMPLE.as_bytes()[..n]).unwrap_err();
        assert!(matches!(fault, CheckpointError::Json(_)), "after {n} bytes: {fault}");
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits)));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits)));
    prop_oneof![v4, v6].prop_filter("a pod's", |address| can_be_a_pods(*address))
}

prop_compose! {
    fn any_allocation()(
        (network, container, ifname) in (".*", ".+", ".*"),
        address in any_address(),
        since_ns: i64,
        (namespace, pod) in (".*", ".*"),
        interfaces: u32,
    ) -> Allocation {
        let key = AttachmentKey { network: network.into(), container, ifname };
        Allocation { key, address, since_ns, namespace, pod, interfaces }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(allocations in prop::collection::vec(any_allocation(), 0..20)) {
        let unique = refuse_doubles(&allocations).is_ok();
        let read = parse(write(&allocations).as_bytes());
        prop_assert_eq!(read.ok(), unique.then_some(allocations));
    }
}
