//! Generated documents: one implementation of the protocol writes them and another one reads them.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::{IpAddr, Ipv4Addr};

use cni::{
    AddResult, CniError, Environment, ErrorCode, Interface, IpConfig, PluginCode, Request, Route,
    Version,
};
use ipnet::{IpNet, Ipv4Net};
use proptest::collection::vec;
use proptest::prelude::*;
use rscni_types::{legacy, types as other, version::SpecVersion};
use serde_json::{Value, json};

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits))),
        // Without IPv4-mapped addresses: implementations disagree about their family.
        (1_u128..).prop_map(|bits| IpAddr::from((bits | 1 << 127).to_be_bytes())),
    ]
}

fn interface() -> impl Strategy<Value = Interface> {
    ("[a-z]{1,15}", "[0-9a-f]{2}(:[0-9a-f]{2}){5}", 576_u32..=9001, any::<bool>()).prop_map(
        |(name, mac, mtu, inside)| match inside {
            true => Interface::in_sandbox(name, mac, mtu, "/run/netns/x".into()),
            false => Interface::on_host(name, mac, mtu),
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    (any::<u32>(), 0_u8..=32, address()).prop_map(|(bits, length, gw)| {
        let dst = Ipv4Net::new(Ipv4Addr::from(bits), length).unwrap();
        Route::via(IpNet::V4(dst), gw)
    })
}

fn result() -> impl Strategy<Value = AddResult> {
    let ip = (0_usize..4, address()).prop_map(|(place, address)| IpConfig::host(place, address));
    (vec(interface(), 0..4), vec(ip, 0..4), vec(route(), 0..4)).prop_map(
        |(interfaces, ips, routes)| {
            let mut result = AddResult::default();
            (result.interfaces, result.ips, result.routes) = (interfaces, ips, routes);
            result
        },
    )
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

proptest! {
    #[test]
    fn newest_result_reads_and_writes_alike(ours in result()) {
        let text = ours.to_json(Version::V1_1_0);
        let theirs: other::CNIResultWithVersion = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(theirs.cni_version().to_string(), "1.1.0");
        prop_assert_eq!(serde_json::to_value(&theirs).unwrap(), parsed(&text));
    }

    #[test]
    fn old_result_is_written_alike(ours in result()) {
        for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
            let newest = ours.to_json(Version::V1_1_0);
            let theirs: other::CNIResultWithVersion = serde_json::from_str(&newest).unwrap();
            let spec: SpecVersion = version.as_str().parse().unwrap();
            let theirs = legacy::CNIResult::new(spec, theirs.into_result());
            let mut theirs = serde_json::to_value(&theirs).unwrap();
            // The other implementation writes it even if it is empty.
            theirs.as_object_mut().unwrap().remove("dns");
            prop_assert_eq!(parsed(&ours.to_json(version)), theirs);
        }
    }

    #[test]
    fn result_passes_through_a_runtime_unchanged(ours in result()) {
        let conf = json!({
            "cniVersion": "1.1.0", "name": "n",
            "prevResult": parsed(&ours.to_json(Version::V1_1_0)),
        });
        let vars = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/x")];
        let environment = Environment::from_vars(vars.map(|(k, v)| (k.into(), v.into())));
        let request = Request::parse(&environment, conf.to_string().as_bytes()).unwrap();
        let Request::Add(add) = request else { panic!("an ADD must parse as one") };
        prop_assert_eq!(add.prev_result.to_json(Version::V1_1_0), ours.to_json(Version::V1_1_0));
    }

    #[test]
    fn error_is_read_alike(place in 0_u16..500, msg in "\\PC{0,40}", details in "\\PC{0,40}") {
        let ours = CniError::new(ErrorCode::Plugin(PluginCode::nth(place)), msg, details);
        let text = ours.to_json("1.0.0");
        let theirs: other::ErrorResult = serde_json::from_str(&text).unwrap();
        let theirs = rscni_types::error::Error::from(theirs);
        prop_assert_eq!(u32::from(&theirs), ours.code.number());
        prop_assert_eq!((theirs.msg(), theirs.details()), (&*ours.msg, &*ours.details));
    }

    #[test]
    fn request_parser_never_panics(
        verb in "ADD|DEL|CHECK|STATUS|GC|VERSION|\\PC{0,8}",
        args in "\\PC{0,40}",
        stdin in prop_oneof![
            "\\PC{0,200}".prop_map(String::into_bytes),
            vec(any::<u8>(), 0..200),
            "\\{\"cniVersion\":\"1.1.0\",\"name\":\"n\",\"(mtu|prevResult|cni.dev/attachments)\":\\PC{0,20}\\}"
                .prop_map(String::into_bytes),
        ],
    ) {
        let vars = [("CNI_COMMAND", verb), ("CNI_CONTAINERID", args.clone()), ("CNI_ARGS", args)];
        let environment = Environment::from_vars(vars.map(|(k, v)| (k.into(), v.into())));
        let parsed = Request::parse(&environment, &stdin);
        if let Err(error) = parsed {
            prop_assert!((1..=7).contains(&error.code.number()), "{error}");
        }
    }
}

#[test]
fn valid_attachments_are_read_alike() {
    let stdin = json!({
        "cniVersion": "1.1.0", "name": "n", "type": "t",
        "cni.dev/valid-attachments": [
            {"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "net1"},
        ],
    })
    .to_string();
    let environment = Environment::from_vars([("CNI_COMMAND".into(), "GC".into())]);
    let Ok(Request::Gc(ours)) = Request::parse(&environment, stdin.as_bytes()) else {
        panic!("a GC must parse as one")
    };
    let ours: Vec<_> = ours.valid.into_iter().map(|v| (v.container_id, v.ifname)).collect();
    let theirs: other::NetConf = serde_json::from_str(&stdin).unwrap();
    let theirs = theirs.valid_attachments.unwrap().into_iter();
    assert_eq!(ours, theirs.map(|v| (v.container_id, v.ifname)).collect::<Vec<_>>());
}

#[test]
fn both_implementations_have_the_same_versions() {
    for version in Version::ALL {
        assert!(version.as_str().parse::<SpecVersion>().is_ok(), "{version}");
    }
    assert_eq!(SpecVersion::CURRENT.to_string(), Version::NEWEST.as_str());
}
