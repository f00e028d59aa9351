//! The address space against a naive model with one cell per address of the subnet.

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::*;
use crate::family::{V4, V6};
use crate::rng::Rng;

const CHOICES: [AddressChoice; 3] =
    [AddressChoice::Random, AddressChoice::LowestFirst, AddressChoice::Spread];

fn eni(number: u128) -> Holder {
    Holder::Eni(EniId::from_number(number))
}

/// The state of one address.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cell {
    Reserved,
    Free,
    Single,
    InPrefix,
}

#[derive(Debug)]
struct Naive {
    cells: Vec<Cell>,
    set_aside: Vec<(Ipv4Net, ReservationType)>,
    subnet: Ipv4Net,
}

impl Naive {
    fn new(subnet: Ipv4Net) -> Self {
        let n = 1 << (32 - subnet.prefix_len());
        let mut cells = vec![Cell::Free; n];
        cells[..4].fill(Cell::Reserved);
        cells[n - 1] = Cell::Reserved;
        Self { cells, set_aside: Vec::new(), subnet }
    }

    fn addr(&self, offset: usize) -> std::net::Ipv4Addr {
        (u32::from(self.subnet.network()) + u32::try_from(offset).unwrap()).into()
    }

    fn offset(&self, addr: std::net::Ipv4Addr) -> usize {
        (u32::from(addr) - u32::from(self.subnet.network())) as usize
    }

    fn prefix(&self, block: usize) -> Ipv4Net {
        Ipv4Net::new(self.addr(block * 16), 28).unwrap()
    }

    fn n_free(&self) -> u128 {
        wide(self.cells.iter().filter(|cell| **cell == Cell::Free).count())
    }

    fn is_aside(&self, offset: usize) -> bool {
        self.set_aside.iter().any(|(net, _)| net.contains(&self.addr(offset)))
    }

    fn n_free_set_aside(&self) -> u128 {
        let free = |offset: &usize| self.cells[*offset] == Cell::Free && self.is_aside(*offset);
        wide((0..self.cells.len()).filter(free).count())
    }

    fn block_is_free(&self, block: usize) -> bool {
        self.cells[block * 16..][..16].iter().all(|cell| *cell == Cell::Free)
    }

    /// Addresses that EC2 may choose.
    fn addresses_for_all(&self) -> Vec<std::net::Ipv4Addr> {
        (0..self.cells.len())
            .filter(|offset| self.cells[*offset] == Cell::Free && !self.is_aside(*offset))
            .map(|offset| self.addr(offset))
            .collect()
    }

    /// Prefixes that EC2 may choose.
    fn prefixes_for_all(&self) -> Vec<Ipv4Net> {
        let only_reserved = self.set_aside.iter().any(|(_, kind)| *kind == ReservationType::Prefix);
        let reserved_for_prefixes = |prefix: &Ipv4Net| {
            self.set_aside
                .iter()
                .any(|(net, kind)| *kind == ReservationType::Prefix && net.contains(prefix))
        };
        (0..self.cells.len() / 16)
            .filter(|block| self.block_is_free(*block))
            .filter(|block| match only_reserved {
                true => reserved_for_prefixes(&self.prefix(*block)),
                false => (block * 16..block * 16 + 16).all(|offset| !self.is_aside(offset)),
            })
            .map(|block| self.prefix(block))
            .collect()
    }
}

/// One operation on an address space. Numbers are taken modulo the number of candidates.
#[derive(Debug, Clone)]
enum Operation {
    TakeAddress(usize),
    TakePrefix(usize),
    ChooseAddress,
    ChoosePrefix,
    ReleaseAddress(usize),
    ReleasePrefix(usize),
    SetAside(usize, u8, bool),
    Restore(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => any::<usize>().prop_map(Operation::TakeAddress),
        2 => any::<usize>().prop_map(Operation::TakePrefix),
        6 => Just(Operation::ChooseAddress),
        4 => Just(Operation::ChoosePrefix),
        4 => any::<usize>().prop_map(Operation::ReleaseAddress),
        3 => any::<usize>().prop_map(Operation::ReleasePrefix),
        1 => (any::<usize>(), 25..31u8, any::<bool>())
            .prop_map(|(at, len, prefix)| Operation::SetAside(at, len, prefix)),
        1 => any::<usize>().prop_map(Operation::Restore),
    ]
}

/// The address space and its naive model, which go through the same operations.
struct Pair {
    space: AddressSpace<V4>,
    naive: Naive,
    choice: AddressChoice,
    rng: Rng,
}

impl Pair {
    fn apply(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        let n = self.naive.cells.len();
        match operation {
            Operation::TakeAddress(at) => self.take_address(at % n),
            Operation::TakePrefix(at) => self.take_prefix(at % (n / 16)),
            Operation::ChooseAddress => self.choose_address(),
            Operation::ChoosePrefix => self.choose_prefix(),
            Operation::ReleaseAddress(at) => self.release_address(at % n),
            Operation::ReleasePrefix(at) => self.release_prefix(at % (n / 16)),
            Operation::SetAside(at, len, for_prefixes) => {
                self.set_aside(at % n, *len, *for_prefixes)
            }
            Operation::Restore(at) => {
                if !self.naive.set_aside.is_empty() {
                    let at = at % self.naive.set_aside.len();
                    let (net, _) = self.naive.set_aside.swap_remove(at);
                    self.space.restore(net);
                }
                Ok(())
            }
        }
    }

    fn take_address(&mut self, offset: usize) -> Result<(), TestCaseError> {
        let Self { space, naive, .. } = self;
        let expect = match naive.cells[offset] {
            Cell::Reserved => Err(TakeError::Reserved),
            Cell::Free => Ok(()),
            Cell::Single | Cell::InPrefix => Err(TakeError::Held(eni(1))),
        };
        prop_assert_eq!(space.take_address(naive.addr(offset), eni(1)), expect.clone());
        if expect.is_ok() {
            naive.cells[offset] = Cell::Single;
        }
        Ok(())
    }

    fn take_prefix(&mut self, block: usize) -> Result<(), TestCaseError> {
        let Self { space, naive, .. } = self;
        let taken = space.take_prefix(naive.prefix(block), eni(1)).is_ok();
        prop_assert_eq!(taken, naive.block_is_free(block));
        if taken {
            naive.cells[block * 16..][..16].fill(Cell::InPrefix);
        }
        Ok(())
    }

    fn choose_address(&mut self) -> Result<(), TestCaseError> {
        let Self { space, naive, choice, rng } = self;
        let allowed = naive.addresses_for_all();
        let chosen = space.choose_address(*choice, eni(1), rng);
        prop_assert_eq!(chosen.is_some(), !allowed.is_empty());
        if let Some(addr) = chosen {
            prop_assert!(allowed.contains(&addr));
            prop_assert!(*choice != AddressChoice::LowestFirst || addr == allowed[0]);
            let offset = naive.offset(addr);
            naive.cells[offset] = Cell::Single;
        }
        Ok(())
    }

    fn choose_prefix(&mut self) -> Result<(), TestCaseError> {
        let Self { space, naive, choice, rng } = self;
        let allowed = naive.prefixes_for_all();
        let chosen = space.choose_prefix(*choice, eni(1), rng);
        prop_assert_eq!(chosen.is_some(), !allowed.is_empty());
        if let Some(prefix) = chosen {
            prop_assert!(allowed.contains(&prefix));
            let offset = naive.offset(prefix.network());
            naive.cells[offset..][..16].fill(Cell::InPrefix);
        }
        Ok(())
    }

    fn release_address(&mut self, offset: usize) -> Result<(), TestCaseError> {
        let Self { space, naive, .. } = self;
        let held = naive.cells[offset] == Cell::Single;
        prop_assert_eq!(space.release_address(naive.addr(offset)), held);
        if held {
            naive.cells[offset] = Cell::Free;
        }
        Ok(())
    }

    fn release_prefix(&mut self, block: usize) -> Result<(), TestCaseError> {
        let Self { space, naive, .. } = self;
        let held = naive.cells[block * 16 + 8] == Cell::InPrefix;
        prop_assert_eq!(space.release_prefix(naive.prefix(block)), held);
        if held {
            naive.cells[block * 16..][..16].fill(Cell::Free);
        }
        Ok(())
    }

    fn set_aside(
        &mut self,
        offset: usize,
        len: u8,
        for_prefixes: bool,
    ) -> Result<(), TestCaseError> {
        let Self { space, naive, .. } = self;
        let net = Ipv4Net::new(naive.addr(offset), len).unwrap().trunc();
        let kind = match for_prefixes {
            true => ReservationType::Prefix,
            false => ReservationType::Explicit,
        };
        let overlaps = |(other, _): &(Ipv4Net, _)| other.contains(&net) || net.contains(other);
        let fits = !naive.set_aside.iter().any(overlaps);
        prop_assert_eq!(space.set_aside(net, kind), fits);
        if fits {
            naive.set_aside.push((net, kind));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Every answer equals the naive model's. So nothing has two holders, reserved addresses are
    /// never given, prefixes are aligned and disjoint, and a release undoes a take.
    #[test]
    fn address_space_matches_naive_model(
        operations in prop::collection::vec(operation(), 1..120),
        len in 24..=25u8,
        choice in prop::sample::select(&CHOICES),
        seed in any::<u64>(),
    ) {
        let subnet = Ipv4Net::new([10, 0, 6, 0].into(), len).unwrap();
        let (space, naive, rng) = (AddressSpace::<V4>::new(subnet), Naive::new(subnet), Rng::new(seed));
        let mut pair = Pair { space, naive, choice, rng };
        for operation in &operations {
            pair.apply(operation)?;
            prop_assert_eq!(pair.space.n_free(), pair.naive.n_free());
            prop_assert_eq!(pair.space.n_free_set_aside(), pair.naive.n_free_set_aside());
        }
        let Pair { space, naive, .. } = pair;
        for offset in 0..naive.cells.len() {
            let held = matches!(naive.cells[offset], Cell::Single | Cell::InPrefix);
            prop_assert_eq!(space.holder(naive.addr(offset)).is_some(), held);
        }
    }
}

#[test]
fn subnet_size_determines_capacity() {
    let check = |subnet: &str, n_addresses: usize, n_prefixes: usize| {
        for choice in CHOICES {
            let mut rng = Rng::new(3);
            let mut space = AddressSpace::<V4>::new(subnet.parse().unwrap());
            let addresses =
                std::iter::from_fn(|| space.choose_address(choice, Holder::Other, &mut rng));
            assert_eq!(addresses.count(), n_addresses, "{subnet} {choice:?}");
            let mut space = AddressSpace::<V4>::new(subnet.parse().unwrap());
            let prefixes =
                std::iter::from_fn(|| space.choose_prefix(choice, Holder::Other, &mut rng));
            assert_eq!(prefixes.count(), n_prefixes, "{subnet} {choice:?}");
        }
    };
    check("10.0.0.0/28", 11, 0);
    check("10.0.0.0/27", 27, 0);
    check("10.0.0.0/26", 59, 2);
    check("10.0.0.0/25", 123, 6);
    check("10.0.0.0/24", 251, 14);
    check("10.0.0.0/20", 4091, 254);
}

#[test]
fn ipv6_subnet_serves_many_requests() {
    let subnet: Ipv6Net = "2600:1f13:abc:de00::/64".parse().unwrap();
    for choice in CHOICES {
        let mut rng = Rng::new(3);
        let mut space = AddressSpace::<V6>::new(subnet);
        for _ in 0..100 {
            let prefix = space.choose_prefix(choice, Holder::Other, &mut rng).unwrap();
            let addr = space.choose_address(choice, Holder::Other, &mut rng).unwrap();
            assert!(subnet.contains(&prefix) && prefix.prefix_len() == 80, "{prefix}");
            assert!(subnet.contains(&addr) && !prefix.contains(&addr), "{addr}");
            assert_eq!(prefix.trunc(), prefix);
        }
        assert_eq!(space.prefixes.len(), 100);
        let first = "2600:1f13:abc:de00::/80".parse().unwrap();
        assert!(space.take_prefix(first, Holder::Other).is_err(), "the router's block");
    }
}

#[test]
fn bad_prefixes_are_refused() {
    let check = |prefix: &str, expect| {
        let mut space = AddressSpace::<V4>::new("10.0.1.0/24".parse().unwrap());
        space.take_address("10.0.1.40".parse().unwrap(), Holder::Other).unwrap();
        assert_eq!(space.take_prefix(prefix.parse().unwrap(), eni(1)), expect, "{prefix}");
    };
    check("10.0.1.16/28", Ok(()));
    check("10.0.1.17/28", Err(TakeError::Misaligned));
    check("10.0.1.16/29", Err(TakeError::Misaligned));
    check("10.0.2.0/28", Err(TakeError::Outside));
    check("10.0.1.0/28", Err(TakeError::Reserved));
    check("10.0.1.240/28", Err(TakeError::Reserved));
    check("10.0.1.32/28", Err(TakeError::Held(Holder::Other)));
}
