//! Route tables, for clients and for the network.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::View;
use crate::fabric::{FabricRoute, FabricSubnet, FabricVpc};
use crate::id::{
    InternetGatewayId, NatGatewayId, RouteTableAssociationId, RouteTableId, SubnetId, VpcId,
};
use crate::public_address::Holder;
use crate::resources::Subnet;
use crate::response::{Route, RouteTable, RouteTarget, Vpc};
use crate::routing::{Target, peering_id};

impl View<'_> {
    /// The main table of each VPC, and the table of each subnet with routes of its own.
    pub(crate) fn route_tables(self) -> Vec<RouteTable> {
        let main = self.resources.vpcs.values().map(|vpc| self.main_table(vpc));
        let own = self.resources.subnets.values().filter_map(|subnet| self.own_table(subnet));
        let mut tables: Vec<RouteTable> = main.chain(own).collect();
        tables.sort_by(|a, b| a.id.cmp(&b.id));
        tables
    }

    fn main_table(self, vpc: &Vpc) -> RouteTable {
        RouteTable {
            id: RouteTableId::with_digits_of(vpc.id.as_str()),
            vpc_id: vpc.id.clone(),
            owner_id: vpc.owner_id.clone(),
            association_id: RouteTableAssociationId::with_digits_of(vpc.id.as_str()),
            subnet_id: None,
            routes: local_routes(vpc).collect(),
        }
    }

    fn own_table(self, subnet: &Subnet) -> Option<RouteTable> {
        if subnet.routes.is_empty() {
            return None;
        }
        let vpc = self.resources.vpcs.get(&subnet.vpc)?;
        let routes = subnet.routes.iter().map(|(destination, target)| Route {
            destination: *destination,
            target: shown(&vpc.id, target),
        });
        Some(RouteTable {
            id: RouteTableId::with_digits_of(subnet.id.as_str()),
            vpc_id: vpc.id.clone(),
            owner_id: subnet.owner.clone(),
            association_id: RouteTableAssociationId::with_digits_of(subnet.id.as_str()),
            subnet_id: Some(subnet.id.clone()),
            routes: local_routes(vpc).chain(routes).collect(),
        })
    }

    pub(crate) fn fabric_vpcs(self) -> Vec<FabricVpc> {
        let of_vpc = |vpc: &Vpc| FabricVpc {
            id: vpc.id.clone(),
            cidrs: self.resources.vpc_cidrs(&vpc.id),
            subnets: {
                let all = self.resources.subnets.values();
                all.filter(|it| it.vpc == vpc.id).map(|it| self.fabric_subnet(it)).collect()
            },
        };
        self.resources.vpcs.values().map(of_vpc).collect()
    }

    fn fabric_subnet(self, subnet: &Subnet) -> FabricSubnet {
        FabricSubnet {
            id: subnet.id.clone(),
            cidrs: subnet.cidrs().collect(),
            routes: self.fabric_routes(subnet),
        }
    }

    fn fabric_routes(self, subnet: &Subnet) -> BTreeMap<IpNet, FabricRoute> {
        let route = |(destination, target): (&IpNet, &Target)| {
            let route = match target {
                Target::InternetGateway => FabricRoute::InternetGateway,
                Target::NatGateway(subnet) => {
                    FabricRoute::NatGateway { public: self.nat_gateway(subnet)? }
                }
                Target::Peering(_) => FabricRoute::Peering,
            };
            Some((*destination, route))
        };
        subnet.routes.iter().filter_map(route).collect()
    }

    /// The public address of the NAT gateway in a subnet. `None` if the subnet itself does not lead
    /// to an internet gateway, so that the gateway's packets go nowhere.
    fn nat_gateway(self, subnet: &SubnetId) -> Option<Ipv4Addr> {
        let routes = &self.resources.subnets.get(subnet)?.routes;
        routes.values().find(|target| **target == Target::InternetGateway)?;
        let gateway = Holder::NatGateway(subnet.clone());
        let found = self.resources.public.iter().find(|(_, holder)| **holder == gateway);
        found.map(|(public, _)| public)
    }
}

fn local_routes(vpc: &Vpc) -> impl Iterator<Item = Route> {
    vpc.associations.iter().map(|it| Route { destination: it.cidr, target: RouteTarget::Local })
}

fn shown(vpc: &VpcId, target: &Target) -> RouteTarget {
    match target {
        Target::InternetGateway => {
            RouteTarget::InternetGateway(InternetGatewayId::with_digits_of(vpc.as_str()))
        }
        Target::NatGateway(subnet) => {
            RouteTarget::NatGateway(NatGatewayId::with_digits_of(subnet.as_str()))
        }
        Target::Peering(other) => RouteTarget::Peering(peering_id(vpc, other)),
    }
}
