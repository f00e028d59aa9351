//! The pools of Amazon VPC IPAM, where there are any and they may be read.

use address_space::inventory::{Allocation, Inventory, Place, Pool, PoolRules};
use aws_sdk_ec2::types::{IpamPool, IpamPoolAllocation, IpamPoolCidrState, IpamPoolState};

use crate::ReadError;
use crate::answer::{BadField, owned, parse, tags};
use crate::ask::{PAGE_SIZE, Question, all};

impl Question {
    pub(crate) async fn pools(&self, inventory: &mut Inventory) -> Result<(), ReadError> {
        let operation = "DescribeIpamPools";
        let pools = self.client.describe_ipam_pools().into_paginator().page_size(PAGE_SIZE);
        let answer = all(pools.items().send()).await;
        let lost = "Amazon VPC IPAM is not used here, or may not be read: pools and their rules are left out";
        let Some(mut pools) = self.may(inventory, operation, lost, answer) else { return Ok(()) };
        pools.retain(|pool| pool.state() != Some(&IpamPoolState::DeleteComplete));
        let mut pools = self.read(operation, &pools, pool)?;
        // Other Regions of the IPAM may show the pool too. Only its home answers about it.
        pools.retain(|pool| pool.place.region == self.region);
        for pool in &mut pools {
            self.contents(inventory, pool).await?;
        }
        inventory.pools = pools;
        Ok(())
    }

    async fn contents(&self, inventory: &mut Inventory, pool: &mut Pool) -> Result<(), ReadError> {
        let lost = format!("the ranges of {} are left out", pool.id);
        let cidrs = self.client.get_ipam_pool_cidrs().ipam_pool_id(&pool.id).into_paginator();
        let answer = all(cidrs.page_size(PAGE_SIZE).items().send()).await;
        let operation = "GetIpamPoolCidrs";
        if let Some(mut cidrs) = self.may(inventory, operation, &lost, answer) {
            cidrs.retain(|one| one.state() == Some(&IpamPoolCidrState::Provisioned));
            pool.cidrs = self.read(operation, &cidrs, |one| parse("cidr", one.cidr()))?;
        }
        let lost = format!("the allocations of {} are left out", pool.id);
        let allocations = self.client.get_ipam_pool_allocations().ipam_pool_id(&pool.id);
        let allocations = allocations.into_paginator().page_size(PAGE_SIZE).items().send();
        let operation = "GetIpamPoolAllocations";
        if let Some(found) = self.may(inventory, operation, &lost, all(allocations).await) {
            pool.allocations = self.read(operation, &found, allocation)?;
        }
        Ok(())
    }
}

fn pool(pool: &IpamPool) -> Result<Pool, BadField> {
    let length = |bits: Option<i32>| bits.and_then(|bits| u8::try_from(bits).ok());
    let scope = owned("ipamScopeArn", pool.ipam_scope_arn())?;
    let wanted = pool.allocation_resource_tags().iter();
    let wanted = wanted.filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())));
    Ok(Pool {
        id: owned("ipamPoolId", pool.ipam_pool_id())?,
        place: Place {
            account: owned("ownerId", pool.owner_id())?,
            region: owned("ipamRegion", pool.ipam_region())?,
        },
        scope: scope.rsplit('/').next().unwrap_or_default().to_owned(),
        source: pool.source_ipam_pool_id().map(str::to_owned),
        // EC2 writes `None` for a pool without one.
        locale: pool.locale().filter(|locale| *locale != "None").map(str::to_owned),
        rules: PoolRules {
            min_netmask: length(pool.allocation_min_netmask_length()),
            max_netmask: length(pool.allocation_max_netmask_length()),
            tags: wanted.collect(),
        },
        cidrs: vec![],
        allocations: vec![],
        tags: tags(pool.tags()),
    })
}

fn allocation(one: &IpamPoolAllocation) -> Result<Allocation, BadField> {
    Ok(Allocation {
        cidr: parse("cidr", one.cidr())?,
        kind: one.resource_type().map_or("custom", |kind| kind.as_str()).to_owned(),
        resource: one.resource_id().map(str::to_owned),
        region: one.resource_region().map(str::to_owned),
    })
}
