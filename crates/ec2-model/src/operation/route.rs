//! Route tables: seeding routes and NAT gateways, and DescribeRouteTables.

use std::net::Ipv4Addr;

use ipnet::IpNet;

use crate::error::ApiError;
use crate::filter::Filters;
use crate::id::{SubnetId, VpcId};
use crate::model::Model;
use crate::operation::network::overlap;
use crate::page::Paging;
use crate::public_address::Holder;
use crate::request::{Action, DescribeRouteTables};
use crate::response::{Response, RouteTable};
use crate::routing::{RouteVia, Target};

const FILTERS: Filters<RouteTable> = Filters {
    by_name: &[
        ("association.main", |it| vec![it.subnet_id.is_none().to_string()]),
        ("association.route-table-association-id", |it| vec![it.association_id.to_string()]),
        ("association.route-table-id", |it| vec![it.id.to_string()]),
        ("association.subnet-id", |it| it.subnet_id.iter().map(ToString::to_string).collect()),
        ("owner-id", |it| vec![it.owner_id.clone()]),
        ("route-table-id", |it| vec![it.id.to_string()]),
        ("vpc-id", |it| vec![it.vpc_id.to_string()]),
    ],
    tags: None,
};

impl Model {
    /// Adds a NAT gateway with a public address to a subnet.
    ///
    /// # Errors
    /// If the subnet does not exist or has no IPv4, or if `public` is not a free public address.
    pub fn add_nat_gateway(&mut self, subnet: &SubnetId, public: Ipv4Addr) -> Result<(), ApiError> {
        self.resources.subnet(subnet)?;
        self.check_public(public)?;
        self.resources.public.insert(public, Holder::NatGateway(subnet.clone()));
        Ok(())
    }

    /// Adds a route to the table of a subnet. Only the default routes lead to gateways.
    ///
    /// # Errors
    /// If the target does not exist, or if the route is local to the VPC.
    pub fn add_route(
        &mut self,
        subnet: &SubnetId,
        destination: IpNet,
        via: RouteVia,
    ) -> Result<(), ApiError> {
        let vpc = self.resources.subnet(subnet)?.vpc.clone();
        let destination = destination.trunc();
        let target = match via {
            RouteVia::Peering => Target::Peering(self.peer_of(&vpc, destination)?),
            RouteVia::InternetGateway | RouteVia::NatGateway(_)
                if destination.prefix_len() != 0 =>
            {
                let why = "Only 0.0.0.0/0 and ::/0 lead to a gateway.";
                let text = destination.to_string();
                return Err(ApiError::invalid_value(&text, "destinationCidrBlock", why));
            }
            RouteVia::InternetGateway => Target::InternetGateway,
            RouteVia::NatGateway(_) if destination.addr().is_ipv6() => {
                let why = "A NAT gateway translates IPv4 only.";
                return Err(ApiError::invalid_value("::/0", "destinationIpv6CidrBlock", why));
            }
            RouteVia::NatGateway(gateway) => self.nat_gateway(&vpc, gateway)?,
        };
        self.resources.subnet_mut(subnet).routes.insert(destination, target);
        Ok(())
    }

    fn nat_gateway(&self, vpc: &VpcId, gateway: SubnetId) -> Result<Target, ApiError> {
        let there = self.resources.subnet(&gateway)?.vpc == *vpc;
        let holder = Holder::NatGateway(gateway.clone());
        if there && self.resources.public.iter().any(|(_, it)| *it == holder) {
            return Ok(Target::NatGateway(gateway));
        }
        let text = format!("There is no NAT gateway of {vpc} in subnet '{gateway}'");
        Err(ApiError::new("InvalidNatGatewayID.NotFound", text))
    }

    /// The other VPC that has the destination.
    fn peer_of(&self, vpc: &VpcId, destination: IpNet) -> Result<VpcId, ApiError> {
        let has = |id: &VpcId, matches: &dyn Fn(IpNet) -> bool| {
            self.resources.vpc_cidrs(id).into_iter().any(matches)
        };
        let is_local = has(vpc, &|cidr| overlap(cidr, destination));
        let mut others = self.resources.vpcs.keys().filter(|id| *id != vpc);
        let peer = others.find(|id| has(id, &|cidr| cidr.contains(&destination)));
        peer.filter(|_| !is_local).cloned().ok_or_else(|| {
            let text = format!("No VPC other than {vpc} has {destination}");
            ApiError::new("InvalidVpcPeeringConnectionID.NotFound", text)
        })
    }

    pub(super) fn describe_route_tables(
        &self,
        request: &DescribeRouteTables,
    ) -> Result<Response, ApiError> {
        let ids = &request.route_table_ids;
        let mut tables = self.view().route_tables();
        if let Some(missing) = ids.iter().find(|id| tables.iter().all(|table| table.id != **id)) {
            let text = format!("The routeTable ID '{missing}' does not exist");
            return Err(ApiError::new("InvalidRouteTableID.NotFound", text));
        }
        tables.retain(|table| ids.is_empty() || ids.contains(&table.id));
        let found = FILTERS.apply(tables, &request.listing.filters)?;
        let paging = Paging {
            action: Action::DescribeRouteTables.as_str(),
            allowed: 5..=100,
            ids: (!ids.is_empty()).then_some("routeTableIds"),
            key: |table: &RouteTable| table.id.to_string(),
            weight: |_| 1,
        };
        Ok(Response::RouteTables(paging.cut(found, &request.listing)?))
    }
}
