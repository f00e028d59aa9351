//! The subnets as people see them, and how fresh the engine's knowledge is. It reads all parts and changes none.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use crate::block::BlockKind;
use crate::id::SubnetId;
use crate::standing::Sources;
use crate::subnet_list::{ListedSubnet, SubnetList, SubnetRole};
use crate::time::Timestamp;
use crate::view::{Counts, EniView};

/// The kinds of blocks that a subnet can refuse.
const KINDS: [BlockKind; 3] = [BlockKind::V4Address, BlockKind::V4Prefix, BlockKind::V6Prefix];

impl Engine {
    /// The subnets for `ipamd subnets`. Cost: one pass over all blocks for each subnet.
    #[must_use]
    pub fn subnets(&self, now: Timestamp) -> SubnetList {
        let enis = self.eni_views(now);
        let described = self.inventory.subnets.described();
        let ids: BTreeSet<_> = described.chain(enis.iter().map(|eni| &eni.subnet)).collect();
        SubnetList {
            described_at: self.inventory.subnets_poll.answered(),
            subnets: ids.into_iter().map(|id| self.subnet(id, &enis, now)).collect(),
        }
    }

    /// When EC2, the kernel and the container runtime were last seen.
    #[must_use]
    pub fn sources(&self) -> Sources {
        Sources {
            ec2: self.inventory.enis_poll.answered(),
            kernel: self.site.kernel_checked,
            kernel_unread: self.kernel.unread().map(str::to_owned),
            is_runtime_seen: self.kernel.n_sandboxes().is_some(),
        }
    }

    fn subnet(&self, id: &SubnetId, enis: &[EniView], now: Timestamp) -> ListedSubnet {
        let (cx, subnets) = (self.site.at(now), &self.inventory.subnets);
        let here: Vec<_> = enis.iter().filter(|eni| eni.subnet == *id).cloned().collect();
        let family = cx.families().policy().kind.family();
        let role = if self.inventory.subnets_for_new_enis(cx).contains(id) {
            SubnetRole::NewEnis
        } else if subnets.excludes(id, cx.node) {
            SubnetRole::Excluded
        } else {
            SubnetRole::Unused
        };
        let refusals = KINDS.into_iter();
        let refusals = refusals.filter_map(|kind| Some((kind, subnets.refuses(id, kind, now)?)));
        ListedSubnet {
            id: id.clone(),
            cidr: subnets.cidr(id).or_else(|| here.iter().find_map(|eni| eni.subnet_cidr)),
            free_addresses: subnets.free(id),
            role,
            n_enis: here.len() as u64,
            counts: Counts { waiting: 0, ..self.sum(family, &here) },
            refusals: refusals.collect::<BTreeMap<_, _>>(),
        }
    }
}
