//! Route tables on the wire.

use ec2_model::ApiError;
use ec2_model::request::DescribeRouteTables;
use ec2_model::response::{Route, RouteTable, RouteTarget};
use ipnet::IpNet;

use super::{Params, Read, Xml, dry_run, listing};

impl Read for DescribeRouteTables {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            route_table_ids: params.list("RouteTableId")?,
            listing: listing(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

pub(super) fn route_table(xml: &mut Xml, table: &RouteTable) {
    xml.text("routeTableId", &table.id);
    xml.text("vpcId", &table.vpc_id);
    xml.text("ownerId", &table.owner_id);
    xml.set("routeSet", &table.routes, route);
    xml.set("associationSet", [table], |xml, table| {
        xml.text("routeTableAssociationId", &table.association_id);
        xml.text("routeTableId", &table.id);
        xml.optional("subnetId", table.subnet_id.as_ref());
        xml.text("main", table.subnet_id.is_none());
        xml.node("associationState", |xml| xml.text("state", "associated"));
    });
    xml.node("propagatingVgwSet", |_none| {});
    xml.node("tagSet", |_none| {});
}

fn route(xml: &mut Xml, route: &Route) {
    match route.destination {
        IpNet::V4(block) => xml.text("destinationCidrBlock", block),
        IpNet::V6(block) => xml.text("destinationIpv6CidrBlock", block),
    }
    match &route.target {
        RouteTarget::Local => xml.text("gatewayId", "local"),
        RouteTarget::InternetGateway(id) => xml.text("gatewayId", id),
        RouteTarget::NatGateway(id) => xml.text("natGatewayId", id),
        RouteTarget::Peering(id) => xml.text("vpcPeeringConnectionId", id),
    }
    xml.text("state", "active");
    let is_local = route.target == RouteTarget::Local;
    xml.text("origin", if is_local { "CreateRouteTable" } else { "CreateRoute" });
}
