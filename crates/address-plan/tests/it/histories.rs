//! Random histories of a tree of pools against a naive model.
//!
//! The naive model is a list of what each pool has given away and what rests there. Each history has
//! a seed: `SEED` is the seed of the first one, and `HISTORIES` their number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use address_plan::Wanted;
use address_plan::config::Config;
use address_plan::id::{AllocationId, PoolId};
use address_plan::request::{
    AllocateIpamPoolCidr, CreateIpamPool, DeleteIpamPool, DeprovisionIpamPoolCidr,
};
use address_plan::resource::Resource;
use address_plan::response::{Allocation, Holder, PoolCidr, PoolCidrState, Response};
use ec2_api::tag::Tags;
use ec2_api::{Rng, SimTime};
use ipnet::{IpNet, Ipv4Net};

use crate::world::{HOME, OWNER, World, net, provision, resource_id, vpc};

const N_HISTORIES: u64 = 150;
const N_STEPS: usize = 40;
const REST: Duration = Duration::from_secs(5 * 60);
/// All that a history plays with: 256 times /28.
const SPACE: &str = "10.0.0.0/20";

/// What a pool has, as its answers say.
#[derive(Debug, Clone, Default)]
struct Seen {
    cidrs: Vec<IpNet>,
    allocations: BTreeMap<AllocationId, Allocation>,
}

#[derive(Debug)]
struct Game {
    world: World,
    rng: Rng,
    seed: u64,
    /// Two top-level pools, a child of the first, and a child of that.
    pools: Vec<PoolId>,
    seen: Vec<Seen>,
    /// Released ranges: pool, range, end of the rest.
    resting: Vec<(usize, IpNet, SimTime)>,
    vpcs: Vec<(String, IpNet)>,
    n_vpcs: usize,
}

impl Game {
    fn new(seed: u64) -> Self {
        let mut world = World::with(Config { seed, ..Config::default() });
        let top = world.pool(world.regional(None));
        let rival = world.pool(CreateIpamPool { auto_import: true, ..world.regional(None) });
        let child = world.pool(world.regional(Some(&top)));
        let low = world.pool(world.regional(Some(&child)));
        let pools = vec![top, rival, child, low];
        Self {
            world,
            rng: Rng::with_stream(seed, 1),
            seed,
            seen: vec![Seen::default(); pools.len()],
            pools,
            resting: Vec::new(),
            vpcs: Vec::new(),
            n_vpcs: 0,
        }
    }

    fn any_len(&mut self) -> u8 {
        u8::try_from(20 + self.rng.below(9)).unwrap()
    }

    fn any_cidr(&mut self) -> IpNet {
        let len = self.any_len();
        let host = u32::try_from(self.rng.below(1 << 12)).unwrap();
        let IpNet::V4(space) = net(SPACE) else { unreachable!() };
        let addr = (space.addr().to_bits() | host).into();
        IpNet::V4(Ipv4Net::new(addr, len).unwrap().trunc())
    }

    fn any_cidrs(&mut self, most: u64) -> Vec<IpNet> {
        (0..self.rng.below(most + 1)).map(|_| self.any_cidr()).collect()
    }

    /// The ranges of a pool that are not free now.
    fn taken(&self, pool: usize) -> Vec<IpNet> {
        let now = self.world.caller.now;
        let resting = self.resting.iter().filter(|(of, _, until)| *of == pool && *until > now);
        let allocated = self.seen[pool].allocations.values().map(|it| it.cidr);
        resting.map(|(_, cidr, _)| *cidr).chain(allocated).collect()
    }

    /// The lowest range that the naive model would give.
    fn lowest(
        &self,
        pool: usize,
        len: u8,
        allowed: &[IpNet],
        disallowed: &[IpNet],
    ) -> Option<IpNet> {
        let taken = self.taken(pool);
        let mut cidrs = self.seen[pool].cidrs.clone();
        cidrs.sort_unstable();
        let fits = |it: &IpNet| {
            !taken.iter().chain(disallowed).any(|other| overlap(*other, *it))
                && (allowed.is_empty() || allowed.iter().any(|area| area.contains(it)))
        };
        cidrs
            .iter()
            .filter(|it| it.prefix_len() <= len)
            .find_map(|cidr| cidr.subnets(len).unwrap().find(|it| fits(it)))
    }

    fn step(&mut self) {
        let pool = self.rng.index(self.pools.len());
        match self.rng.below(20) {
            0..=2 => {
                let cidr = self.any_cidr();
                self.world.provision_any(&self.pools[pool].clone(), Some(cidr), None);
            }
            3 => {
                let len = i32::from(self.any_len());
                let request = provision(&self.pools[pool], None, Some(len));
                let got = self.world.call(request);
                assert_eq!(got.is_ok(), pool >= 2, "only a pool with a source gives by length");
            }
            4 => self.deprovision(pool),
            5..=9 => self.allocate_by_length(pool),
            10 | 11 => self.allocate_by_cidr(pool),
            12 | 13 => self.release(pool),
            14 => self.make_vpc(pool),
            15 => self.sample(),
            16 if self.rng.one_in(4) => self.replace_lowest(),
            16..=19 => {
                let span = Duration::from_secs(self.rng.below(150));
                self.world.wait(span);
            }
            other => unreachable!("{other} is not below 20"),
        }
    }

    fn deprovision(&mut self, pool: usize) {
        let cidrs = self.world.cidrs(&self.pools[pool].clone());
        let Some(it) = cidrs.get(self.rng.index(cidrs.len().max(1))) else { return };
        let ipam_pool_id = self.pools[pool].clone();
        match it.cidr {
            Some(cidr) => {
                let served = self.seen[pool].cidrs.contains(&cidr);
                self.world
                    .call(DeprovisionIpamPoolCidr { ipam_pool_id, cidr: Some(cidr) })
                    .unwrap();
                // A failed attempt may stand beside the CIDR itself, which goes first.
                let serves = |it: &PoolCidr| {
                    it.cidr == Some(cidr) && !matches!(it.state, PoolCidrState::FailedProvision(..))
                };
                let still = self.world.cidrs(&self.pools[pool].clone()).iter().any(serves);
                if served && !still {
                    // What rested in it is gone with it.
                    self.resting.retain(|(of, range, _)| *of != pool || !cidr.contains(range));
                }
            }
            None => assert!(matches!(it.state, PoolCidrState::FailedProvision(..))),
        }
    }

    fn allocate_by_length(&mut self, pool: usize) {
        let len = self.any_len();
        let (allowed, disallowed) = (self.any_cidrs(2), self.any_cidrs(3));
        let expect = self.lowest(pool, len, &allowed, &disallowed);
        let request = AllocateIpamPoolCidr {
            netmask_length: Some(i32::from(len)),
            allowed_cidrs: allowed,
            disallowed_cidrs: disallowed,
            preview_next_cidr: true,
            ..AllocateIpamPoolCidr::new(self.pools[pool].clone())
        };
        let preview = self.world.call(request.clone()).ok();
        assert_eq!(preview, expect.map(Response::Preview), "seed {}", self.seed);
        let got =
            self.world.allocate(AllocateIpamPoolCidr { preview_next_cidr: false, ..request }).ok();
        assert_eq!(got.map(|it| it.cidr), expect, "seed {}", self.seed);
    }

    fn allocate_by_cidr(&mut self, pool: usize) {
        let cidr = self.any_cidr();
        let inside = self.seen[pool].cidrs.iter().any(|it| it.contains(&cidr));
        let free = !self.taken(pool).iter().any(|it| overlap(*it, cidr));
        let cidr = Some(cidr);
        let request =
            AllocateIpamPoolCidr { cidr, ..AllocateIpamPoolCidr::new(self.pools[pool].clone()) };
        let got = self.world.allocate(request);
        assert_eq!(got.is_ok(), inside && free, "seed {}: {got:?}", self.seed);
    }

    fn release(&mut self, pool: usize) {
        let allocations: Vec<&Allocation> = self.seen[pool].allocations.values().collect();
        if allocations.is_empty() {
            return;
        }
        let it = (*self.rng.pick(&allocations)).clone();
        let released = self.world.release(&self.pools[pool].clone(), &it);
        assert_eq!(released.is_ok(), it.holder == Holder::Custom, "seed {}", self.seed);
    }

    fn make_vpc(&mut self, pool: usize) {
        self.n_vpcs += 1;
        let id = format!("vpc-{:x}", self.n_vpcs);
        let wanted =
            Wanted { netmask_length: Some(i32::from(self.any_len())), ..Wanted::default() };
        let (caller, holder) = (self.world.caller.clone(), Holder::Vpc(resource_id(&id)));
        let pool = self.pools[pool].clone();
        let taken = self.world.plan.allocate_for(&caller, &pool, &wanted, holder, &Tags::new());
        if let Ok(it) = taken {
            self.vpcs.push((id, it.cidr));
        }
    }

    /// Some VPCs go, a foreign one comes, and the model sees it.
    fn sample(&mut self) {
        if !self.vpcs.is_empty() && self.rng.one_in(2) {
            let gone = self.rng.index(self.vpcs.len());
            self.vpcs.remove(gone);
        }
        if self.rng.one_in(2) {
            self.n_vpcs += 1;
            let cidr = self.any_cidr();
            self.vpcs.push((format!("vpc-{:x}", self.n_vpcs), cidr));
        }
        let show = |(id, cidr): &(String, IpNet)| -> Resource { vpc(id, &[&cidr.to_string()]) };
        let resources = self.vpcs.iter().map(show).collect();
        self.world.observe(OWNER, HOME, resources);
    }

    /// Deletes the lowest pool with all that it has, and makes another.
    fn replace_lowest(&mut self) {
        let low = self.pools[3].clone();
        self.world.call(DeleteIpamPool { ipam_pool_id: low, cascade: true }).unwrap();
        self.seen[3] = Seen::default();
        self.resting.retain(|(pool, ..)| *pool != 3);
        let child = self.pools[2].clone();
        self.pools[3] = self.world.pool(self.world.regional(Some(&child)));
    }

    /// Reads all pools anew, and notes what was released.
    fn look(&mut self) {
        let until = self.world.caller.now + REST;
        for pool in 0..self.pools.len() {
            let id = self.pools[pool].clone();
            let serving = |state: &PoolCidrState| match state {
                PoolCidrState::Provisioned | PoolCidrState::FailedDeprovision(_) => true,
                PoolCidrState::PendingProvision
                | PoolCidrState::PendingDeprovision
                | PoolCidrState::FailedProvision(..) => false,
            };
            let cidrs = self.world.cidrs(&id).into_iter().filter(|it| serving(&it.state));
            let cidrs = cidrs.filter_map(|it| it.cidr).collect();
            let allocations = self.world.allocations(&id);
            let allocations: BTreeMap<_, _> =
                allocations.into_iter().map(|it| (it.id.clone(), it)).collect();
            let before = std::mem::replace(&mut self.seen[pool], Seen { cidrs, allocations });
            for (id, it) in before.allocations {
                if !self.seen[pool].allocations.contains_key(&id) {
                    self.resting.push((pool, it.cidr, until));
                }
            }
        }
    }

    fn check(&self) {
        let seed = self.seed;
        for (pool, seen) in self.seen.iter().enumerate() {
            let cidrs: Vec<IpNet> = seen.allocations.values().map(|it| it.cidr).collect();
            check_disjoint(&cidrs, seed);
            check_disjoint(&seen.cidrs, seed);
            for it in &cidrs {
                assert!(seen.cidrs.iter().any(|range| range.contains(it)), "seed {seed}: {it}");
            }
            let now = self.world.caller.now;
            for (_, rest, _) in
                self.resting.iter().filter(|(of, _, until)| *of == pool && *until > now)
            {
                let again = cidrs.iter().find(|it| overlap(**it, *rest));
                assert_eq!(again, None, "seed {seed}: {rest} rests");
            }
        }
        let tops: Vec<IpNet> =
            self.seen[..2].iter().flat_map(|seen| seen.cidrs.iter().copied()).collect();
        check_disjoint(&tops, seed);
        for (parent, child) in [(0, 2), (2, 3)] {
            let holder = Holder::Pool(self.pools[child].clone());
            let given = self.seen[parent].allocations.values().filter(|it| it.holder == holder);
            let given: BTreeSet<IpNet> = given.map(|it| it.cidr).collect();
            let has: BTreeSet<IpNet> = self.seen[child].cidrs.iter().copied().collect();
            assert_eq!(given, has, "seed {seed}: a child's CIDR is an allocation of its parent");
        }
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn check_disjoint(cidrs: &[IpNet], seed: u64) {
    for (number, it) in cidrs.iter().enumerate() {
        let other = cidrs[..number].iter().find(|other| overlap(**other, *it));
        assert_eq!(other, None, "seed {seed}: {it} is given twice");
    }
}

#[test]
fn no_history_gives_a_range_twice() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("SEED").unwrap_or(0);
    let n = number("HISTORIES").unwrap_or(N_HISTORIES);
    let start = Instant::now();
    for seed in first..first + n {
        let mut game = Game::new(seed);
        for _ in 0..N_STEPS {
            game.step();
            game.look();
            game.check();
        }
    }
    println!("{n} histories from seed {first} in {:?}", start.elapsed());
}

#[test]
fn same_seed_gives_the_same_history() {
    let play = || {
        let mut game = Game::new(7);
        for _ in 0..N_STEPS {
            game.step();
            game.look();
        }
        format!("{:?}", game.seen)
    };
    assert_eq!(play(), play());
}
