//! The space of a pool against a naive model with one cell per address.
//!
//! Each history has a seed. `SEED` is the seed of the first one and `HISTORIES` their number.

use std::time::Instant;

use address_plan::block::Block;
use address_plan::space::{Space, TakeError};
use ec2_api::Rng;
use ipnet::IpNet;

/// What lies around the 64 addresses that a history plays with: the edges of both families too.
const WORLDS: [&str; 6] = [
    "10.1.2.0/26",
    "0.0.0.0/26",
    "255.255.255.192/26",
    "2600:1f13::/122",
    "::/122",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffc0/122",
];

const N_CELLS: usize = 64;
const N_STEPS: usize = 40;
const N_HISTORIES: u64 = 3_000;

/// One address.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cell {
    Outside,
    Free { range: usize },
    Held { range: usize, by: u32 },
}

/// A block as cells: the first and the number of them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    at: usize,
    n: usize,
}

impl Span {
    fn overlaps(self, other: Self) -> bool {
        self.at < other.at + other.n && other.at < self.at + self.n
    }

    fn contains(self, other: Self) -> bool {
        self.at <= other.at && other.at + other.n <= self.at + self.n
    }
}

#[derive(Debug)]
struct Naive {
    world: IpNet,
    cells: [Cell; N_CELLS],
}

impl Naive {
    fn any_span(rng: &mut Rng) -> Span {
        let n = 1 << rng.index(7);
        Span { at: rng.index(N_CELLS / n) * n, n }
    }

    fn block(&self, span: Span) -> Block {
        let len = self.world.max_prefix_len() - u8::try_from(span.n.ilog2()).unwrap();
        let offset = u128::try_from(span.at).unwrap();
        let cidr = match self.world {
            IpNet::V4(world) => {
                let bits = world.addr().to_bits() + u32::try_from(span.at).unwrap();
                IpNet::new(std::net::Ipv4Addr::from_bits(bits).into(), len)
            }
            IpNet::V6(world) => {
                let bits = world.addr().to_bits() + offset;
                IpNet::new(std::net::Ipv6Addr::from_bits(bits).into(), len)
            }
        };
        Block::from(cidr.unwrap())
    }

    fn of(&self, span: Span) -> &[Cell] {
        &self.cells[span.at..span.at + span.n]
    }

    fn provision(&mut self, span: Span, number: usize) -> bool {
        let fits = self.of(span).iter().all(|cell| *cell == Cell::Outside);
        if fits {
            self.cells[span.at..span.at + span.n].fill(Cell::Free { range: number });
        }
        fits
    }

    fn deprovision(&mut self, span: Span) -> bool {
        let Cell::Free { range } = self.cells[span.at] else { return false };
        let whole = self.cells.iter().enumerate().all(|(at, cell)| {
            let inside = span.contains(Span { at, n: 1 });
            match cell {
                Cell::Free { range: other } => inside == (*other == range),
                Cell::Held { range: other, .. } => !inside && *other != range,
                Cell::Outside => !inside,
            }
        });
        if whole {
            self.cells[span.at..span.at + span.n].fill(Cell::Outside);
        }
        whole
    }

    fn is_free(&self, span: Span) -> bool {
        let Cell::Free { range } = self.cells[span.at] else { return false };
        self.of(span).iter().all(|cell| *cell == Cell::Free { range })
    }

    fn take(&mut self, span: Span, by: u32) -> Result<(), bool> {
        if !self.is_free(span) {
            let held = self.of(span).iter().any(|cell| matches!(cell, Cell::Held { .. }));
            return Err(held);
        }
        for cell in &mut self.cells[span.at..span.at + span.n] {
            let Cell::Free { range } = *cell else { unreachable!("all are free") };
            *cell = Cell::Held { range, by };
        }
        Ok(())
    }

    fn release(&mut self, span: Span) -> Option<u32> {
        let Cell::Held { by, .. } = self.cells[span.at] else { return None };
        let is_its = |cell: &Cell| matches!(cell, Cell::Held { by: other, .. } if *other == by);
        let n = self.cells.iter().filter(|cell| is_its(cell)).count();
        if n != span.n || !self.of(span).iter().all(is_its) {
            return None;
        }
        for cell in &mut self.cells[span.at..span.at + span.n] {
            if let Cell::Held { range, .. } = *cell {
                *cell = Cell::Free { range };
            }
        }
        Some(by)
    }

    fn lowest_free(&self, n: usize, allowed: Option<&[Span]>, disallowed: &[Span]) -> Option<Span> {
        let all = (0..N_CELLS).step_by(n).map(|at| Span { at, n });
        let mut fitting = all.filter(|span| {
            self.is_free(*span)
                && allowed.is_none_or(|it| it.iter().any(|area| area.contains(*span)))
                && !disallowed.iter().any(|area| area.overlaps(*span))
        });
        fitting.next()
    }
}

fn play(seed: u64) {
    let mut rng = Rng::with_stream(seed, 0);
    let world: IpNet = rng.pick(&WORLDS).parse().unwrap();
    let mut naive = Naive { world, cells: [Cell::Outside; N_CELLS] };
    let mut space: Space<u32> = Space::default();
    for step in 0..N_STEPS {
        let span = Naive::any_span(&mut rng);
        let block = naive.block(span);
        let what = format!("seed {seed}, step {step}, {world}, {span:?}");
        match rng.below(10) {
            0 | 1 => assert_eq!(space.provision(block), naive.provision(span, step), "{what}"),
            2 => assert_eq!(space.deprovision(block), naive.deprovision(span), "{what}"),
            3..=5 => {
                let by = u32::try_from(step).unwrap();
                let got = space.take(block, by).map_err(|error| match error {
                    TakeError::Held(held) => {
                        assert!(held.overlaps(block), "{what}");
                        true
                    }
                    TakeError::Outside => false,
                });
                assert_eq!(got, naive.take(span, by), "{what}");
            }
            6 => assert_eq!(space.release(block), naive.release(span), "{what}"),
            _ => {
                let mut spans = |n| (0..n).map(|_| Naive::any_span(&mut rng)).collect::<Vec<_>>();
                let (allowed, disallowed) = (spans(step % 3), spans(step % 4));
                let blocks = |spans: &[Span]| {
                    spans.iter().map(|span| naive.block(*span)).collect::<Vec<_>>()
                };
                let allowed = Some(allowed).filter(|it| !it.is_empty());
                let blocks_allowed = allowed.as_deref().map(blocks);
                let found = space.lowest_free(
                    block.prefix_len(),
                    blocks_allowed.as_deref(),
                    &blocks(&disallowed),
                );
                let expect = naive.lowest_free(span.n, allowed.as_deref(), &disallowed);
                assert_eq!(found, expect.map(|span| naive.block(span)), "{what}");
            }
        }
    }
    check_whole(&naive, &space, seed);
}

/// Held and free blocks are disjoint, are exactly the provisioned CIDRs, and agree with the cells.
fn check_whole(naive: &Naive, space: &Space<u32>, seed: u64) {
    let held: Vec<Block> = space.held().map(|(block, _)| block).collect();
    let parts: Vec<Block> = held.iter().copied().chain(space.free()).collect();
    for (number, part) in parts.iter().enumerate() {
        assert!(space.range_around(*part).is_some(), "seed {seed}: {part:?}");
        assert!(
            !parts[..number].iter().any(|other| other.overlaps(*part)),
            "seed {seed}: {part:?}"
        );
    }
    for at in 0..N_CELLS {
        let cell = naive.block(Span { at, n: 1 });
        let in_space = match naive.cells[at] {
            Cell::Outside => space.range_around(cell).is_none(),
            Cell::Free { .. } => space.free().any(|it| it.contains(cell)),
            Cell::Held { by, .. } => {
                space.held_in(cell).map(|(_, by)| *by).collect::<Vec<_>>() == [by]
            }
        };
        assert!(in_space, "seed {seed}: address {at} is {:?}", naive.cells[at]);
    }
}

#[test]
fn space_agrees_with_a_naive_model() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("SEED").unwrap_or(0);
    let n = number("HISTORIES").unwrap_or(N_HISTORIES);
    let start = Instant::now();
    (first..first + n).for_each(play);
    println!("{n} histories from seed {first} in {:?}", start.elapsed());
}
