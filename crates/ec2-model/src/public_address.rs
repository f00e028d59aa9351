//! Public IPv4 addresses, and the private addresses that they stand for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::id::{AddressAssociationId, AllocationId, EniId, SubnetId};

/// Where all public addresses come from: TEST-NET-3 of RFC 5737.
pub(crate) const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24);

/// The private address that a public one stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Association {
    pub(crate) id: AddressAssociationId,
    pub(crate) eni: EniId,
    pub(crate) private: Ipv4Addr,
}

/// The use of a public address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// EC2 gave it to a new instance. It ends with its association.
    Launch(Association),
    /// An Elastic IP address of an account. It outlives its associations.
    Elastic { allocation: AllocationId, association: Option<Association> },
    /// The NAT gateway in this subnet.
    NatGateway(SubnetId),
}

impl Holder {
    pub(crate) fn association(&self) -> Option<&Association> {
        match self {
            Self::Launch(association) => Some(association),
            Self::Elastic { association, .. } => association.as_ref(),
            Self::NatGateway(_) => None,
        }
    }

    pub(crate) fn allocation(&self) -> Option<&AllocationId> {
        match self {
            Self::Elastic { allocation, .. } => Some(allocation),
            Self::Launch(_) | Self::NatGateway(_) => None,
        }
    }
}

/// All public addresses in use. A private address has at most one.
#[derive(Debug, Default)]
pub(crate) struct PublicAddresses(BTreeMap<Ipv4Addr, Holder>);

impl PublicAddresses {
    /// The lowest free address. `None` if all are in use.
    pub(crate) fn lowest_free(&self) -> Option<Ipv4Addr> {
        POOL.hosts().find(|address| !self.0.contains_key(address))
    }

    /// Whether `address` is a public address that nothing uses.
    pub(crate) fn is_free(&self, address: Ipv4Addr) -> bool {
        POOL.contains(&address) && !self.0.contains_key(&address)
    }

    pub(crate) fn insert(&mut self, address: Ipv4Addr, holder: Holder) {
        self.0.insert(address, holder);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &Holder)> {
        self.0.iter().map(|(address, holder)| (*address, holder))
    }

    /// The holder of an Elastic IP address.
    pub(crate) fn elastic(&self, allocation: &AllocationId) -> Option<&Holder> {
        self.0.values().find(|holder| holder.allocation() == Some(allocation))
    }

    pub(crate) fn has_association(&self, id: &AddressAssociationId) -> bool {
        self.0.values().filter_map(Holder::association).any(|association| association.id == *id)
    }

    /// The public address of a private one, with its holder.
    pub(crate) fn of(&self, eni: &EniId, private: Ipv4Addr) -> Option<(Ipv4Addr, &Holder)> {
        self.iter().find(|(_, holder)| {
            holder.association().is_some_and(|it| it.eni == *eni && it.private == private)
        })
    }

    /// Associates an Elastic IP address. Its former association ends, and so does the association
    /// of the private address with another public one. False if there is no such address.
    pub(crate) fn associate(&mut self, allocation: &AllocationId, new: Association) -> bool {
        self.end(|it| it.eni == new.eni && it.private == new.private);
        let mut holders = self.0.values_mut();
        let Some(Holder::Elastic { association, .. }) =
            holders.find(|holder| holder.allocation() == Some(allocation))
        else {
            return false;
        };
        *association = Some(new);
        true
    }

    /// Ends all associations that match.
    pub(crate) fn end(&mut self, matches: impl Fn(&Association) -> bool) {
        self.0.retain(|_, holder| match holder {
            Holder::Launch(association) => !matches(association),
            Holder::Elastic { association, .. } => {
                association.take_if(|it| matches(it));
                true
            }
            Holder::NatGateway(_) => true,
        });
    }
}
