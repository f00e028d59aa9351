//! How many neighbours the node may have at once: machines and pods to which it sends packets without a router
//! between.

use ipnet::IpNet;

use crate::event::HostEni;

/// EC2 takes no larger range for a subnet of IPv4. A subnet of IPv6 has far more addresses than machines; it counts
/// as this large.
const LARGEST_SUBNET: u32 = 65_536;

/// The neighbours of a node with these ENIs. Packets that leave by the primary ENI go straight to every address of
/// its subnet. Those that leave by another ENI go to its router alone. Each pod of the node is a neighbour too.
pub(super) fn needed(enis: &[HostEni], max_pods: u32) -> u32 {
    let is_primary = |eni: &&HostEni| (eni.network_card, eni.device_index) == (0, 0);
    let in_subnet = enis.iter().find(is_primary).map_or(0, |eni| n_addresses(eni.subnet_cidr));
    let routers = u32::try_from(enis.len()).unwrap_or(u32::MAX);
    in_subnet.saturating_add(max_pods).saturating_add(routers)
}

fn n_addresses(range: IpNet) -> u32 {
    match range {
        IpNet::V4(range) => {
            let bits = u32::from(32 - range.prefix_len());
            1_u32.checked_shl(bits).map_or(LARGEST_SUBNET, |n| n.min(LARGEST_SUBNET))
        }
        IpNet::V6(_) => LARGEST_SUBNET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eni(card: u16, index: u16, subnet: &str) -> HostEni {
        HostEni {
            eni: "eni-1".try_into().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            device_index: index,
            network_card: card,
            primary_address: "10.0.0.9".parse().unwrap(),
            subnet_cidr: subnet.parse().unwrap(),
        }
    }

    #[test]
    fn neighbours_are_the_primary_subnet_and_the_pods() {
        let check = |enis: &[(u16, u16, &str)], expect: u32| {
            let enis: Vec<_> =
                enis.iter().map(|(card, n, subnet)| eni(*card, *n, subnet)).collect();
            assert_eq!(needed(&enis, 110), expect, "{enis:?}");
        };
        check(&[], 110);
        check(&[(0, 0, "10.0.0.0/24")], 256 + 110 + 1);
        check(&[(0, 1, "10.0.0.0/20"), (0, 0, "10.1.0.0/24")], 256 + 110 + 2);
        check(&[(1, 0, "10.0.0.0/20")], 110 + 1);
        check(&[(0, 0, "10.0.0.0/16")], 65_536 + 110 + 1);
        check(&[(0, 0, "0.0.0.0/0")], 65_536 + 110 + 1);
        check(&[(0, 0, "2001:db8::/64")], 65_536 + 110 + 1);
    }
}
