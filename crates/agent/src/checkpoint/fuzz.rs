//! Damages the incumbent's checkpoint. The reader refuses it and names the place, or the checkpoint becomes a
//! record. In that record no two pods share an address, and the handover writes the same allocations back.

use std::collections::BTreeSet;

use ipam::id::EniId;
use ipam::time::Timestamp;
use mangle::hostile;
use proptest::prelude::*;

use super::tests::SAMPLE;
use super::*;
use crate::migration::{self, Place, Sorted};

/// The host veth of `default/web-0`.
const LINK: &str = "eni0d7763386da";

fn place(_: IpAddr) -> Place {
    let eni = EniId::try_from("eni-1").unwrap();
    Place { eni, device_index: 0, network_card: 0 }
}

/// Checkpoints as the incumbent writes them: on one line, on many lines, and empty.
fn good() -> Vec<Vec<u8>> {
    let value: Value = serde_json::from_str(SAMPLE).unwrap();
    let none = write(&[]);
    vec![SAMPLE.into(), serde_json::to_vec_pretty(&value).unwrap(), none.into_bytes()]
}

proptest! {
    #[test]
    fn fuzz_checkpoint(document in hostile(good()), now_ms: u64) {
        let allocations = match parse(&document) {
            Ok(allocations) => allocations,
            Err(CheckpointError::Json(_)) => return Ok(()),
            Err(CheckpointError::Value { place, problem }) => {
                let known = ["the checkpoint", "version", "allocations"];
                prop_assert!(known.iter().any(|known| place.starts_with(known)), "{place}");
                prop_assert!(problem.len() < 1_000, "{problem}");
                return Ok(());
            }
        };
        let addresses: BTreeSet<_> = allocations.iter().map(|found| found.address).collect();
        prop_assert_eq!(addresses.len(), allocations.len());
        prop_assert!(addresses.iter().all(|address| is_pod_address(*address)));
        prop_assert_eq!(parse(write(&allocations).as_bytes()).unwrap(), allocations.clone());

        let sorted = migration::sort(allocations, &[LINK.to_owned()].into());
        // A pod may be listed twice, once with the incumbent's old placeholders.
        let Ok(record) = migration::record(&sorted, place, Timestamp::from_millis(now_ms)) else {
            return Ok(());
        };
        let Sorted { living, dead } = sorted;
        prop_assert_eq!(record.assignments().len(), living.len());
        prop_assert!(dead.iter().all(|found| record.cooling().contains_key(&found.address)));
        let back = parse(write(&migration::allocations(&record)).as_bytes()).unwrap();
        let back: BTreeSet<_> = back.into_iter().map(|found| found.address).collect();
        prop_assert_eq!(back, living.iter().map(|found| found.address).collect());
    }
}
