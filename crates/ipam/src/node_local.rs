//! Node-local addresses: a second address of a pod, of the family that its VPC address is not of. The node translates
//! it, so the pod reaches that family through the node. It means nothing outside the node.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::block::Family;
use crate::pool::Pool;
use crate::record::Record;
use crate::rest::Rests;
use crate::time::Timestamp;

/// The ranges are those of amazon-vpc-cni-k8s.
/// Source: v1.23.1, `cmd/aws-vpc-cni/main.go`.
const IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 172, 0), 22);
const IPV6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0xac, 0), 118);
/// The offsets of pods' addresses in their range. The first two and the last are left out: in IPv4 they are the network,
/// the gateway of amazon-vpc-cni-k8s, and the broadcast address.
const OFFSETS: RangeInclusive<u16> = 2..=1022;

/// The range of the family's node-local addresses.
#[must_use]
pub fn range(family: Family) -> IpNet {
    match family {
        Family::V4 => IPV4.into(),
        Family::V6 => IPV6.into(),
    }
}

/// Whether `address` is node-local.
#[must_use]
pub fn is_node_local(address: IpAddr) -> bool {
    range(Family::of(address)).contains(&address)
}

/// The families whose node-local addresses some pod has, by the record or by the kernel.
pub(crate) fn families_in_use(pool: &Pool, record: &Record) -> impl Iterator<Item = Family> {
    [Family::V4, Family::V6].into_iter().filter(|family| {
        let bounds = bounds(*family);
        record.owners().range(bounds.clone()).next().is_some()
            || pool.quarantine.range(bounds).next().is_some()
    })
}

/// The node-local addresses on record that have rested.
pub(crate) fn rested(record: &Record, rests: Rests) -> impl Iterator<Item = IpAddr> {
    let resting = [Family::V4, Family::V6].map(|family| record.cooling().range(bounds(family)));
    let rested = resting.into_iter().flatten().filter(move |(_, since)| !rests.is_resting(**since));
    rested.map(|(address, _)| *address)
}

/// Picks node-local addresses in turn, so that one serves again as late as possible.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeLocals {
    /// The offset of the address that was picked last.
    last: u16,
}

impl NodeLocals {
    /// An address for the next pod. None that a pod on record has, that is `promised`, or that the kernel routes to a
    /// pod: pods of amazon-vpc-cni-k8s have such addresses too. One that rests is picked only if all others are taken.
    /// `None` if all are.
    pub(crate) fn pick(
        &mut self,
        family: Family,
        (pool, record): (&Pool, &Record),
        promised: &BTreeSet<IpAddr>,
        rests: Rests,
    ) -> Option<IpAddr> {
        let (first, last) = (*OFFSETS.start(), *OFFSETS.end());
        let next = (self.last + 1).max(first);
        let in_turn = (next..=last).chain(first..=next.saturating_sub(1));
        let mut longest_rested: Option<(Timestamp, u16)> = None;
        for offset in in_turn {
            let address = address(family, offset);
            if record.owner(address).is_some()
                || promised.contains(&address)
                || pool.quarantine.contains_key(&address)
            {
                continue;
            }
            match record.cooling().get(&address).filter(|since| rests.is_resting(**since)) {
                None => return Some(self.take(family, offset)),
                Some(since) => {
                    let rest = (*since, offset);
                    longest_rested = Some(longest_rested.map_or(rest, |other| other.min(rest)));
                }
            }
        }
        longest_rested.map(|(_, offset)| self.take(family, offset))
    }

    fn take(&mut self, family: Family, offset: u16) -> IpAddr {
        self.last = offset;
        address(family, offset)
    }
}

fn address(family: Family, offset: u16) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::from(IPV4.network()) + u32::from(offset)).into(),
        Family::V6 => Ipv6Addr::from(u128::from(IPV6.network()) + u128::from(offset)).into(),
    }
}

fn bounds(family: Family) -> RangeInclusive<IpAddr> {
    let range = range(family);
    range.network()..=range.broadcast()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::{AttachmentKey, EniId, Pod};
    use crate::kernel_report::PodLink;
    use crate::record::{Addresses, Assignment, Change, PodIp, PodIpv6, Via};

    fn rests(now_s: u64) -> Rests {
        let now = Timestamp::from_millis(now_s * 1000);
        Rests { cooldown: Duration::from_secs(30), now, kernel_checked: None }
    }

    fn assign(record: &mut Record, pod: u16, node_local: IpAddr) {
        let via = Via::Eni { eni: EniId::try_from("eni-1").unwrap(), card: 0, index: 0 };
        let address = Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(pod)).into();
        let assignment = Assignment {
            addresses: Addresses::one(PodIp { address, via }),
            node_local: Some(node_local),
            ipv6: PodIpv6::AsItIs,
            pod: Pod::default(),
            netns: String::new(),
            since: Timestamp::default(),
        };
        record.apply(&Change::Assigned { key: key(pod), assignment }).unwrap();
    }

    fn key(pod: u16) -> AttachmentKey {
        let (container, ifname) = (pod.to_string(), "eth0".to_owned());
        AttachmentKey { network: "aws-cni".into(), container, ifname }
    }

    fn release(record: &mut Record, pod: u16, at_s: u64) {
        let at = Timestamp::from_millis(at_s * 1000);
        record.apply(&Change::Released { key: key(pod), at }).unwrap();
    }

    #[test]
    fn every_address_but_three_serves_once() {
        for (family, first, last) in [
            (Family::V4, "169.254.172.2", "169.254.175.254"),
            (Family::V6, "fd00::ac:2", "fd00::ac:3fe"),
        ] {
            let (mut locals, mut record, pool) =
                (NodeLocals::default(), Record::default(), Pool::default());
            let mut seen = BTreeSet::new();
            let none = BTreeSet::new();
            while let Some(ip) = locals.pick(family, (&pool, &record), &none, rests(0)) {
                assert!(is_node_local(ip) && seen.insert(ip), "{ip}");
                assign(&mut record, u16::try_from(seen.len()).unwrap(), ip);
            }
            assert_eq!(seen.len(), 1021);
            let ends = [first, last].map(|ip| ip.parse::<IpAddr>().unwrap());
            assert_eq!([*seen.first().unwrap(), *seen.last().unwrap()], ends);
            assert_eq!(families_in_use(&pool, &record).collect::<Vec<_>>(), [family]);
            // The one that has rested longest serves again, even before the end of its rest.
            release(&mut record, 7, 10);
            release(&mut record, 5, 11);
            let again = locals.pick(family, (&pool, &record), &none, rests(12)).unwrap();
            assert_eq!(Some(&again), seen.iter().nth(6));
        }
    }

    #[test]
    fn address_serves_again_as_late_as_possible() {
        let (mut locals, mut record, pool) =
            (NodeLocals::default(), Record::default(), Pool::default());
        let mut pick = |record: &Record, now| {
            let none = BTreeSet::new();
            locals.pick(Family::V4, (&pool, record), &none, rests(now)).unwrap()
        };
        let first = pick(&record, 0);
        assign(&mut record, 1, first);
        release(&mut record, 1, 0);
        for _ in 1..1021 {
            assert_ne!(pick(&record, 60), first);
        }
        assert_eq!(pick(&record, 60), first);
        assert_eq!(rested(&record, rests(29)).next(), None);
        assert_eq!(rested(&record, rests(30)).collect::<Vec<_>>(), [first]);
    }

    #[test]
    fn address_of_a_link_without_record_is_not_picked() {
        let (mut locals, record, mut pool) =
            (NodeLocals::default(), Record::default(), Pool::default());
        let of_incumbent = "169.254.172.2".parse().unwrap();
        let link = PodLink { name: "veth0123abcd".to_owned(), mark: None };
        pool.put_in_quarantine(of_incumbent, link);
        let promised = BTreeSet::from(["169.254.172.3".parse().unwrap()]);
        let picked = locals.pick(Family::V4, (&pool, &record), &promised, rests(0));
        assert_eq!(picked, Some("169.254.172.4".parse().unwrap()));
        assert_eq!(families_in_use(&pool, &record).collect::<Vec<_>>(), [Family::V4]);
    }
}
