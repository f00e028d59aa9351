//! One pool as a table and as JSON.

use super::*;

const NOW_S: u64 = 1_800_000_000;

fn block(cidr: &str, assigned: u64, cooling: u64, free: u64) -> v1::BlockView {
    v1::BlockView { cidr: cidr.into(), assigned, cooling, free, quarantined: 0 }
}

fn eni(n: u32, table: u32, state: &str, blocks: Vec<v1::BlockView>) -> v1::EniView {
    v1::EniView {
        id: format!("eni-{n}"),
        device_index: n,
        network_card: 0,
        mac: format!("02:00:00:00:00:0{n}"),
        subnet: "subnet-a".into(),
        primary_address: format!("10.0.0.{n}"),
        primary: n == 0,
        state: state.into(),
        table,
        blocks,
        delegated: if n == 0 { vec!["10.0.0.48/28".into()] } else { Vec::new() },
        subnet_cidr: "10.0.0.0/24".into(),
    }
}

fn pod(name: &str, address: &str, age_s: u64) -> v1::PodView {
    v1::PodView {
        attachment: Some(v1::Attachment {
            network: "aws-cni".into(),
            container_id: "0123456789abcdef0123".into(),
            ifname: "eth0".into(),
        }),
        pod: Some(v1::Pod { namespace: "default".into(), name: name.into(), uid: "u1".into() }),
        address: Some(v1::PodAddress {
            address: address.into(),
            table: 254,
            eni: "eni-0".into(),
            reach: None,
        }),
        since_ms: (NOW_S - age_s) * 1000,
        second_address: None,
        node_local: "169.254.172.2".into(),
    }
}

fn view() -> v1::ViewReply {
    v1::ViewReply {
        changes: "cordoned".into(),
        instance_id: "i-0a".into(),
        instance_type: "m5.large".into(),
        mode: "prefix".into(),
        enis: vec![
            eni(
                0,
                254,
                "ready",
                vec![block("10.0.0.16/28", 1, 2, 13), block("10.0.0.9/32", 1, 0, 0)],
            ),
            eni(1, 2, "linking", vec![block("10.0.0.32/28", 0, 0, 16)]),
            eni(2, 0, "attaching", Vec::new()),
        ],
        foreign_enis: vec!["eni-f".into()],
        pods: vec![pod("web-0", "10.0.0.17", 11_523), pod("", "10.0.0.9", 5)],
        counts: Some(v1::PoolCounts {
            total: 36,
            assigned: 2,
            cooling: 2,
            free: 29,
            prefixes: 2,
            waiting: 0,
            quarantined: 3,
            delegated: 1,
            expected: 4,
        }),
        in_flight: vec!["attach eni-2".into()],
        blocked: vec!["subnet-a is full".into()],
        server_version: "0.1.0".into(),
        capacity: None,
        limits: Some(v1::InstanceLimits {
            enis: 3,
            addresses_per_eni: 10,
            prefixes: true,
            from: "EC2".into(),
        }),
        ipv6_counts: None,
    }
}

/// The 2^48 addresses of the /80 are in no sum.
#[test]
fn table_of_both_families_has_both_addresses() {
    let mut view = view();
    view.mode = "prefix+ipv6".into();
    view.enis[0].blocks.push(block("2001:db8::/80", 1, 0, (1 << 48) - 1));
    let second = v1::PodAddress { address: "2001:db8::17".into(), ..Default::default() };
    view.pods[0].second_address = Some(second);
    view.ipv6_counts = Some(v1::PoolCounts { assigned: 1, prefixes: 1, ..Default::default() });
    let text = render(&view, UNIX_EPOCH + Duration::from_secs(NOW_S));
    for part in [
        " default/web-0  10.0.0.17, 2001:db8::17  eni-0 ",
        " eni-0  0       main   subnet-a  10.0.0.0  ready      2     2        13",
        " 2001:db8::/80  eni-0  1     0        281474976710655",
        "\nIPv6: 1 used, 0 cooling, 0 quarantined; 1 prefixes\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = super::super::json::render(&view).unwrap();
    assert!(json.contains("\"second_address\": \"2001:db8::17\""), "{json}");
}

#[test]
fn table_shows_the_whole_pool() {
    let text = render(&view(), UNIX_EPOCH + Duration::from_secs(NOW_S));
    let trimmed: Vec<&str> = text.lines().map(str::trim_end).collect();
    let expect = expect_test::expect![[r#"
i-0a (m5.large), ipamd 0.1.0, mode prefix
limits: 3 ENIs, 10 addresses on each, prefixes (EC2)
changes at EC2: as pods want, since the node is cordoned; no ENI goes back (AWS_MANAGE_ENIS_NON_SCHEDULABLE)

 ENI    DEVICE  TABLE  SUBNET    ADDRESS   STATE      USED  COOLING  FREE
 eni-0  0       main   subnet-a  10.0.0.0  ready      2     2        13
 eni-1  1       2      subnet-a  10.0.0.1  linking    0     0        16
 eni-2  -       -      subnet-a  10.0.0.2  attaching  0     0        0

 PREFIX        ENI    USED  COOLING  FREE
 10.0.0.16/28  eni-0  1     2        13
 10.0.0.32/28  eni-1  0     0        16

 POD            ADDRESS    ENI    AGE     CONTAINER     INTERFACE
 default/web-0  10.0.0.17  eni-0  3h 12m  0123456789ab  eth0
 -              10.0.0.9   eni-0  5s      0123456789ab  eth0

36 addresses: 2 used, 2 cooling, 3 quarantined, 29 free; 2 prefixes; 0 pods waiting, 4 about to start
delegated: 10.0.0.48/28 on eni-0
foreign ENI: eni-f
in flight: attach eni-2
blocked: subnet-a is full"#]];
    expect.assert_eq(&trimmed.join("\n"));
}

/// A /80 has more addresses than a u32 can count.
#[test]
fn ipv6_prefix_is_counted_in_full() {
    const FREE: u64 = (1 << 48) - 1;
    let counts = v1::PoolCounts { total: FREE + 1, assigned: 1, free: FREE, ..Default::default() };
    let view = v1::ViewReply {
        mode: "ipv6".into(),
        enis: vec![eni(0, 254, "ready", vec![block("2001:db8::/80", 1, 0, FREE)])],
        pods: vec![pod("web-0", "2001:db8::18c:2", 5)],
        counts: Some(counts),
        ..view()
    };
    let text = render(&view, UNIX_EPOCH + Duration::from_secs(NOW_S));
    let trimmed: Vec<&str> = text.lines().map(str::trim).collect();
    for line in [
        "2001:db8::/80  eni-0  1     0        281474976710655",
        "default/web-0  2001:db8::18c:2  eni-0  5s   0123456789ab  eth0",
    ] {
        assert!(trimmed.contains(&line), "{line}\n{text}");
    }
    assert!(text.contains(
        "281474976710656 addresses: 1 used, 0 cooling, 0 quarantined, 281474976710655 free"
    ));
    let json = super::super::json::render(&view).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["counts"]["free"], FREE);
    assert_eq!(json["enis"][0]["blocks"][0]["free"], FREE);
}

#[test]
fn json_keys_stay_the_same() {
    let text = super::super::json::render(&view()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let keys = |value: &serde_json::Value| {
        let keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.join(" ")
    };
    assert_eq!(
        keys(&json),
        "blocked changes counts enis foreign_enis in_flight instance_id instance_type ipv6_counts limits \
         mode pods version"
    );
    assert_eq!(
        keys(&json["enis"][0]),
        "blocks delegated device_index id mac network_card primary primary_address state subnet \
         subnet_cidr table"
    );
    assert_eq!(keys(&json["enis"][0]["blocks"][0]), "assigned cidr cooling free quarantined");
    assert_eq!(
        keys(&json["pods"][0]),
        "address container_id eni ifname name namespace network node_local second_address since_ms table uid"
    );
    assert_eq!(
        keys(&json["counts"]),
        "assigned cooling delegated expected free prefixes quarantined total waiting"
    );
    assert_eq!(keys(&json["limits"]), "addresses_per_eni enis from prefixes");
    assert_eq!(json["pods"][0]["address"], "10.0.0.17");
    assert_eq!(json["pods"][0]["node_local"], "169.254.172.2");
    assert_eq!(json["enis"][1]["table"], 2);
}

/// Whoever may make pods chooses their names, and the runtime passes any.
#[test]
fn names_with_escapes_change_no_other_line() {
    let mut view = view();
    let n_lines = render(&view, UNIX_EPOCH).lines().count();
    let hostile = "\u{1b}[2K\u{1b}[1Aweb\nblocked: nothing\r\u{202e}";
    let pod = &mut view.pods[0];
    pod.pod.as_mut().unwrap().name = hostile.to_owned();
    pod.attachment.as_mut().unwrap().ifname = hostile.to_owned();
    view.instance_id = hostile.to_owned();
    view.foreign_enis = vec![hostile.to_owned()];
    view.enis[0].subnet = hostile.to_owned();
    let text = render(&view, UNIX_EPOCH);
    assert_eq!(text.lines().count(), n_lines, "{text}");
    assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{text:?}");
}
