//! The route table of each ENI. Numbers and formula are those of amazon-vpc-cni-k8s, so that a node
//! can move over with its pods running.

use std::fmt;

/// One of the kernel's route tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteTable(u32);

impl RouteTable {
    /// The kernel's main table (`RT_TABLE_MAIN`), which leads to the primary ENI.
    pub const MAIN: Self = Self(254);

    /// The kernel's table of the node's own addresses (`RT_TABLE_LOCAL`).
    pub(crate) const LOCAL: Self = Self(255);

    /// The kernel's table for what no other table routes (`RT_TABLE_DEFAULT`). It is empty unless somebody uses it.
    pub(crate) const DEFAULT: Self = Self(253);

    /// The table of the ENI at `device_index` of `network_card`.
    #[must_use]
    pub fn of(network_card: u16, device_index: u16) -> Self {
        let (card, device) = (u32::from(network_card), u32::from(device_index));
        match (card, device) {
            (0, 0) => Self::MAIN,
            (0, device) => Self(device + 1),
            (card, device) => Self(10_000 + device + 100 * card),
        }
    }

    /// In a pod's namespace, the table of the link with this index, for packets from its addresses. The
    /// number is above those that other plugins give out: source-based routing starts at 100.
    pub(crate) fn of_pod_link(index: u32) -> Self {
        Self(index.saturating_add(20_000))
    }

    /// The kernel's number for it.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl From<u32> for RouteTable {
    /// 0 and 1 stand for the main table, as in some recorded results of amazon-vpc-cni-k8s.
    fn from(number: u32) -> Self {
        match number {
            0 | 1 => Self::MAIN,
            number => Self(number),
        }
    }
}

impl fmt::Display for RouteTable {
    /// As `ip rule` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MAIN => f.write_str("main"),
            Self::LOCAL => f.write_str("local"),
            Self::DEFAULT => f.write_str("default"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_follows_card_and_device_index() {
        for ((card, device), table) in [
            ((0, 0), 254),
            ((0, 1), 2),
            ((0, 14), 15),
            ((1, 0), 10_100),
            ((1, 1), 10_101),
            ((31, 3), 13_103),
        ] {
            assert_eq!(RouteTable::of(card, device).number(), table, "card {card} device {device}");
        }
        assert_eq!(RouteTable::from(0), RouteTable::MAIN);
        assert_eq!(RouteTable::from(1), RouteTable::MAIN);
        assert_eq!(RouteTable::from(2), RouteTable::of(0, 1));
    }
}
