//! Spans of IPv4 addresses: which are free between those that are taken, and which aligned blocks fit.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Addresses from `start` to before `end`. It may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Span {
    pub(crate) fn of(net: Ipv4Net) -> Self {
        let start = u64::from(u32::from(net.network()));
        Self { start, end: start + size(net) }
    }

    pub(crate) fn of_address(address: Ipv4Addr) -> Self {
        let start = u64::from(u32::from(address));
        Self { start, end: start + 1 }
    }

    pub(crate) fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// What both have.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }

    /// How many aligned blocks of this many addresses fit. `size` is a power of two.
    pub(crate) fn n_aligned(self, size: u64) -> u64 {
        (self.end / size).saturating_sub(self.start.div_ceil(size))
    }

    /// The largest aligned block, the first of those.
    pub(crate) fn largest_block(self) -> Option<Ipv4Net> {
        (0..=32_u8).find_map(|length| {
            let size = 1_u64 << (32 - length);
            let start = self.start.div_ceil(size) * size;
            let address = u32::try_from(start).ok().filter(|_| start + size <= self.end)?;
            Ipv4Net::new(address.into(), length).ok()
        })
    }
}

/// The number of addresses of a range.
pub(crate) fn size(net: Ipv4Net) -> u64 {
    1 << (32 - net.prefix_len())
}

/// `spans` in order, each merged with those that touch it; empty ones are left out.
pub(crate) fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| span.len() > 0);
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut().filter(|last| span.start <= last.end) {
            Some(last) => last.end = last.end.max(span.end),
            None => merged.push(span),
        }
    }
    merged
}

/// What of `whole` is in none of `taken`, in order.
pub(crate) fn free(whole: Span, taken: Vec<Span>) -> Vec<Span> {
    let taken = merged(taken.into_iter().map(|span| span.and(whole)).collect());
    let starts = std::iter::once(whole.start).chain(taken.iter().map(|span| span.end));
    let ends = taken.iter().map(|span| span.start).chain([whole.end]);
    starts.zip(ends).map(|(start, end)| Span { start, end }).filter(|span| span.len() > 0).collect()
}

/// The sum of addresses.
pub(crate) fn total(spans: &[Span]) -> u64 {
    spans.iter().map(|span| span.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        let span = (0_u64..300, 0_u64..40).prop_map(|(start, n)| Span { start, end: start + n });
        proptest::collection::vec(span, 0..12)
    }

    proptest! {
        #[test]
        fn free_spans_equal_a_set_of_addresses(start in 0_u64..100, n in 0_u64..256, taken in spans()) {
            let whole = Span { start, end: start + n };
            let mut set: BTreeSet<u64> = (whole.start..whole.end).collect();
            for span in &taken {
                (span.start..span.end).for_each(|address| { set.remove(&address); });
            }
            let free = free(whole, taken);
            let found: Vec<u64> = free.iter().flat_map(|span| span.start..span.end).collect();
            prop_assert_eq!(&found, &set.iter().copied().collect::<Vec<_>>());
            let is_free = |block: u64, size: u64| (block * size..(block + 1) * size).all(|a| set.contains(&a));
            let n_aligned = (0..40).filter(|block| is_free(*block, 16)).count();
            prop_assert_eq!(free.iter().map(|span| span.n_aligned(16)).sum::<u64>(), n_aligned as u64);
            let largest = free.iter().filter_map(|span| span.largest_block()).map(size).max();
            let naive = (0..9).rev().map(|bits| 1_u64 << bits)
                .find(|size| (0..=400 / size).any(|block| is_free(block, *size)));
            prop_assert_eq!(largest, naive);
        }
    }

    #[test]
    fn spans_reach_both_ends_of_the_address_space() {
        let all = Span::of("0.0.0.0/0".parse().unwrap());
        assert_eq!(all.largest_block(), Some("0.0.0.0/0".parse().unwrap()));
        let last = Span::of("255.255.255.0/24".parse().unwrap());
        assert_eq!(last.largest_block(), Some("255.255.255.0/24".parse().unwrap()));
        assert_eq!(all.n_aligned(1 << 31), 2);
    }
}
