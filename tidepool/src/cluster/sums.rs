//! Sums over the nodes: what all hold, which nodes hold most of what is idle, and how fast subnets run out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::answer::{Counts, NodeAnswer, Subnet};

/// Sums over all nodes that have answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    pub(super) counts: Counts,
    /// The nodes that together hold half of all idle addresses, those with most first. No smaller number of nodes does.
    pub(super) hoarders: Vec<(String, u64)>,
    /// By id, those that pods use or could use.
    pub(super) subnets: BTreeMap<String, SubnetSums>,
}

/// A subnet over all nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct SubnetSums {
    pub(super) cidr: String,
    /// By the newest answer that a node has of EC2.
    pub(super) free_addresses: Option<u32>,
    pub(super) described_ms: Option<u64>,
    /// The nodes with addresses in it.
    pub(super) n_nodes: u64,
    pub(super) counts: Counts,
    /// `address SUBNET_EXHAUSTED`, for each refusal of a node.
    pub(super) refusals: BTreeSet<String>,
}

/// When each subnet is exhausted if it goes on as between two polls; only those from which the nodes take addresses.
pub(super) type Pace = BTreeMap<String, Duration>;

impl Sums {
    /// The sums of the nodes that have answered.
    pub(super) fn of(nodes: &[NodeAnswer]) -> Self {
        let mut sums = Self::default();
        for node in nodes {
            if let Ok(pool) = &node.pool {
                add(&mut sums.counts, &pool.counts);
            }
            let used = |subnet: &&Subnet| subnet.role == "new-enis" || subnet.counts.total > 0;
            for subnet in node.subnets.iter().filter(used) {
                sums.subnets.entry(subnet.id.clone()).or_default().take_in(subnet);
            }
        }
        sums.hoarders = hoarders(nodes, sums.counts.free);
        sums
    }

    /// How soon subnets are exhausted, by what the nodes have taken of them within `span` since `before`. EC2's answers
    /// are too old to show that: a node at rest asks rarely.
    pub(super) fn pace(&self, before: &Self, span: Duration) -> Pace {
        let of = |(id, now): (&String, &SubnetSums)| {
            let free = f64::from(now.free_addresses?);
            let taken = now.counts.total.checked_sub(before.subnets.get(id)?.counts.total)?;
            let left = span.as_secs_f64() * free / taken as f64;
            Some((id.clone(), Duration::try_from_secs_f64(left).ok()?))
        };
        self.subnets.iter().filter_map(of).collect()
    }
}

impl SubnetSums {
    fn take_in(&mut self, subnet: &Subnet) {
        let Subnet { id: _, cidr, free_addresses, role: _, counts, refusals, described_ms } =
            subnet;
        self.cidr.clone_from(cidr);
        if free_addresses.is_some() && *described_ms >= self.described_ms {
            (self.free_addresses, self.described_ms) = (*free_addresses, *described_ms);
        }
        self.n_nodes += u64::from(counts.total > 0);
        add(&mut self.counts, counts);
        self.refusals.extend(refusals.iter().map(|it| format!("{} {}", it.of, it.code)));
    }
}

/// A node may say any number, so no sum overflows.
fn add(sum: &mut Counts, counts: &Counts) {
    let Counts { total, assigned, cooling, free, waiting } = counts;
    for (sum, n) in [
        (&mut sum.total, total),
        (&mut sum.assigned, assigned),
        (&mut sum.cooling, cooling),
        (&mut sum.free, free),
        (&mut sum.waiting, waiting),
    ] {
        *sum = sum.saturating_add(*n);
    }
}

fn hoarders(nodes: &[NodeAnswer], n_free: u64) -> Vec<(String, u64)> {
    let free = |node: &NodeAnswer| Some((node.node.clone(), node.pool.as_ref().ok()?.counts.free));
    let mut by_free: Vec<_> = nodes.iter().filter_map(free).filter(|(_, free)| *free > 0).collect();
    by_free.sort_by_key(|(node, free)| (Reverse(*free), node.clone()));
    let mut sum = 0_u64;
    let before_half = by_free.into_iter().take_while(|(_, free)| {
        let is_before = sum < n_free.div_ceil(2);
        sum = sum.saturating_add(*free);
        is_before
    });
    before_half.collect()
}

#[cfg(test)]
mod tests {
    use super::super::answer::Pool;
    use super::*;

    fn counts(assigned: u64, free: u64) -> Counts {
        Counts { total: assigned + free, assigned, free, ..Counts::default() }
    }

    fn node(name: &str, counts: Counts, subnets: Vec<Subnet>) -> NodeAnswer {
        let pool = Pool {
            instance_type: "m5.large".into(),
            version: "0.1.0".into(),
            mode: "secondary-ip".into(),
            counts,
            blocked: vec![],
        };
        NodeAnswer { node: name.into(), pool: Ok(pool), subnets }
    }

    fn subnet(free: u32, described_ms: u64, counts: Counts) -> Subnet {
        Subnet {
            id: "subnet-a".into(),
            cidr: "10.0.0.0/24".into(),
            free_addresses: Some(free),
            role: "new-enis".into(),
            counts,
            refusals: vec![],
            described_ms: Some(described_ms),
        }
    }

    #[test]
    fn fewest_nodes_with_half_of_the_idle_addresses_hoard() {
        let check = |free: &[u64], expect: &[u64]| {
            let nodes = free
                .iter()
                .zip('a'..)
                .map(|(n, name)| node(&name.to_string(), counts(1, *n), vec![]));
            let sums = Sums::of(&nodes.collect::<Vec<_>>());
            assert_eq!(
                sums.hoarders.iter().map(|(_, n)| *n).collect::<Vec<_>>(),
                expect,
                "{free:?}"
            );
        };
        check(&[], &[]);
        check(&[0, 0], &[]);
        check(&[5, 5], &[5]);
        check(&[1, 9, 1, 8], &[9, 8]);
        check(&[2, 2, 2, 2], &[2, 2]);
    }

    #[test]
    fn newest_answer_of_ec2_counts_for_a_subnet() {
        let a = node("a", counts(3, 1), vec![subnet(200, 2_000, counts(3, 1))]);
        let b = node("b", counts(4, 0), vec![subnet(150, 9_000, counts(4, 0))]);
        let mut silent = node("c", counts(0, 0), vec![]);
        silent.pool = Err("no answer".into());
        let sums = Sums::of(&[a, b, silent]);
        let subnet = &sums.subnets["subnet-a"];
        assert_eq!((subnet.free_addresses, subnet.n_nodes, subnet.counts.total), (Some(150), 2, 8));
        assert_eq!((sums.counts.total, sums.counts.assigned, sums.counts.free), (8, 7, 1));
    }

    #[test]
    fn subnet_that_nodes_take_from_has_a_time_left() {
        let of = |free, held| {
            Sums::of(&[node("a", counts(held, 0), vec![subnet(free, 1, counts(held, 0))])])
        };
        let check = |free, before, now, expect: Option<u64>| {
            let pace = of(free, now).pace(&of(free, before), Duration::from_secs(10));
            assert_eq!(pace.get("subnet-a").map(Duration::as_secs), expect, "{before} {now}");
        };
        check(100, 10, 20, Some(100));
        check(100, 10, 10, None);
        check(100, 20, 10, None);
        check(0, 10, 20, Some(0));
    }
}
