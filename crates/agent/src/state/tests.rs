//! A committed change survives a restart, and damage costs only the lines after it.

use std::net::{IpAddr, Ipv4Addr};

use ipam::block::Block;
use ipam::call::{AttachmentStatus, CallId, Ec2Call, EniAttachment, EniFacts, EniKind};
use ipam::connection_tracking::ConnectionTracking;
use ipam::id::{AttachmentKey, BootId, EniAttachmentId, EniId, Pod, SecurityGroupId, SubnetId};
use ipam::record::{Addresses, Assignment, KnownEni, PodIp, PodIpv6, Via};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

pub(super) const NOW: u64 = 1_800_000_000_000;

pub(super) fn instance() -> InstanceId {
    InstanceId::try_from("i-0123456789abcdef0").unwrap()
}

pub(super) fn open(directory: &TempDir) -> Store {
    // After every change that these tests make.
    open_at(directory.path(), NOW + 1000)
}

fn open_at(directory: &Path, now: u64) -> Store {
    let directory = StateDirectory::try_take(directory).unwrap();
    Store::open(directory, &instance(), Record::default(), Timestamp::from_millis(now))
}

pub(super) fn key(n: u8) -> AttachmentKey {
    AttachmentKey { network: "aws-cni".into(), container: format!("c{n}"), ifname: "eth0".into() }
}

pub(super) fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

pub(super) fn assigned(n: u8, at: u8) -> Change {
    let via = Via::Eni { eni: EniId::try_from("eni-0a").unwrap(), card: 0, index: 1 };
    let assignment = Assignment {
        addresses: Addresses::one(PodIp { address: address(at), via }),
        node_local: None,
        ipv6: PodIpv6::AsItIs,
        pod: Pod {
            namespace: "default".into(),
            name: format!("pod \"{n}\"\n"),
            uid: String::new(),
        },
        netns: format!("/var/run/netns/cni-{n}"),
        since: Timestamp::from_millis(NOW + u64::from(n)),
    };
    Change::Assigned { key: key(n), assignment }
}

pub(super) fn released(n: u8) -> Change {
    Change::Released { key: key(n), at: Timestamp::from_millis(NOW) }
}

fn eni(n: u8) -> EniId {
    EniId::try_from(format!("eni-{n}")).unwrap()
}

fn known(n: u8, n_blocks: u8) -> Change {
    let facts = EniFacts {
        id: eni(n),
        mac: format!("02:00:00:00:00:0{n}").parse().unwrap(),
        subnet: SubnetId::try_from("subnet-0").unwrap(),
        security_groups: [].into(),
        connection_tracking: ConnectionTracking::default(),
        primary_address: Ipv4Addr::new(10, 0, 1, n).into(),
        blocks: (0..n_blocks).map(|at| Block::address(Ipv4Addr::new(10, 0, 0, at))).collect(),
        kind: EniKind::Interface,
        attachment: Some(EniAttachment {
            id: EniAttachmentId::try_from("eni-attach-0").unwrap(),
            device_index: n.into(),
            network_card: 0,
            status: AttachmentStatus::Attached,
            delete_on_termination: true,
        }),
        tags: [("owner".to_owned(), "\"us\"".to_owned())].into(),
    };
    let missed = [Block::address(Ipv4Addr::new(10, 0, 0, n_blocks))].into();
    Change::EniKnown(KnownEni { facts, subnet_cidr: "10.0.0.0/16".parse().unwrap(), missed })
}

pub(super) fn history() -> Vec<Change> {
    let call = Ec2Call::DeleteEni { eni: EniId::try_from("eni-0b").unwrap() };
    let security_groups = [SecurityGroupId::try_from("sg-1").unwrap()].into();
    let align = Ec2Call::SetSecurityGroups { eni: eni(1), security_groups };
    vec![
        assigned(1, 5),
        assigned(2, 6),
        Change::Intended { id: CallId(1), call },
        released(1),
        Change::Settled { id: CallId(1) },
        Change::Intended { id: CallId(2), call: align },
        Change::Booted { boot: BootId("a boot".to_owned()) },
        known(0, 2),
        assigned(3, 7),
    ]
}

/// A directory whose log has a header and one line for each change of [`history`].
fn directory_with_history() -> (TempDir, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory);
    history().iter().for_each(|change| store.commit(std::slice::from_ref(change)).unwrap());
    let bytes = fs::read(directory.path().join(LOG)).unwrap();
    (directory, bytes)
}

pub(super) fn record_of(changes: &[Change]) -> Record {
    let mut record = Record::default();
    changes.iter().for_each(|change| record.apply(change).unwrap());
    record
}

pub(super) fn asides(directory: &TempDir) -> Vec<Vec<u8>> {
    let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let asides = names.filter(|path| path.to_string_lossy().contains(ASIDE));
    asides.map(|path| fs::read(path).unwrap()).collect()
}

/// The log ends with one line for each change of [`history`]. Returns how many of these lines are whole in the
/// first `length` bytes.
fn whole_changes(bytes: &[u8], length: usize) -> usize {
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    (lines(&bytes[..length]) + history().len()).saturating_sub(lines(bytes))
}

#[test]
fn log_has_json_lines_with_checksums() {
    let (_directory, bytes) = directory_with_history();
    for line in String::from_utf8(bytes).unwrap().lines() {
        let (crc, payload): (String, serde_json::Value) = serde_json::from_str(line).unwrap();
        assert_eq!(crc.len(), 8);
        assert!(payload.is_object(), "{line}");
    }
}

#[test]
fn restart_restores_committed_changes() {
    let (directory, _) = directory_with_history();
    assert_eq!(*open(&directory).record(), record_of(&history()));
    assert_eq!(asides(&directory), Vec::<Vec<u8>>::new());
}

#[test]
fn log_cut_at_any_byte_keeps_every_whole_line() {
    let (directory, bytes) = directory_with_history();
    let header = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in 0..bytes.len() {
        let loaded = load::replay(&bytes[..length], Some(&instance()));
        let changes = &history()[..whole_changes(&bytes, length)];
        assert_eq!(loaded.record, record_of(changes), "cut at {length}");
        let at_line_end = length >= header && bytes[length - 1] == b'\n';
        assert_eq!(loaded.damage.is_none(), at_line_end, "cut at {length}");
    }
    for length in (header + 1..bytes.len()).step_by(97) {
        fs::write(directory.path().join(LOG), &bytes[..length]).unwrap();
        let mut store = open(&directory);
        store.commit(&[assigned(9, 9)]).unwrap();
        drop(store);
        let mut changes = history()[..whole_changes(&bytes, length)].to_vec();
        changes.push(assigned(9, 9));
        let at_line_end = bytes[length - 1] == b'\n';
        let expect = record_of(&changes);
        let expect = if at_line_end { expect } else { load::without_enis(&expect) };
        assert_eq!(*open(&directory).record(), expect, "cut at {length}");
    }
}

#[test]
fn changed_byte_keeps_every_line_before_it() {
    let (_directory, bytes) = directory_with_history();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x04;
        let loaded = load::replay(&damaged, Some(&instance()));
        let changes = &history()[..whole_changes(&bytes, at)];
        assert_eq!(loaded.record, record_of(changes), "byte {at}");
        assert!(loaded.damage.is_some(), "byte {at}");
    }
}

#[test]
fn checksum_in_capitals_is_damage() {
    let line = line::lines(&[released(1)]);
    let digits = String::from_utf8(line[2..10].to_vec()).unwrap();
    assert!(digits.contains(|c: char| c.is_ascii_lowercase()), "{digits}: take another change");
    let capitals = [&line[..2], digits.to_uppercase().as_bytes(), &line[10..]].concat();
    assert!(line::parse::<Change>(&line).is_ok() && line::parse::<Change>(&capitals).is_err());
}

/// The last build of each version wrote its log: one change of each kind.
#[test]
fn stored_logs_of_earlier_versions_are_read() {
    for (version, text) in [
        (1, include_str!("stored/version-1.jsonl")),
        (2, include_str!("stored/version-2.jsonl")),
        (3, include_str!("stored/version-3.jsonl")),
        (4, include_str!("stored/version-4.jsonl")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(LOG), text).unwrap();
        let store = open(&directory);
        assert_eq!(asides(&directory), Vec::<Vec<u8>>::new(), "{version}");
        let record = store.record();
        let held = |n: u8| record.assignments()[&key(n)].addresses.first().clone();
        let via = |index| Via::Eni { eni: EniId::try_from("eni-0a").unwrap(), card: 0, index };
        assert_eq!(held(1), PodIp { address: address(10), via: via(1) }, "{version}");
        let v6 = PodIp { address: "2001:db8::7".parse().unwrap(), via: via(0) };
        assert_eq!(held(7), v6, "{version}");
        assert!(record.assignments().contains_key(&key(8).by_link()), "{version}");
        let cooling: Vec<_> = record.cooling().keys().copied().collect();
        assert_eq!(cooling, [address(11), address(50)], "{version}");
        let intents: Vec<_> = record.intents().values().map(ToString::to_string).collect();
        let expect = [
            "CreateNetworkInterface in subnet-0 with 9 addresses",
            "AssignPrivateIpAddresses 2 prefixes to eni-1",
            "AssignIpv6Addresses 1 IPv6 prefixes to eni-1",
            "UnassignPrivateIpAddresses 1 blocks of eni-1",
        ];
        assert_eq!(intents, expect, "{version}");
        let enis: Vec<_> = record.enis().keys().cloned().collect();
        assert_eq!(enis, if version == 1 { vec![] } else { vec![eni(1)] });
        // The log has this version now, and the same content.
        assert_eq!(load::load(directory.path(), Some(&instance())).record, *record, "{version}");
    }
}

#[test]
fn log_of_first_version_is_read_and_upgraded() {
    let (directory, bytes) = directory_with_history();
    let text = r#"{"format":"tidepool","version":1,"instance":"i-0123456789abcdef0"}"#;
    let mut older = format!("[\"{:08x}\",{text}]\n", crc32fast::hash(text.as_bytes())).into_bytes();
    let start = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    older.extend(&bytes[start..]);
    fs::write(directory.path().join(LOG), &older).unwrap();
    assert_eq!(*open(&directory).record(), record_of(&history()));
    assert_eq!(asides(&directory), Vec::<Vec<u8>>::new());
    let now = fs::read(directory.path().join(LOG)).unwrap();
    assert!(now.starts_with(&bytes[..start]));
}

#[test]
fn unreadable_log_is_kept_and_previous_copy_is_used() {
    let header = |text: &str| format!("[\"{:08x}\",{text}]\n", crc32fast::hash(text.as_bytes()));
    let newer = header(r#"{"format":"tidepool","version":6,"owner":"i-0123456789abcdef0"}"#);
    let foreign = header(r#"{"format":"tidepool","version":5,"instance":"i-ffff"}"#);
    let other = header(r#"{"format":"vpc-cni-ipam/1","version":1}"#);
    let garbage = [
        (Vec::new(), "line 1: no header: unfinished line"),
        (vec![0; 4096], "line 1: no header: unfinished line"),
        (b"{\"version\":\"vpc-cni-ipam/1\"}\n".to_vec(), "no header: not a line of a state log"),
        (newer.into_bytes(), "line 1: version 6; this ipamd reads versions 1 to 5"),
        (foreign.into_bytes(), "written on i-ffff; this is i-0123456789abcdef0"),
        (other.into_bytes(), "line 1: format \"vpc-cni-ipam/1\""),
    ];
    for (bytes, why) in garbage {
        let (directory, _) = directory_with_history();
        drop(open(&directory));
        drop(open(&directory));
        fs::write(directory.path().join(LOG), &bytes).unwrap();
        let damage = load::load(directory.path(), Some(&instance())).damage.unwrap();
        assert!(error_chain(&damage).ends_with(why), "{}", error_chain(&damage));
        let expect = load::without_enis(&record_of(&history()));
        assert_eq!(*open(&directory).record(), expect, "{why}");
        assert_eq!(asides(&directory), [bytes], "{why}");
    }
}

#[test]
fn damaged_logs_are_kept_up_to_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    for n in 0..2 * MAX_ASIDE as u64 {
        fs::write(directory.path().join(LOG), format!("garbage {n}")).unwrap();
        drop(open_at(directory.path(), NOW + n));
    }
    let asides = asides(&directory);
    assert_eq!(asides.len(), MAX_ASIDE);
    assert!(asides.contains(&b"garbage 15".to_vec()));
}

#[test]
fn commit_on_full_disk_fails_and_next_one_succeeds() {
    let (directory, _) = directory_with_history();
    let mut store = open(&directory);
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    store.log = Log::Open(Appender { file: full, n_appended: 0, n_snapshot: 0 });
    let fault = error_chain(&store.commit(&[assigned(9, 9)]).unwrap_err());
    assert!(fault.contains(LOG) && fault.contains("No space left"), "{fault}");
    assert_eq!(*store.record(), record_of(&history()));

    store.commit(&[assigned(8, 8)]).unwrap();
    drop(store);
    let mut changes = history();
    changes.push(assigned(8, 8));
    assert_eq!(*open(&directory).record(), record_of(&changes));
}

#[test]
fn commit_fails_until_directory_is_writable() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    fs::write(&directory, "a file where the directory should be").unwrap();
    let mut store = open_at(&directory, NOW);
    let fault = error_chain(&store.commit(&[assigned(1, 5)]).unwrap_err());
    assert!(fault.contains("state") && fault.contains("File exists"), "{fault}");

    fs::remove_file(&directory).unwrap();
    store.commit(&[assigned(1, 5)]).unwrap();
    assert_eq!(*store.record(), record_of(&[assigned(1, 5)]));
}

#[test]
fn failed_snapshot_leaves_no_draft() {
    let directory = tempfile::tempdir().unwrap();
    // A directory has the name of the copy.
    fs::create_dir_all(directory.path().join(PREVIOUS).join("x")).unwrap();
    fs::write(directory.path().join(LOG), "").unwrap();
    let mut store = open(&directory);
    store.commit(&[assigned(1, 5)]).unwrap();
    store.log = Log::Closed;
    store.commit(&[assigned(2, 6)]).unwrap_err();
    assert!(!directory.path().join(UNFINISHED).exists());
}

#[test]
fn contradictory_commit_leaves_nothing_on_disk() {
    let (directory, _) = directory_with_history();
    let mut store = open(&directory);
    let fault = error_chain(&store.commit(&[assigned(4, 7)]).unwrap_err());
    assert!(fault.contains("10.0.0.7 would belong to"), "{fault}");
    store.commit(&[assigned(4, 8)]).unwrap();
    drop(store);
    let mut changes = history();
    changes.push(assigned(4, 8));
    assert_eq!(*open(&directory).record(), record_of(&changes));
    assert_eq!(asides(&directory), Vec::<Vec<u8>>::new());
}

#[test]
fn long_log_is_replaced_by_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory);
    let churn = [assigned(1, 5), released(1)];
    let churn: Vec<Change> = churn.into_iter().cycle().take(SNAPSHOT_AFTER - 1).collect();
    store.commit(&churn).unwrap();
    store.compact();
    let long = fs::metadata(directory.path().join(LOG)).unwrap().len();
    store.commit(&[assigned(2, 6)]).unwrap();
    store.compact();
    let short = fs::metadata(directory.path().join(LOG)).unwrap().len();
    assert!(long > 100_000 && short < 1_000, "{long} {short}");
    let record = store.record().clone();
    drop(store);
    assert_eq!(*open(&directory).record(), record);
}

#[test]
fn crash_during_snapshot_keeps_the_log() {
    let (directory, bytes) = directory_with_history();
    fs::write(directory.path().join(UNFINISHED), &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(*open(&directory).record(), record_of(&history()));
}

/// The clock showed 2262 at one start, and is right at the next.
#[test]
fn start_after_a_wrong_clock_corrects_the_record() {
    let directory = tempfile::tempdir().unwrap();
    let future = Timestamp::from_millis(9_223_372_036_000);
    let mut store = open_at(directory.path(), future.as_millis());
    store.commit(&[assigned(1, 5), Change::Released { key: key(1), at: future }]).unwrap();
    drop(store);
    for start in 0..2 {
        let store = open(&directory);
        let cooling: Vec<_> = store.record().cooling().values().copied().collect();
        assert_eq!(cooling, [Timestamp::from_millis(NOW + 1000)], "start {start}");
        assert!(clock::after(store.record()) < Timestamp::from_millis(NOW + 2000));
    }
}

#[test]
fn open_of_locked_directory_fails() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(&directory);
    assert!(StateDirectory::try_take(directory.path()).is_err());
    drop(first);
    drop(open(&directory));
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Change>),
    Compact,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = prop_oneof![
        4 => (0..6_u8, 0..6_u8).prop_map(|(n, at)| assigned(n, at)),
        4 => (0..6_u8).prop_map(released),
        1 => (0..6_u8).prop_map(|n| Change::Rested { address: address(n) }),
        1 => (1..9_u64).prop_map(|id| Change::Settled { id: CallId(id) }),
        1 => (0..2_u8).prop_map(|n| Change::Booted { boot: BootId(format!("boot {n}")) }),
        2 => (0..3_u8, 0..3_u8).prop_map(|(n, n_blocks)| known(n, n_blocks)),
        1 => (0..3_u8).prop_map(|n| Change::EniForgotten { eni: eni(n) }),
        1 => (1..3_u8).prop_map(|n| {
            let ranges = (0..n).map(|n| ipnet::Ipv4Net::new([10, n, 0, 0].into(), 16).unwrap());
            Change::VpcRanges { ranges: ranges.collect() }
        }),
        1 => (0..3_u8).prop_map(|n| {
            let prefixes = (0..n).map(|n| ipnet::Ipv4Net::new([10, 9, 0, 16 * n].into(), 28).unwrap());
            let prefixes = prefixes.map(|net| Block::try_from(net).unwrap());
            Change::Delegated { prefixes: prefixes.collect() }
        }),
    ];
    let step = prop_oneof![
        6 => prop::collection::vec(change, 1..4).prop_map(Step::Commit),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn record_on_disk_equals_record_in_memory(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(&directory);
        let mut model = Record::default();
        for step in steps {
            match step {
                Step::Commit(mut changes) => {
                    // The engine never emits a change that contradicts its record.
                    changes.retain(|change| model.apply(change).is_ok());
                    store.commit(&changes).unwrap();
                }
                Step::Compact => store.rewrite(&[]).unwrap(),
                Step::Restart => {
                    drop(store);
                    store = open(&directory);
                }
            }
            prop_assert_eq!(store.record(), &model);
        }
        drop(store);
        let reopened = open(&directory);
        prop_assert_eq!(reopened.record(), &model);
    }
}
