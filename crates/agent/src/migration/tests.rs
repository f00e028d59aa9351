//! Which allocations are taken over, and that a handover writes them back.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::state::Store;

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

/// The node's own links, and the links of `default/sample-pod` and `kube-system/coredns-57ff979f67-qqbdh`.
const LINKS: [&str; 4] = ["lo", "ens5", "enicc21c2d7785", "oldb5faff8a083"];

fn allocation(container: &str, address: &str, namespace: &str, pod: &str) -> Allocation {
    Allocation {
        key: AttachmentKey {
            network: "aws-cni".into(),
            container: container.to_owned(),
            ifname: "eth0".to_owned(),
        },
        address: address.parse().unwrap(),
        since_ns: 1_718_000_000_123_000_000,
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        interfaces: 1,
    }
}

fn found() -> Vec<Allocation> {
    vec![
        allocation("c1", "10.0.2.20", "default", "sample-pod"),
        allocation("c2", "10.0.2.21", "kube-system", "coredns-57ff979f67-qqbdh"),
        allocation("c3", "10.0.2.22", "default", "gone"),
        allocation("c4", "10.0.2.23", "", "sample-pod"),
        allocation("c5", "10.0.2.24", "default", ""),
    ]
}

fn place(address: IpAddr) -> Place {
    let device_index = u16::from(address != IpAddr::from([10, 0, 2, 20]));
    let eni = EniId::try_from(format!("eni-{device_index}")).unwrap();
    Place { eni, device_index, network_card: 0 }
}

fn taken() -> Record {
    record(&sort(found(), &LINKS.map(str::to_owned).into()), place, now()).unwrap()
}

#[test]
fn pod_with_name_but_without_link_is_dead() {
    let Sorted { living, dead } = sort(found(), &LINKS.map(str::to_owned).into());
    let of = |sorted: Vec<Allocation>| -> Vec<String> {
        sorted.into_iter().map(|allocation| allocation.key.container).collect()
    };
    assert_eq!(
        (of(living), of(dead)),
        (["c1", "c2", "c4", "c5"].map(str::to_owned).into(), vec!["c3".to_owned()])
    );
}

#[test]
fn addresses_of_living_stay_and_of_dead_cool_down() {
    let record = taken();
    assert_eq!(record.assignments().len(), 4);
    let assignment = &record.assignments()[&found()[1].key];
    let via = Via::Eni { eni: "eni-1".try_into().unwrap(), card: 0, index: 1 };
    let address = IpAddr::from([10, 0, 2, 21]);
    assert_eq!(*assignment.addresses.first(), PodIp { address, via });
    assert_eq!(assignment.pod.name, "coredns-57ff979f67-qqbdh");
    assert_eq!(assignment.since, Timestamp::from_millis(1_718_000_000_123));
    assert_eq!(*record.cooling(), [(IpAddr::from([10, 0, 2, 22]), now())].into());
}

#[test]
fn impossible_allocation_time_is_clamped() {
    for (since_ns, expect) in
        [(i64::MAX, now()), (-5, Timestamp::default()), (0, Timestamp::default())]
    {
        let living = vec![Allocation { since_ns, ..found().remove(0) }];
        let record = record(&Sorted { living, dead: vec![] }, place, now()).unwrap();
        assert_eq!(record.assignments()[&found()[0].key].since, expect, "{since_ns}");
    }
}

#[test]
fn placeholder_key_becomes_the_runtimes_key() {
    let mut old = found().remove(0);
    (old.key.network, old.key.ifname) = ("_migrated-from-cri".into(), "unknown".into());
    let sorted = Sorted { living: vec![old.clone()], dead: vec![] };
    let record_of = |sorted| record(sorted, place, now());
    assert!(record_of(&sorted).unwrap().assignments().contains_key(&found()[0].key));
    let twice = Allocation { address: [10, 0, 2, 99].into(), ..found().remove(0) };
    let fault = record_of(&Sorted { living: vec![old, twice], dead: vec![] }).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "aws-cni/c1/eth0 would have [10.0.2.99] while it has [10.0.2.20]"
    );
}

fn directory_with(record: Record) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    drop(open(&directory, record));
    directory
}

fn open(directory: &TempDir, inherited: Record) -> Store {
    let instance = ipam::id::InstanceId::try_from("i-1").unwrap();
    let directory = StateDirectory::try_take(directory.path()).unwrap();
    Store::open(directory, &instance, inherited, now())
}

#[test]
fn inherited_record_is_stored_only_without_own_record() {
    let directory = directory_with(taken());
    assert_eq!(read_record(directory.path()).unwrap(), Some(taken()));
    let store = open(&directory, Record::default());
    assert_eq!(*store.record(), taken());
    // Our own record wins, even an empty one.
    let directory = directory_with(Record::default());
    let store = open(&directory, taken());
    assert_eq!(*store.record(), Record::default());
}

#[test]
fn pod_of_both_families_is_handed_over_with_ipv4() {
    let on_eni = |address: &str, index: u16| PodIp {
        address: address.parse().unwrap(),
        via: Via::Eni { eni: format!("eni-{index}").try_into().unwrap(), card: 0, index },
    };
    let both = vec![on_eni("2001:db8::20", 0), on_eni("10.0.2.20", 1)];
    let key = found()[0].key.clone();
    let assignment =
        Assignment { addresses: both.try_into().unwrap(), ..taken().assignments()[&key].clone() };
    let mut record = Record::default();
    record.apply(&ipam::record::Change::Assigned { key, assignment }).unwrap();
    let found: Vec<_> = allocations(&record).into_iter().map(|it| it.address).collect();
    assert_eq!(found, [IpAddr::from([10, 0, 2, 20])]);
}

#[test]
fn hand_over_writes_the_allocations_that_were_taken_over() {
    let directory = directory_with(taken());
    // A second start makes a last good copy, which must not be read later.
    drop(open(&directory, Record::default()));
    let file = directory.path().join("ipam.json");
    assert_eq!(hand_over(directory.path(), &file).unwrap(), Some(4));
    let back = read(&file).unwrap().unwrap();
    let expect: Vec<_> = found().into_iter().filter(|found| found.key.container != "c3").collect();
    assert_eq!(back, expect);
    let sorted = Sorted { living: back, dead: vec![] };
    assert_eq!(record(&sorted, place, now()).unwrap().assignments(), taken().assignments());

    assert!(!has_record(directory.path()), "the record is out of date");
    fs::write(&file, "the incumbent's by now").unwrap();
    assert_eq!(hand_over(directory.path(), &file).unwrap(), None);
    assert_eq!(fs::read_to_string(&file).unwrap(), "the incumbent's by now");
}

/// Otherwise the incumbent would not find the attachment at the runtime's DEL.
#[test]
fn attachment_known_by_link_is_handed_over_with_network() {
    let mut record = Record::default();
    let taken = taken();
    let (key, assignment) = taken.assignments().first_key_value().unwrap();
    record.apply(&Change::Assigned { key: key.by_link(), assignment: assignment.clone() }).unwrap();
    let expect = AttachmentKey { network: "aws-cni".into(), ..key.clone() };
    assert_eq!(allocations(&record)[0].key, expect);
}

#[test]
fn hand_over_of_used_or_damaged_record_fails() {
    let directory = directory_with(taken());
    let file = directory.path().join("ipam.json");
    let daemon = open(&directory, Record::default());
    let fault = hand_over(directory.path(), &file).unwrap_err();
    let expect = format!("another ipamd uses this state directory: pid {}", std::process::id());
    assert!(fault.to_string().contains(&expect), "{fault}");
    // The record can still be read.
    assert_eq!(read_record(directory.path()).unwrap(), Some(taken()));
    drop(daemon);

    let log = directory.path().join(state::LOG);
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() - 1]).unwrap();
    let fault = hand_over(directory.path(), &file).unwrap_err();
    assert!(format!("{fault:#}").contains("line 7: unfinished line"), "{fault:#}");
    assert!(!file.exists() && has_record(directory.path()));
}

#[test]
fn read_of_missing_checkpoint_is_none_and_of_bad_one_fails() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ipam.json");
    assert_eq!(read(&file).unwrap(), None);
    fs::write(&file, "{}").unwrap();
    let fault = crate::error_chain(&read(&file).unwrap_err());
    let expect = format!("parse the checkpoint {}: version: ", file.display());
    assert!(fault.starts_with(&expect), "{fault}");
}
