//! Checkpoints as the incumbent writes them, damaged checkpoints, and arbitrary ones.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// A checkpoint as the incumbent writes it. It has a pod with IPv4 and a pod with IPv6. It also has a
/// pod from before the incumbent recorded names, and a pod from before it kept a file.
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
fn incumbents_checkpoint_is_read_and_written_unchanged() {
    assert_eq!(parse(SAMPLE.as_bytes()).unwrap(), sample());
    assert_eq!(write(&sample()), SAMPLE);
    assert_eq!(write(&[]), "{\"version\":\"vpc-cni-ipam/1\",\"allocations\":[]}\n");
}

#[test]
fn parse_tolerates_what_the_incumbent_tolerates() {
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
fn parse_of_dangerous_value_names_entry_and_field() {
    let check = |old: &str, new: &str, expect: &str| {
        assert!(SAMPLE.contains(old), "{old}");
        let fault = parse(SAMPLE.replace(old, new).as_bytes()).unwrap_err();
        assert_eq!(fault.to_string(), expect);
    };
    check("ipam/1", "ipam/2", r#"version: "vpc-cni-ipam/2" is not "vpc-cni-ipam/1""#);
    check("10.0.12.35", "10.0.12.34", "allocations[2].ipv4: 10.0.12.34 is also in allocations[0]");
    let duplicate = "allocations[2].containerID: 4b1c/eth0 is also in allocations[0]";
    check("88bb", "4b1c", duplicate);
    let (named, nameless) =
        (r#""networkName":"aws-cni","containerID":"88bb""#, r#""containerID":"4b1c""#);
    check(named, nameless, duplicate);
    check("88bb", "", "allocations[2].containerID: it is empty, so no DEL could name it");
    check(
        "10.0.12.35",
        "10.0.12.350",
        r#"allocations[2].ipv4: "10.0.12.350" is not an address of this family"#,
    );
    check(
        "2001:db8:0:1:2::",
        "10.0.12.37",
        r#"allocations[1].ipv6: "10.0.12.37" is not an address of this family"#,
    );
    for bad in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.1.1", "255.255.255.255"] {
        check("10.0.12.34", bad, &format!("allocations[0].ipv4: {bad} cannot be a pod's address"));
    }
    for bad in ["::", "::1", "ff02::1", "fe80::1", "::ffff:10.0.12.37"] {
        check(
            "2001:db8:0:1:2::",
            bad,
            &format!("allocations[1].ipv6: {bad} cannot be a pod's address"),
        );
    }
    check(r#""ipv4":"10.0.12.35","#, "", "allocations[2].ipv4: both ipv4 and ipv6 are missing");
    check(
        r#""ipv4":"10.0.12.35""#,
        r#""ipv4":"10.0.12.35","ipv6":"2001:db8::1""#,
        "allocations[2].ipv6: both ipv4 and ipv6 are present",
    );
    check(r#""10.0.12.35""#, "7", "allocations[2].ipv4: 7 is not a text");
    check(
        "1718000000323456789",
        "1e99",
        "allocations[2].allocationTimestamp: 1e+99 is not a whole number of 64 bits",
    );
    check(
        r#""web-0","interfacesCount":1"#,
        r#""web-0","interfacesCount":-1"#,
        "allocations[0].metadata.interfacesCount: -1 is not a count",
    );
    check(
        r#""metadata":{}}]"#,
        r#""metadata":[]}]"#,
        "allocations[3].metadata: [] is not an object",
    );
    for (text, expect) in [
        ("[]", "the checkpoint: [] is not an object"),
        ("{}", r#"version: "" is not "vpc-cni-ipam/1""#),
        (r#"{"version":"vpc-cni-ipam/1","allocations":{}}"#, "allocations: {} is not a list"),
        (
            r#"{"version":"vpc-cni-ipam/1","allocations":[true]}"#,
            "allocations[0]: true is not an object",
        ),
    ] {
        assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), expect);
    }
}

#[test]
fn parse_of_truncated_checkpoint_fails() {
    for n in 0..SAMPLE.trim_end().len() {
        let fault = parse(&SAMPLE.as_bytes()[..n]).unwrap_err();
        assert!(matches!(fault, CheckpointError::Json(_)), "after {n} bytes: {fault}");
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits)));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits)));
    prop_oneof![v4, v6].prop_filter("a pod's address", |address| is_pod_address(*address))
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
    fn written_allocations_parse_back(allocations in prop::collection::vec(any_allocation(), 0..20)) {
        let unique = refuse_duplicates(&allocations).is_ok();
        let read = parse(write(&allocations).as_bytes());
        prop_assert_eq!(read.ok(), unique.then_some(allocations));
    }
}
