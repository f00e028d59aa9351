//! The cost of an allocation in pools that have given away up to 100,000 ranges: `cargo bench -p
//! address-plan`. It must grow far slower than their number.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use address_plan::block::{Block, Family};
use address_plan::config::{Config, Rest};
use address_plan::request::{
    AllocateIpamPoolCidr, CreateIpam, CreateIpamPool, ProvisionIpamPoolCidr,
    ReleaseIpamPoolAllocation,
};
use address_plan::response::Response;
use address_plan::space::Space;
use address_plan::{AddressPlan, Caller};
use criterion::{Criterion, criterion_group, criterion_main};
use ec2_api::{Delay, SimTime};
use ipnet::IpNet;

const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];

criterion_group!(benches, spaces, calls);
criterion_main!(benches);

/// A space of a /8 with `n` times /28, every second one released: the most free blocks there can be.
fn fragmented(n: usize) -> Result<Space<usize>, Box<dyn Error>> {
    let mut space = Space::default();
    space.provision(Block::from("10.0.0.0/8".parse::<IpNet>()?));
    let mut taken = Vec::with_capacity(2 * n);
    for number in 0..2 * n {
        let block = space.lowest_free(28, None, &[]).ok_or("the /8 has room")?;
        space.take(block, number).map_err(|error| format!("{error:?}"))?;
        taken.push(block);
    }
    for block in taken.iter().step_by(2) {
        space.release(*block);
    }
    Ok(space)
}

/// The space alone: find, take and release.
fn spaces(criterion: &mut Criterion) {
    for n in SIZES {
        let mut space = fragmented(n).expect("there is room");
        for len in [28, 20] {
            let name = format!("take and release a /{len}, {n} held");
            criterion.bench_function(&name, |bencher| {
                bencher.iter(|| {
                    let block = black_box(&space).lowest_free(len, None, &[]);
                    let block = block.expect("there is room");
                    space.take(block, 0).expect("it is free");
                    space.release(block)
                });
            });
        }
    }
}

/// A plan whose one pool has `n` allocations.
fn planned(n: usize) -> Result<(AddressPlan, Caller, AllocateIpamPoolCidr), Box<dyn Error>> {
    // Without it each round would leave a range that rests.
    let rest = Rest { advanced: Delay::default(), free: Delay::default() };
    let mut plan = AddressPlan::new(Config { rest, ..Config::default() });
    let caller = Caller {
        account: "111122223333".parse()?,
        region: "eu-west-1".parse()?,
        now: SimTime::default(),
        dry_run: false,
    };
    let Response::Ipam(ipam) = plan.call(&caller, CreateIpam::default())? else {
        return Err("an IPAM is made".into());
    };
    let locale = Some(caller.region.clone());
    let pool = CreateIpamPool { locale, ..CreateIpamPool::new(ipam.private_scope, Family::Ipv4) };
    let Response::Pool(pool) = plan.call(&caller, pool)? else {
        return Err("a pool is made".into());
    };
    plan.call(
        &caller,
        ProvisionIpamPoolCidr {
            ipam_pool_id: pool.id.clone(),
            cidr: Some("10.0.0.0/8".parse()?),
            netmask_length: None,
            authorized: false,
            client_token: None,
        },
    )?;
    let request =
        AllocateIpamPoolCidr { netmask_length: Some(28), ..AllocateIpamPoolCidr::new(pool.id) };
    for _ in 0..n {
        plan.call(&caller, request.clone())?;
    }
    Ok((plan, caller, request))
}

/// The whole call AllocateIpamPoolCidr. Its release is not part of the time.
fn calls(criterion: &mut Criterion) {
    for n in SIZES {
        let (mut plan, caller, request) = planned(n).expect("there is room");
        criterion.bench_function(&format!("AllocateIpamPoolCidr, {n} allocations"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let call = request.clone();
                    let start = Instant::now();
                    let answer = plan.call(&caller, call);
                    spent += start.elapsed();
                    let Ok(Response::Allocation(it)) = answer else { unreachable!("{answer:?}") };
                    let release = ReleaseIpamPoolAllocation {
                        ipam_pool_id: request.ipam_pool_id.clone(),
                        cidr: it.cidr,
                        ipam_pool_allocation_id: it.id,
                    };
                    plan.call(&caller, release).expect("it was just made");
                }
                spent
            });
        });
    }
}
