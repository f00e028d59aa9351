//! The addresses and routes of an `ipvlan` child. Pure: it must not know netlink.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::IpvlanMode;
use super::parent::Place;
use crate::{Route, RouteTable};

/// The length of the IPv6 prefixes that EC2 gives to ENIs. All pods' addresses are of such a prefix, so what is in it is on
/// the same ENI. To the rest of the subnet the router leads.
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-prefix-eni.html>.
const V6_PREFIX: u8 = 80;

/// What a child has, beside its mark and state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChildObjects {
    /// Each with its router, if it has one.
    pub(super) addresses: Vec<(IpNet, Option<IpAddr>)>,
    /// In the order in which the kernel takes them.
    pub(super) routes: Vec<Route>,
}

impl ChildObjects {
    /// Of the child with this index.
    pub(super) fn of(places: &[Place], mode: IpvlanMode, child: u32) -> Self {
        let route = |destination, gateway| Route {
            destination,
            gateway,
            device: child,
            table: RouteTable::MAIN,
        };
        let (mut addresses, mut routes) = (Vec::new(), Vec::new());
        for place in places {
            let (default, gateway) = (default(place.address), place.gateway);
            let net = match mode {
                IpvlanMode::L2 => network(place),
                IpvlanMode::L3s => IpNet::from(place.address),
            };
            addresses.push((net, gateway));
            if mode == IpvlanMode::L2 {
                routes.push(route(net.trunc(), None));
                let is_beside =
                    |gateway: &IpAddr| !net.contains(gateway) && !is_link_local(*gateway);
                routes.extend(gateway.filter(is_beside).map(|it| route(IpNet::from(it), None)));
            }
            routes.push(route(default, gateway));
        }
        Self { addresses, routes }
    }
}

fn network(place: &Place) -> IpNet {
    let length = match (place.subnet, place.address) {
        (Some(subnet), _) => subnet.prefix_len(),
        (None, IpAddr::V6(_)) => V6_PREFIX,
        (None, IpAddr::V4(_)) => Ipv4Net::default().max_prefix_len(),
    };
    IpNet::new(place.address, length).unwrap_or_else(|_too_long| IpNet::from(place.address))
}

fn default(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

/// The kernel has a route to these on each IPv6 link.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: &str, subnet: &str, gateway: &str) -> Place {
        Place {
            address: address.parse().unwrap(),
            subnet: subnet.parse().ok(),
            gateway: gateway.parse().ok(),
        }
    }

    fn check(places: &[Place], mode: IpvlanMode, addresses: &[&str], routes: &[&str]) {
        let objects = ChildObjects::of(places, mode, 7);
        let text = |(net, gateway): &(IpNet, Option<IpAddr>)| match gateway {
            Some(gateway) => format!("{net} {gateway}"),
            None => net.to_string(),
        };
        assert_eq!(objects.addresses.iter().map(text).collect::<Vec<_>>(), addresses);
        let found: Vec<_> = objects.routes.iter().map(ToString::to_string).collect();
        assert_eq!(found, routes);
        assert!(objects.routes.iter().all(|route| route.device == 7));
    }

    #[test]
    fn child_on_layer_2_has_its_subnet_and_router() {
        check(
            &[place("10.0.2.20", "10.0.2.0/24", "10.0.2.1")],
            IpvlanMode::L2,
            &["10.0.2.20/24 10.0.2.1"],
            &["10.0.2.0/24 table main", "default via 10.0.2.1 table main"],
        );
    }

    #[test]
    fn child_of_both_families_has_a_default_route_of_each() {
        let v6 = place("2001:db8:0:1:a::20", "", "fe80::ff:fe00:1");
        check(
            &[place("10.0.0.20", "10.0.0.0/20", "10.0.0.1"), v6],
            IpvlanMode::L2,
            &["10.0.0.20/20 10.0.0.1", "2001:db8:0:1:a::20/80 fe80::ff:fe00:1"],
            &[
                "10.0.0.0/20 table main",
                "default via 10.0.0.1 table main",
                "2001:db8:0:1:a::/80 table main",
                "default via fe80::ff:fe00:1 table main",
            ],
        );
    }

    #[test]
    fn router_beside_the_subnet_has_a_route_of_its_own() {
        check(
            &[place("2001:db8:0:1::20", "", "2001:db8:0:2::1")],
            IpvlanMode::L2,
            &["2001:db8:0:1::20/80 2001:db8:0:2::1"],
            &[
                "2001:db8:0:1::/80 table main",
                "2001:db8:0:2::1 table main",
                "default via 2001:db8:0:2::1 table main",
            ],
        );
    }

    #[test]
    fn child_on_layer_3_has_device_routes() {
        check(
            &[place("10.0.0.20", "", ""), place("2001:db8::20", "", "")],
            IpvlanMode::L3s,
            &["10.0.0.20/32", "2001:db8::20/128"],
            &["default table main", "default table main"],
        );
    }
}
