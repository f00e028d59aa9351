//! What to ask EC2 for next, given the node's situation. Pure: the same situation gives the same plan.
//!
//! The targets and the order of growth are those of amazon-vpc-cni-k8s v1.23.1 (`pkg/ipamd/ipamd.go`), with
//! two differences. Resting addresses, waiting pods and pods that are about to start count as used. While a pod waits, the pool grows
//! whatever the targets are. Once it is known how many pods come within one cooldown, the pool does not grow for a
//! target that is met when the rests end, as long as that many pods find an address before.

mod grow;
mod shrink;
mod totals;

use std::collections::{BTreeMap, BTreeSet};

use self::grow::Planner;

use crate::block::{BlockCount, Family};
use crate::event::RefusalCode;
use crate::id::{EniId, SubnetId};
use crate::policy::{FamilyPolicy, Limits, Policy};
pub use crate::retry::Hold;
pub use crate::subnets::Allowance;
use crate::time::Timestamp;

/// What the planner needs to know about a node. A plan is for one family, and the counts are of that family.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation {
    /// The policy of that family on this instance.
    pub family: FamilyPolicy,
    /// How much may be planned.
    pub scope: Scope,
    /// Our ENIs in the order in which growth fills them: the primary first.
    pub enis: Vec<EniSupply>,
    /// ENIs that are being created.
    pub creating: Vec<NewEni>,
    /// Foreign ENIs on our network card.
    pub n_foreign: u16,
    /// Pods that wait for an address.
    pub n_waiting: u32,
    /// Pods that are bound to the node and ask for an address soon.
    pub n_expected: u32,
    /// Pods that may ask before an address that rests now serves; `None` if that is unknown.
    pub n_soon: Option<u32>,
    /// Prefixes that containers beside the pods still want.
    pub n_to_delegate: u16,
    /// The subnets for new ENIs, the preferred one first.
    pub subnets: Vec<SubnetSupply>,
    /// The obstacle if there are none.
    pub no_subnet: Blocked,
    /// How many blocks a new ENI may carry from the start.
    pub create_at_most: u16,
    /// Why nothing may be assigned at present.
    pub assign_hold: Option<Hold>,
    /// Why no ENI may be created at present.
    pub create_hold: Option<Hold>,
}

/// How much may be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// What targets and pods want.
    All,
    /// What pods and delegations want: no address is kept ready for others, and no ENI goes back. A node without any address
    /// gets what the targets want, since it is not ready without.
    ForPods,
    /// Nothing. Pods without an address, and a node without any, have this obstacle.
    Nothing(Blocked),
}

/// An ENI that does not exist yet.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEni {
    /// What EC2 may be asked for in its subnet.
    pub subnet: SubnetSupply,
    /// What it carries from the start.
    pub blocks: BlockCount,
}

/// One ENI of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct EniSupply {
    /// Its id.
    pub id: EniId,
    /// What EC2 may be asked for in its subnet.
    pub subnet: SubnetSupply,
    /// Its state.
    pub state: SupplyState,
    /// When it may be given back at the earliest; `None` for ENIs that stay.
    pub removable_from: Option<Timestamp>,
    /// Whether a call that changes it is under way.
    pub busy: bool,
    /// The blocks of the family that this call will add.
    pub pending: Option<BlockCount>,
    /// Why nothing may be assigned to it at present.
    pub hold: Option<Hold>,
    /// The most blocks that it takes. EC2 may allow fewer than the instance type promises.
    pub limit: u16,
    /// The most blocks that one call may ask for.
    pub at_once: u16,
    /// What it carries.
    pub tally: Tally,
}

/// The state of an ENI, as far as the plan depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupplyState {
    /// Not attached yet, or cannot be recorded yet. Its addresses will serve, and it takes more later.
    Coming,
    /// Attached: its addresses serve, or will as soon as the kernel's side is ready.
    Attached,
    /// Attached and ready, but a tag keeps new pods off it. All of it that is idle goes back.
    Excluded,
    /// Attached and ready, but the policy wants pods on other ENIs. All of it that is idle goes back.
    NotForPods,
    /// Attached, but the kernel's side cannot be set up: its addresses do not serve.
    Broken,
    /// On its way back.
    Leaving {
        /// Whether it still counts against the ENI limit.
        holds_place: bool,
    },
}

/// What EC2 may be asked for in a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSupply {
    /// Its id.
    pub id: SubnetId,
    /// Single addresses.
    pub addresses: Allowance,
    /// Prefixes of the family.
    pub prefixes: Allowance,
    /// Free single addresses in EC2's last answer, without those granted since; `None` if EC2 has not described
    /// the subnet. Others may have taken or freed some.
    pub free: Option<u32>,
    /// Why no ENI may be created in it at present.
    pub create_hold: Option<Hold>,
}

/// Counts of one ENI's blocks and addresses of the family, without blocks on their way back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Single addresses.
    pub singles: u16,
    /// Single addresses that neither serve nor rest.
    pub idle_singles: u16,
    /// Prefixes.
    pub prefixes: u16,
    /// Prefixes in which no address serves or rests.
    pub idle_prefixes: u16,
    /// Prefixes that containers beside the pods use. They take room on the ENI and count nowhere else.
    pub delegated: u16,
    /// Addresses of all blocks together.
    pub addresses: u64,
    /// Pods' addresses.
    pub live: u64,
    /// Resting addresses.
    pub cooling: u64,
}

/// What to do, what cannot be done, and when to look again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The calls that make the pool larger now.
    pub growth: Vec<Growth>,
    /// Whether the next pod would find no address, not even one that is under way.
    pub is_dry: bool,
    /// Free addresses before the growth, those under way included.
    pub n_free: u64,
    /// Free addresses that the targets want.
    pub n_wanted: u64,
    /// The surplus. It goes back once it has lasted for long enough.
    pub surplus: Surplus,
    /// The obstacles that keep the pool from its target, the most important first.
    pub blocked: Vec<Blocked>,
    /// Waiting pods for which no address is here, under way or planned.
    pub n_unserved: u64,
    /// When the plan changes without an event.
    pub again_at: Option<Timestamp>,
}

/// One call that makes the pool larger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Growth {
    /// Assign blocks to an ENI.
    Assign {
        /// An attached ENI.
        eni: EniId,
        /// The blocks.
        blocks: BlockCount,
    },
    /// Create another ENI.
    Create {
        /// Its subnet.
        subnet: SubnetId,
        /// What it carries from the start.
        blocks: BlockCount,
    },
}

/// More than the targets want, in the order in which it goes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surplus {
    /// Whole ENIs.
    pub enis: Vec<EniId>,
    /// Wholly free blocks, by ENI.
    pub blocks: Vec<(EniId, BlockCount)>,
}

/// An obstacle to growth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Its kind.
    pub code: RefusalCode,
    /// The shortage, where, and what helps.
    pub why: String,
    /// When trying again makes sense; `None` if only a change from outside helps.
    pub until: Option<Timestamp>,
    /// When it may pass by itself; `None` if somebody must act.
    pub passes_at: Option<Timestamp>,
}

/// Decides what to ask EC2 for in the situation's family. Cost: one pass over the ENIs per call that it plans.
#[must_use]
pub fn plan(situation: &Situation, policy: &Policy, limits: &Limits, now: Timestamp) -> Plan {
    let mut planner = Planner::new(situation, policy, limits, now);
    planner.refuse_beyond_max_pods();
    if let Scope::Nothing(obstacle) = &situation.scope {
        planner.stand_still(obstacle);
        return planner.finish(Surplus::default());
    }
    planner.grow();
    planner.grow_for_delegation();
    planner.heed_targets();
    let mut surplus = if planner.is_at_rest() { planner.surplus() } else { Surplus::default() };
    planner.add_excluded(&mut surplus);
    planner.finish(surplus)
}

/// Why a node that has `max_pods` pods gets no address for another.
pub(crate) fn full_of_pods(max_pods: u64) -> String {
    format!(
        "the node may have {max_pods} pods with an address and has them; raise its max pods or \
         schedule elsewhere"
    )
}

/// What the calls under way and planned ask of the subnets.
#[derive(Debug, Default)]
struct Asked<'a> {
    /// The subnets that are asked for blocks, and whether for prefixes.
    kinds: BTreeSet<(&'a SubnetId, bool)>,
    /// The IPv4 addresses in all blocks together.
    addresses: BTreeMap<&'a SubnetId, u64>,
}

impl<'a> Asked<'a> {
    /// Adds a call. Returns whether it is the first for blocks of its kind.
    fn add(&mut self, subnet: &'a SubnetId, blocks: BlockCount) -> bool {
        *self.addresses.entry(subnet).or_default() += n_ipv4(blocks);
        self.kinds.insert((subnet, blocks.kind.is_prefix()))
    }
}

fn n_ipv4(blocks: BlockCount) -> u64 {
    match blocks.kind.family() {
        Family::V4 => u64::from(blocks.n) * blocks.kind.size(),
        Family::V6 => 0,
    }
}

impl SubnetSupply {
    fn allowance(&self, blocks: BlockCount) -> Allowance {
        if blocks.kind.is_prefix() { self.prefixes } else { self.addresses }
    }

    /// The part of `blocks`, up to `at_most`, that one call may ask for. The rest follows when EC2 has
    /// granted it.
    fn at_once(&self, blocks: BlockCount, at_most: u16) -> BlockCount {
        let allowed = match self.allowance(blocks) {
            Allowance::Open(allowed) => allowed,
            Allowance::Closed { .. } => 1,
        };
        blocks.with_n(blocks.n.min(allowed).min(at_most))
    }

    /// Whether a call for `blocks` may be made beside the calls in `asked`. Adds it to them. A subnet that has
    /// refused a single block gets one call at a time, since it would refuse the others too. So does one that
    /// has too few addresses for all.
    fn may_ask<'a>(&'a self, blocks: BlockCount, asked: &mut Asked<'a>) -> bool {
        let is_first = asked.add(&self.id, blocks);
        let has_enough = self.free.is_none_or(|free| asked.addresses[&self.id] <= u64::from(free));
        is_first || (has_enough && self.at_once(blocks.with_n(2), 2).n == 2)
    }
}

impl EniSupply {
    /// Whether pods get its addresses, now or soon.
    fn serves(&self) -> bool {
        match self.state {
            SupplyState::Coming | SupplyState::Attached => true,
            SupplyState::Excluded
            | SupplyState::NotForPods
            | SupplyState::Broken
            | SupplyState::Leaving { .. } => false,
        }
    }
}

impl Blocked {
    fn held(hold: &Hold) -> Self {
        Self {
            code: hold.code,
            why: hold.why.clone(),
            until: Some(hold.until),
            passes_at: hold.passes_at(),
        }
    }

    fn refused_by(subnet: &SubnetId, code: RefusalCode, until: Timestamp) -> Self {
        let what = if code == RefusalCode::SubnetFragmented {
            "no free aligned /28; reserve a range for prefixes or tag another subnet"
        } else {
            "too few free addresses; free some or tag another subnet"
        };
        let why = format!("{subnet} has {what}");
        Self { code, why, until: Some(until), passes_at: None }
    }
}
