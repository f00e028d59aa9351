//! What is taken over, what is not, and that all of it comes back.

use tempfile::TempDir;

use super::*;
use crate::state::Store;

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

/// The links of `default/sample-pod` and `kube-system/coredns-57ff979f67-qqbdh`.
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
fn pods_without_a_link_are_dead_and_nameless_ones_are_not() {
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
fn the_living_keep_their_addresses_and_those_of_the_dead_rest() {
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
fn a_moment_that_cannot_be_does_not_move_the_clock() {
    for (since_ns, expect) in
        [(i64::MAX, now()), (-5, Timestamp::default()), (0, Timestamp::default())]
    {
        let living = vec![Allocation { since_ns, ..found().remove(0) }];
        let record = record(&Sorted { living, dead: vec![] }, place, now()).unwrap();
        assert_eq!(record.assignments()[&found()[0].key].since, expect, "{since_ns}");
    }
}

#[test]
fn a_pod_from_before_the_file_is_found_by_the_runtimes_words() {
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
    Store::open(directory.path(), &instance, inherited, now()).unwrap()
}

#[test]
fn what_was_inherited_is_on_disk_at_once_and_only_where_nothing_was() {
    let directory = directory_with(taken());
    assert_eq!(read_record(directory.path()).unwrap(), Some(taken()));
    let store = open(&directory, Record::default());
    assert_eq!(*store.record(), taken());
    // Our own record wins, be it empty.
    let directory = directory_with(Record::default());
    let store = open(&directory, taken());
    assert_eq!(*store.record(), Record::default());
}

#[test]
fn what_is_handed_over_is_what_was_taken_over() {
    let directory = directory_with(taken());
    // A second start leaves a last good copy, which must not come back.
    drop(open(&directory, Record::default()));
    let file = directory.path().join("ipam.json");
    assert_eq!(hand_over(directory.path(), &file).unwrap(), Some(4));
    let back = read(&file).unwrap().unwrap();
    let expect: Vec<_> = found().into_iter().filter(|found| found.key.container != "c3").collect();
    assert_eq!(back, expect);
    let sorted = Sorted { living: back, dead: vec![] };
    assert_eq!(record(&sorted, place, now()).unwrap().assignments(), taken().assignments());

    assert!(!has_record(directory.path()), "it would be out of date");
    fs::write(&file, "the incumbent's by now").unwrap();
    assert_eq!(hand_over(directory.path(), &file).unwrap(), None);
    assert_eq!(fs::read_to_string(&file).unwrap(), "the incumbent's by now");
}

/// Otherwise the incumbent would not find it at the runtime's DEL.
#[test]
fn what_is_known_by_its_link_alone_is_handed_over_as_the_shipped_networks() {
    let mut record = Record::default();
    let taken = taken();
    let (key, assignment) = taken.assignments().first_key_value().unwrap();
    record.apply(&Change::Assigned { key: key.by_link(), assignment: assignment.clone() }).unwrap();
    let expect = AttachmentKey { network: "aws-cni".into(), ..key.clone() };
    assert_eq!(allocations(&record)[0].key, expect);
}

#[test]
fn nothing_is_handed_over_that_is_in_use_or_damaged() {
    let directory = directory_with(taken());
    let file = directory.path().join("ipam.json");
    let daemon = open(&directory, Record::default());
    let fault = hand_over(directory.path(), &file).unwrap_err();
    assert!(fault.to_string().ends_with("another ipamd uses this state directory"), "{fault}");
    // But it can be looked at.
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
fn a_checkpoint_that_is_not_there_is_no_error_and_a_bad_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ipam.json");
    assert_eq!(read(&file).unwrap(), None);
    fs::write(&file, "{}").unwrap();
    let fault = crate::error_chain(&read(&file).unwrap_err());
    let expect = format!("understand the checkpoint {}: version: ", file.display());
    assert!(fault.starts_with(&expect), "{fault}");
}
