//! Puts a topology into a new world.
//!
//! The model refuses what EC2 would refuse. The error then names the line of the file.

use std::collections::BTreeMap;

use address_plan::config::Config as PlanConfig;
use address_plan::id::{Account, Region};
use address_plan::{AddressPlan, Organization};
use ec2_model::config::Config;
use ec2_model::id::{InstanceId, SecurityGroupId, SubnetId, VpcId};
use ec2_model::metadata_options::MetadataOptions;
use ec2_model::request::{CreateSubnetCidrReservation, Request};
use ec2_model::routing::RouteVia;
use ec2_model::seed::{InstanceSeed, SecurityGroupSeed, SubnetSeed, VpcSeed};
use ec2_model::{ApiError, Context, Model, SimTime};
use ipnet::IpNet;
use serde_saphyr::{Location, Spanned};

use crate::imds::Changes;
use crate::topology::{Instance, LineError, Reservation, Subnet, Topology, Via, Vpc};
use crate::world::{Place, World};

const KNOWN: &str = "the topology was checked: this name is well formed and in it";

/// A world with the resources of `topology`, and the ids of its instances in the file's order.
pub(crate) fn seed(
    topology: &Topology,
    now: SimTime,
) -> Result<(World, Vec<InstanceId>), LineError> {
    let home = home(topology);
    let (model, instances) = seed_home(topology, config(topology, &home, 0), now)?;
    let plan = PlanConfig { seed: topology.seed, ..PlanConfig::default() };
    let mut world =
        World::new(home.clone(), model, AddressPlan::new(topology.switches.ipam.set(plan)));
    let regions = [&topology.region].into_iter().chain(&topology.regions);
    let members: Vec<Account> = members(topology).collect();
    for region in regions.map(|region| region.value.parse::<Region>().expect(KNOWN)) {
        for account in [&home.account].into_iter().chain(&members) {
            let place = Place { account: account.clone(), region: region.clone() };
            if place != home {
                let config = config(topology, &place, world.models().count());
                world.add_model(place, Model::new(config));
            }
        }
        let shared = Place { account: home.account.clone(), region };
        for account in topology.access_keys.values() {
            world.share_model(account.value.parse().expect(KNOWN), &shared);
        }
    }
    if topology.organization.is_some() {
        let members = members.into_iter().collect();
        world.plan_mut().set_organization(Organization { management: home.account, members });
    }
    Ok((world, instances))
}

/// The place of the file's VPCs and instances.
pub(crate) fn home(topology: &Topology) -> Place {
    Place {
        account: topology.account.value.parse().expect(KNOWN),
        region: topology.region.value.parse().expect(KNOWN),
    }
}

fn members(topology: &Topology) -> impl Iterator<Item = Account> {
    let members = topology.organization.iter().flat_map(|it| &it.members);
    members.map(|account| account.value.parse().expect(KNOWN))
}

fn seed_home(
    topology: &Topology,
    config: Config,
    now: SimTime,
) -> Result<(Model, Vec<InstanceId>), LineError> {
    // Seeding takes neither time nor tokens.
    let instant = Config {
        throttling: Default::default(),
        latency: Default::default(),
        consistency: Default::default(),
        ..config.clone()
    };
    let mut seeder = Seeder {
        model: Model::new(instant),
        context: Context {
            account: config.account.clone(),
            region: config.region.clone(),
            now,
            parameters: BTreeMap::new(),
        },
        subnets: BTreeMap::new(),
        groups: BTreeMap::new(),
    };
    topology.vpcs.iter().try_for_each(|vpc| seeder.add_vpc(vpc))?;
    topology.vpcs.iter().try_for_each(|vpc| seeder.add_routes(vpc))?;
    let instances: Result<_, _> =
        topology.instances.iter().map(|instance| seeder.add_instance(instance)).collect();
    let mut model = seeder.model;
    model.reconfigure(config);
    model.log_mut().clear();
    Ok((model, instances?))
}

/// The configuration of the n-th model. Each has a seed of its own, so that no two give the same ids.
fn config(topology: &Topology, place: &Place, n: usize) -> Config {
    let n = u64::try_from(n).unwrap_or(u64::MAX);
    topology.switches.set(Config {
        seed: topology.seed.wrapping_add(n),
        account: place.account.to_string(),
        region: place.region.to_string(),
        zones: topology.zones.clone(),
        iam_role: topology.iam_role.clone(),
        ..Config::default()
    })
}

struct Seeder<'a> {
    model: Model,
    context: Context,
    /// Id and VPC of each subnet, by its name in the file.
    subnets: BTreeMap<&'a str, (SubnetId, VpcId)>,
    /// Security groups by VPC and by name in the file.
    groups: BTreeMap<(VpcId, &'a str), SecurityGroupId>,
}

impl<'a> Seeder<'a> {
    fn add_vpc(&mut self, vpc: &'a Spanned<Vpc>) -> Result<(), LineError> {
        let at = vpc.referenced;
        let vpc = &vpc.value;
        let seed = VpcSeed {
            id: vpc.id.clone(),
            cidrs: vpc.cidrs.iter().map(|cidr| cidr.value).collect(),
            ipv6_cidrs: vpc.ipv6_cidrs.iter().map(|cidr| cidr.value).collect(),
            tags: vpc.tags.clone(),
        };
        let fix = "give blocks of /16 to /28 that do not overlap, and an id of its own";
        let id = self.model.add_vpc(seed).map_err(refused(at, fix))?;
        self.add_security_groups(&id, vpc)?;
        vpc.subnets.iter().try_for_each(|subnet| self.add_subnet(&id, subnet))
    }

    fn add_security_groups(&mut self, vpc_id: &VpcId, vpc: &'a Vpc) -> Result<(), LineError> {
        for group in &vpc.security_groups {
            let at = group.referenced;
            let group = &group.value;
            let seed = SecurityGroupSeed {
                id: group.id.clone(),
                vpc: vpc_id.clone(),
                name: group.name.value.clone(),
                description: group.description.clone(),
                tags: group.tags.clone(),
            };
            let fix = "give a name and an id that no other group has";
            let id = self.model.add_security_group(seed).map_err(refused(at, fix))?;
            self.groups.insert((vpc_id.clone(), &group.name.value), id);
        }
        Ok(())
    }

    fn add_subnet(&mut self, vpc: &VpcId, subnet: &'a Spanned<Subnet>) -> Result<(), LineError> {
        let at = subnet.referenced;
        let subnet = &subnet.value;
        let seed = SubnetSeed {
            id: subnet.id.clone(),
            vpc: vpc.clone(),
            availability_zone: subnet.az.value.clone(),
            cidr: subnet.cidr.as_ref().map(|cidr| cidr.value),
            ipv6_cidr: subnet.ipv6_cidr.as_ref().map(|cidr| cidr.value),
            assign_ipv6_address_on_creation: false,
            map_public_ip_on_launch: subnet.map_public_ip_on_launch,
            used: subnet.used.iter().flat_map(|range| range.value.blocks()).collect(),
            tags: subnet.tags.clone(),
        };
        let fix = "give a block inside the VPC's that no other subnet has, a zone of the region, \
                   and used addresses that EC2 does not reserve";
        let id = self.model.add_subnet(seed).map_err(refused(at, fix))?;
        self.subnets.insert(&subnet.name.value, (id.clone(), vpc.clone()));
        if let Some(public) = &subnet.nat_gateway {
            let fix = "give a free address of 203.0.113.0/24";
            let refused = refused(public.referenced, fix);
            self.model.add_nat_gateway(&id, public.value).map_err(refused)?;
        }
        subnet.reservations.iter().try_for_each(|one| self.add_reservation(&id, one))
    }

    /// Adds the routes of all subnets. A peering needs both VPCs.
    fn add_routes(&mut self, vpc: &'a Spanned<Vpc>) -> Result<(), LineError> {
        for subnet in &vpc.value.subnets {
            let id = self.subnet(&subnet.value.name.value).0.clone();
            for (destination, via) in &subnet.value.routes {
                let target = match &via.value {
                    Via::InternetGateway => RouteVia::InternetGateway,
                    Via::NatGateway(name) => RouteVia::NatGateway(self.subnet(name).0.clone()),
                    Via::Peering => RouteVia::Peering,
                };
                let fix = "lead 0.0.0.0/0 or ::/0 to a gateway of the VPC, and a block of another \
                           VPC to peering";
                let refused = refused(via.referenced, fix);
                self.model.add_route(&id, *destination, target).map_err(refused)?;
            }
        }
        Ok(())
    }

    fn subnet(&self, name: &str) -> &(SubnetId, VpcId) {
        self.subnets.get(name).expect(KNOWN)
    }

    fn add_reservation(
        &mut self,
        subnet: &SubnetId,
        reservation: &Spanned<Reservation>,
    ) -> Result<(), LineError> {
        let at = reservation.referenced;
        let reservation = &reservation.value;
        let request = CreateSubnetCidrReservation {
            subnet_id: subnet.clone(),
            cidr: IpNet::V4(reservation.cidr),
            reservation_type: reservation.kind,
            description: reservation.description.clone(),
            tag_specifications: Vec::new(),
            dry_run: false,
        };
        let fix = "give a block inside the subnet that no other reservation has";
        self.call(request).map_err(refused(at, fix))
    }

    fn add_instance(&mut self, instance: &'a Spanned<Instance>) -> Result<InstanceId, LineError> {
        let at = instance.referenced;
        let instance = &instance.value;
        let (subnet, vpc) = self.subnet(&instance.subnet.value).clone();
        let group = |name: &'a Spanned<String>| {
            self.groups.get(&(vpc.clone(), name.value.as_str())).expect(KNOWN).clone()
        };
        let seed = InstanceSeed {
            id: instance.id.clone(),
            instance_type: instance.instance_type.value.clone(),
            subnet,
            device_index: instance.device_index,
            primary_address: instance.address,
            ipv6_address: instance.ipv6_address,
            public_address: instance.public_address,
            groups: instance.security_groups.iter().map(group).collect(),
            tags: instance.tags.clone(),
        };
        let fix = "give a type that EC2 has, and free addresses of the subnet or none";
        let id = self.model.add_instance(seed, self.context.now).map_err(refused(at, fix))?;
        let changes = Changes {
            mode: Some(instance.imds),
            hop_limit: instance.imds_hop_limit,
            ipv6: Some(instance.imds_ipv6),
        };
        let options = changes.applied_to(MetadataOptions::default());
        self.model.set_metadata_options(&id, options).map_err(refused(at, fix))?;
        Ok(id)
    }

    fn call(&mut self, request: impl Into<Request>) -> Result<(), ApiError> {
        self.model.call(&self.context, request.into()).result.map(|_response| ())
    }
}

fn refused(at: Location, fix: &str) -> impl FnOnce(ApiError) -> LineError {
    move |error| LineError::new(at, error.message, fix)
}
