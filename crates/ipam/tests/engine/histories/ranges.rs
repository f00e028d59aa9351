//! The VPC's ranges in a history: a naive model of what the metadata service has shown, and what must follow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipam::event::{HostNat, HostPicture};
use ipam::record::Record;
use ipam::time::Timestamp;
use ipnet::{IpNet, Ipv4Net};

/// How long a range stays that is not shown any more.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(600);

/// What this run of the daemon can know.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// When each range was last shown, or found on record at the start.
    seen: BTreeMap<Ipv4Net, Timestamp>,
}

impl Ranges {
    pub(super) fn show(&mut self, shown: &BTreeSet<Ipv4Net>, now: Timestamp) {
        self.seen.extend(shown.iter().map(|range| (*range, now)));
    }

    /// Another run starts from `record`.
    pub(super) fn restart(&mut self, record: &Record, now: Timestamp) {
        self.seen = record.vpc_ranges().iter().map(|range| (*range, now)).collect();
    }

    /// Checks that each range shown lately keeps its addresses, and that nothing else does but the ENIs' subnets.
    pub(super) fn check(&self, picture: &HostPicture, now: Timestamp) {
        let HostNat::Wanted(nat) = &picture.nat else {
            let is_known = !self.seen.is_empty() && !picture.enis.is_empty();
            assert!(!is_known, "{:?} although {:?} were shown", picture.nat, self.seen);
            return;
        };
        let untranslated = &nat.source.as_ref().expect("the node translates").untranslated;
        let lately = self.seen.iter().filter(|(_, at)| **at + KEPT_FOR > now);
        let lost = lately.map(|(range, _)| range).find(|range| !untranslated.contains(range));
        assert_eq!(lost, None, "a range of the VPC is translated");
        let subnets = picture.enis.iter().map(|eni| eni.subnet_cidr);
        let known: BTreeSet<_> =
            self.seen.keys().map(|range| IpNet::V4(*range)).chain(subnets).collect();
        let other = untranslated.iter().find(|range| !known.contains(&IpNet::V4(**range)));
        assert_eq!(other, None, "nobody has shown this range");
        assert!(!self.seen.is_empty(), "the VPC's ranges are unknown");
    }
}
