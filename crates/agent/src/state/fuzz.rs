//! Damages the state directory as a disk, a crash or a person may do. The lines before the damage count, the
//! damage is reported and kept, and the daemon continues.

use mangle::{Document, damage, hostile};
use proptest::sample::Index;

use super::tests::{
    NOW, address, asides, assigned, history, instance, key, open, record_of, released,
};
use super::*;
use ipam::call::{CallId, Ec2Call};
use ipam::id::EniId;
use proptest::prelude::*;

fn change() -> impl Strategy<Value = Change> {
    let call = || Ec2Call::DeleteEni { eni: EniId::try_from("eni-0b").unwrap() };
    prop_oneof![
        4 => (0..6_u8, 0..6_u8).prop_map(|(n, at)| assigned(n, at)),
        4 => (0..6_u8).prop_map(released),
        1 => (0..6_u8).prop_map(|n| Change::Rested { address: address(n) }),
        1 => (0..6_u8).prop_map(|n| Change::Resting {
            address: address(n),
            since: Timestamp::from_millis(NOW),
        }),
        1 => (1..9_u64).prop_map(move |id| Change::Intended { id: CallId(id), call: call() }),
        1 => (1..9_u64).prop_map(|id| Change::Settled { id: CallId(id) }),
        1 => (0..3_u8).prop_map(|n| {
            let ranges = (0..n).map(|n| ipnet::Ipv4Net::new([10, n, 0, 0].into(), 16).unwrap());
            Change::VpcRanges { ranges: ranges.collect() }
        }),
    ]
}

/// A change to whole lines.
#[derive(Debug, Clone)]
enum Shuffle {
    Repeat(Index, Index),
    Swap(Index, Index),
    Drop(Index),
}

impl Shuffle {
    fn apply(&self, lines: &mut Vec<Vec<u8>>) {
        let place = |index: &Index| index.index(lines.len().max(1)).min(lines.len());
        match self {
            Shuffle::Repeat(from, to) => {
                let (from, to) = (place(from), place(to));
                if let Some(line) = lines.get(from).cloned() {
                    lines.insert(to, line);
                }
            }
            Shuffle::Swap(one, other) if !lines.is_empty() => {
                let (one, other) = (place(one), place(other));
                lines.swap(one, other);
            }
            Shuffle::Drop(which) if !lines.is_empty() => {
                let which = place(which);
                lines.remove(which);
            }
            Shuffle::Swap(..) | Shuffle::Drop(_) => {}
        }
    }
}

fn shuffle() -> impl Strategy<Value = Shuffle> {
    let place = any::<Index>;
    prop_oneof![
        (place(), place()).prop_map(|(from, to)| Shuffle::Repeat(from, to)),
        (place(), place()).prop_map(|(one, other)| Shuffle::Swap(one, other)),
        place().prop_map(Shuffle::Drop),
    ]
}

/// The lines that a daemon writes: the header, then one for each change. Each with its bytes.
fn written(changes: &[Change]) -> Vec<(Vec<u8>, Option<Change>)> {
    let lines = changes.iter().map(|one| (line::line(one), Some(one.clone())));
    std::iter::once((line::header(&instance()), None)).chain(lines).collect()
}

/// Changes, and their log with shuffled lines and damaged bytes.
fn damaged_log() -> impl Strategy<Value = (Vec<Change>, Document)> {
    let changes = prop::collection::vec(change(), 0..20);
    let shuffles = prop::collection::vec(shuffle(), 0..3);
    let damages = prop::collection::vec(damage(), 0..3);
    (changes, shuffles, damages).prop_map(|(changes, shuffles, damages)| {
        let mut lines: Vec<_> = written(&changes).into_iter().map(|(line, _)| line).collect();
        shuffles.iter().for_each(|shuffle| shuffle.apply(&mut lines));
        (changes, Document(lines.concat()).damaged(&damages))
    })
}

/// The oracle: a line counts if its bytes are exactly as written. The first line that is different, or that
/// contradicts the lines before it, ends the record. Also returns whether the whole log counts.
fn expected(changes: &[Change], bytes: &[u8]) -> (Record, bool) {
    let (mut record, written) = (Record::default(), written(changes));
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    if lines.next() != Some(&*written[0].0) {
        return (record, false);
    }
    for line in lines {
        let change = written.iter().find(|(bytes, _)| *bytes == line);
        let Some((_, Some(change))) = change else { return (record, false) };
        if record.apply(change).is_err() {
            return (record, false);
        }
    }
    (record, true)
}

/// `record` can be written and read again, and its next call id is above all of its calls.
fn check_usable(record: &Record) {
    let changes: Vec<_> = record.changes().collect();
    assert_eq!(record_of(&changes), *record);
    assert!(record.intents().keys().all(|id| *id < record.next_call()));
}

proptest! {
    #[test]
    fn fuzz_state_log((changes, bytes) in damaged_log()) {
        let loaded = load::replay(&bytes, Some(&instance()));
        let (record, is_whole) = expected(&changes, &bytes);
        check_usable(&loaded.record);
        prop_assert_eq!(loaded.record, record);
        prop_assert_eq!(loaded.damage.is_none(), is_whole, "{:?}", loaded.damage);
    }

    #[test]
    fn fuzz_state_bytes(bytes in hostile(vec![line::header(&instance()), vec![0; 9000]])) {
        let loaded = load::replay(&bytes, Some(&instance()));
        prop_assert_eq!(loaded.record, Record::default());
        prop_assert_eq!(loaded.damage.is_none(), *bytes == line::header(&instance()));
    }

    /// Lines with right checksums and wrong content, which only a person would write.
    #[test]
    fn fuzz_state_forged(payloads in prop::collection::vec(hostile(payloads()), 1..8)) {
        let mut bytes = line::header(&instance());
        for payload in payloads {
            bytes.extend(format!("[\"{:08x}\",", crc32fast::hash(&payload)).as_bytes());
            bytes.extend(&payload.0);
            bytes.extend(b"]\n");
        }
        check_usable(&load::replay(&bytes, Some(&instance())).record);
    }
}

/// The payloads of a good log, and payloads with the greatest numbers.
fn payloads() -> Vec<Vec<u8>> {
    let mut changes = history();
    changes.push(Change::Settled { id: CallId(u64::MAX) });
    changes.push(Change::Released { key: key(1), at: Timestamp::from_millis(u64::MAX) });
    changes.iter().map(|change| serde_json::to_vec(change).unwrap()).collect()
}

proptest! {
    #[test]
    fn fuzz_state_directory(
        (changes, bytes) in damaged_log(),
        previous in prop::option::of(damaged_log()),
    ) {
        // In memory, since each case would wait for a disk about ten times.
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::write(directory.path().join(LOG), &*bytes).unwrap();
        let (mut record, is_whole) = expected(&changes, &bytes);
        if let Some((changes, previous)) = previous {
            fs::write(directory.path().join(PREVIOUS), &*previous).unwrap();
            if !bytes.starts_with(&line::header(&instance())) {
                record = expected(&changes, &previous).0;
            }
        }
        let mut store = open(&directory);
        prop_assert_eq!(store.record(), &record);
        let kept = if is_whole { vec![] } else { vec![bytes.0] };
        prop_assert_eq!(asides(&directory), kept);
        store.commit(&[released(6), assigned(6, 6)]).unwrap();
        let committed = store.record().clone();
        drop(store);
        let reopened = open(&directory);
        prop_assert_eq!(reopened.record(), &committed);
    }
}
