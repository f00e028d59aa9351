//! Growth: the blocks that the targets and the waiting pods still want.

mod place;

use super::totals::{PREFIX_SIZE, Totals};
use super::{Asked, Blocked, Growth, Plan, Scope, Situation, SubnetSupply, SupplyState, Surplus};
use crate::block::{BlockCount, BlockKind};
use crate::event::RefusalCode;
use crate::policy::{FamilyPolicy, Limits, Policy, Targets};
use crate::retry::Hold;
use crate::time::Timestamp;

/// The growth that is still wanted.
#[derive(Debug, Clone, Copy)]
struct Want {
    /// Blocks of the policy's kind.
    blocks: u64,
    /// Pods without an address here, under way or planned.
    starving: u64,
}

/// Plans one step of a node.
pub(super) struct Planner<'a> {
    pub(super) situation: &'a Situation,
    pub(super) family: FamilyPolicy,
    /// Those that count at present.
    targets: Targets,
    max_pods: u64,
    /// The most ENIs of ours on the instance.
    enis_allowed: u16,
    blocks_per_eni: u16,
    pub(super) now: Timestamp,
    pub(super) totals: Totals,
    n_waiting: u64,
    n_expected: u64,
    /// Addresses that rest.
    cooling: u64,
    /// Pods for which no address that rests is supply.
    n_soon: u64,
    n_over_max_pods: u64,
    /// Prefixes to delegate that are not here and not under way.
    n_lacking_to_delegate: u64,
    /// The blocks planned for each ENI, by its place in the situation.
    on_enis: Vec<Portion>,
    /// The number of blocks planned for each ENI that is being created, by its place in the situation.
    on_creating: Vec<u16>,
    new_enis: Vec<(&'a SubnetSupply, BlockCount)>,
    blocked: Vec<Blocked>,
    again_at: Option<Timestamp>,
    is_dry: bool,
    n_free: u64,
    n_wanted: u64,
}

/// The blocks planned for one ENI.
#[derive(Debug, Clone, Copy, Default)]
struct Portion {
    addresses: u16,
    /// Prefixes of the policy's family.
    prefixes: u16,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        situation: &'a Situation,
        policy: &Policy,
        limits: &Limits,
        now: Timestamp,
    ) -> Self {
        let family = situation.family;
        let serving = || situation.enis.iter().filter(|eni| eni.serves());
        let live: u64 = serving().map(|eni| eni.tally.live).sum();
        let cooling: u64 = serving().map(|eni| eni.tally.cooling).sum();
        let max_pods = u64::from(policy.max_pods);
        let n_waiting = u64::from(situation.n_waiting).min(max_pods.saturating_sub(live));
        let n_expected =
            u64::from(situation.n_expected).min(max_pods.saturating_sub(live + n_waiting));
        let mut totals = Totals {
            addresses: serving().map(|eni| eni.tally.addresses).sum(),
            used: live + cooling + n_waiting + n_expected,
            prefixes: serving().map(|eni| u64::from(eni.tally.prefixes)).sum(),
            idle_prefixes: serving().map(|eni| u64::from(eni.tally.idle_prefixes)).sum(),
        };
        totals.idle_prefixes -= idle_prefixes_for(n_expected, &totals, family.kind.size());
        let pending = serving().filter_map(|eni| eni.pending);
        let creating = situation.creating.iter().map(|eni| eni.blocks);
        pending.chain(creating).for_each(|blocks| totals.add(blocks));
        // Idle prefixes that are about to be delegated count for no target. Waiting pods come first.
        let to_delegate = u64::from(situation.n_to_delegate);
        let unused = totals.idle_prefixes.min(totals.available() / family.kind.size());
        let promised = to_delegate.min(unused);
        totals.remove(family.kind.times(u16::try_from(promised).unwrap_or(u16::MAX)));
        let targets = match situation.scope {
            Scope::All => family.targets,
            Scope::ForPods | Scope::Nothing(_) if totals.addresses == 0 => family.targets,
            Scope::ForPods | Scope::Nothing(_) => Targets::Ip { warm: 0, minimum: 0 },
        };
        let mut planner = Self {
            situation,
            family,
            targets,
            max_pods,
            enis_allowed: limits.enis_for(policy, family).saturating_sub(situation.n_foreign),
            blocks_per_eni: limits.blocks_per_eni(),
            now,
            totals,
            n_waiting,
            n_expected,
            cooling,
            n_soon: situation.n_soon.map_or(u64::MAX, u64::from),
            n_over_max_pods: u64::from(situation.n_waiting) - n_waiting,
            n_lacking_to_delegate: to_delegate - promised,
            on_enis: vec![Portion::default(); situation.enis.len()],
            on_creating: vec![0; situation.creating.len()],
            new_enis: Vec::new(),
            blocked: Vec::new(),
            again_at: None,
            is_dry: totals.available() == 0,
            n_free: totals.available(),
            n_wanted: 0,
        };
        planner.n_wanted = planner.wanted(&totals);
        planner
    }

    /// Plans nothing, and has `obstacle` if pods lack addresses.
    pub(super) fn stand_still(&mut self, obstacle: &Blocked) {
        if self.want().is_some() || self.n_lacking_to_delegate > 0 {
            self.block(obstacle.clone());
        }
    }

    /// From now on the targets of the policy count, in any scope.
    pub(super) fn heed_targets(&mut self) {
        self.targets = self.family.targets;
    }

    pub(super) fn refuse_beyond_max_pods(&mut self) {
        if self.n_over_max_pods > 0 {
            self.block(Blocked {
                code: RefusalCode::MaxPods,
                why: super::full_of_pods(self.max_pods),
                until: None,
                passes_at: None,
            });
        }
    }

    pub(super) fn grow(&mut self) {
        while let Some(want) = self.want() {
            // A prefix in another subnet comes before single addresses in this one. Single addresses are for
            // pods that wait where there are no prefixes.
            let fallback = self.family.fallback.filter(|_| want.starving > 0);
            let is_placed = self.place(want, self.kind())
                || fallback.is_some_and(|kind| self.place(want, kind));
            if !is_placed {
                break;
            }
        }
    }

    /// Plans the prefixes that containers beside the pods lack. They come after what pods want, so where EC2 has
    /// too few, pods get them.
    pub(super) fn grow_for_delegation(&mut self) {
        while self.n_lacking_to_delegate > 0 {
            let n_before = self.totals.prefixes;
            let want = Want { blocks: self.n_lacking_to_delegate, starving: 0 };
            if !self.place(want, self.kind()) {
                break;
            }
            let n_placed = self.totals.prefixes - n_before;
            self.n_lacking_to_delegate = self.n_lacking_to_delegate.saturating_sub(n_placed);
            let n_placed = u16::try_from(n_placed).unwrap_or(u16::MAX);
            self.totals.remove(self.kind().times(n_placed));
        }
    }

    fn place(&mut self, want: Want, kind: BlockKind) -> bool {
        self.place_on_eni(want, kind)
            || self.place_on_creating(want, kind)
            || self.place_on_new_eni(want, kind)
    }

    /// The growth that the targets and the waiting pods still want.
    fn want(&self) -> Option<Want> {
        let totals = &self.totals;
        let deficit = self.deficit(totals);
        let starving = totals.used.saturating_sub(totals.addresses);
        // A node without any address is not ready and gets no pods, so no waiting pod makes its pool grow.
        let wants_any = self.kind() != BlockKind::V4Address || deficit > 0;
        let is_bare = totals.addresses == 0 && wants_any && self.max_pods > 0;
        let starving = starving.max(u64::from(is_bare));
        let for_starving = starving.div_ceil(self.block_size());
        if totals.addresses >= self.max_pods {
            return (starving > 0).then_some(Want { blocks: for_starving, starving });
        }
        if deficit == 0 {
            return None;
        }
        let blocks = match (self.targets, self.kind()) {
            (Targets::WarmEni(_), _) => u64::MAX,
            (Targets::WarmPrefix(warm), BlockKind::V4Prefix) => {
                let idle = totals.idle_prefixes;
                let idle = idle.saturating_sub(self.n_waiting.div_ceil(PREFIX_SIZE));
                u64::from(warm).saturating_sub(idle).max(1).max(for_starving)
            }
            (Targets::WarmPrefix(_), BlockKind::V4Address | BlockKind::V6Prefix)
            | (Targets::Ip { .. }, _) => deficit.div_ceil(self.block_size()),
        };
        Some(Want { blocks, starving })
    }

    /// How many addresses the pool lacks for its targets.
    fn deficit(&self, totals: &Totals) -> u64 {
        totals.used.saturating_add(self.wanted(totals)).saturating_sub(totals.addresses)
    }

    /// How many free addresses the targets want.
    fn wanted(&self, totals: &Totals) -> u64 {
        let (free, minimum) = match self.targets {
            Targets::WarmEni(warm) => (u64::from(warm).saturating_mul(self.eni_size()).max(1), 0),
            Targets::WarmPrefix(warm) => ((u64::from(warm) * PREFIX_SIZE).max(1), 0),
            Targets::Ip { warm, minimum } => (u64::from(warm), u64::from(minimum)),
        };
        self.beside_resting(free).max(minimum.saturating_sub(totals.used))
    }

    /// How many of the `free` addresses that a target wants are missing beside those that rest. A resting address is
    /// supply, but not for pods that may come before its rest ends.
    fn beside_resting(&self, free: u64) -> u64 {
        free.saturating_sub(self.cooling).max(free.min(self.n_soon))
    }

    /// Whether the pool would grow at these totals.
    pub(super) fn is_low(&self, totals: &Totals) -> bool {
        totals.used > totals.addresses
            || (totals.addresses < self.max_pods && self.deficit(totals) > 0)
    }

    pub(super) fn kind(&self) -> BlockKind {
        self.family.kind
    }

    pub(super) fn block_size(&self) -> u64 {
        self.kind().size()
    }

    /// Addresses that a full ENI has for pods. All ENIs of an instance take as many, so EC2's refusal on one
    /// lowers the number for all.
    pub(super) fn eni_size(&self) -> u64 {
        let learnt = self.situation.enis.iter().map(|eni| eni.limit).min().unwrap_or(u16::MAX);
        u64::from(self.blocks_per_eni.min(learnt)) * self.block_size()
    }

    fn block(&mut self, blocked: Blocked) {
        if !self.blocked.contains(&blocked) {
            self.look_again(blocked.until);
            self.blocked.push(blocked);
        }
    }

    fn is_blocked_by(&self, hold: &Hold) -> bool {
        self.blocked.contains(&Blocked::held(hold))
    }

    pub(super) fn look_again(&mut self, at: Option<Timestamp>) {
        let at = at.filter(|at| *at > self.now);
        self.again_at = [self.again_at, at].into_iter().flatten().min();
    }

    /// Whether nothing is wanted, planned, under way or waited for.
    pub(super) fn is_at_rest(&self) -> bool {
        self.n_waiting == 0
            && self.n_over_max_pods == 0
            && self.n_lacking_to_delegate == 0
            && self.new_enis.is_empty()
            && self.situation.creating.is_empty()
            && self.on_enis.iter().all(|portion| portion.addresses + portion.prefixes == 0)
            && self.situation.enis.iter().all(|eni| eni.pending.is_none())
            && !self.is_low(&self.totals)
    }

    /// What the calls under way ask of the subnets.
    fn asked(&self) -> Asked<'a> {
        let enis = self.situation.enis.iter();
        let on_enis = enis.filter_map(|eni| Some((&eni.subnet, eni.pending?)));
        let creating = self.situation.creating.iter().map(|eni| (&eni.subnet, eni.blocks));
        let mut asked = Asked::default();
        for (subnet, blocks) in on_enis.chain(creating) {
            asked.add(&subnet.id, blocks);
        }
        asked
    }

    pub(super) fn finish(self, surplus: Surplus) -> Plan {
        // Pods that have asked come first.
        let used = self.totals.used - self.n_expected;
        let n_unserved = used.saturating_sub(self.totals.addresses);
        let mut growth = Vec::new();
        let mut asked = self.asked();
        for (eni, portion) in self.situation.enis.iter().zip(&self.on_enis) {
            // A busy ENI gets its blocks when its call has ended.
            if eni.state == SupplyState::Attached && !eni.busy {
                let blocks = portion
                    .next(self.kind())
                    .filter(|blocks| eni.subnet.may_ask(*blocks, &mut asked));
                let blocks = blocks.map(|blocks| eni.subnet.at_once(blocks, eni.at_once));
                growth.extend(blocks.map(|blocks| Growth::Assign { eni: eni.id.clone(), blocks }));
            }
        }
        for (subnet, blocks) in self.new_enis {
            if subnet.may_ask(blocks, &mut asked) {
                let blocks = subnet.at_once(blocks, self.situation.create_at_most);
                growth.push(Growth::Create { subnet: subnet.id.clone(), blocks });
            }
        }
        Plan {
            growth,
            is_dry: self.is_dry,
            n_free: self.n_free,
            n_wanted: self.n_wanted,
            surplus,
            blocked: self.blocked,
            n_unserved: n_unserved + self.n_over_max_pods,
            again_at: self.again_at,
        }
    }
}

/// How many idle prefixes the pods will take that are about to start. Other free addresses serve first.
fn idle_prefixes_for(n_expected: u64, totals: &Totals, size: u64) -> u64 {
    let free = (totals.addresses + n_expected).saturating_sub(totals.used);
    let elsewhere = free.saturating_sub(totals.idle_prefixes * size);
    n_expected.saturating_sub(elsewhere).div_ceil(size).min(totals.idle_prefixes)
}

impl Portion {
    fn add(&mut self, blocks: BlockCount) {
        let planned =
            if blocks.kind.is_prefix() { &mut self.prefixes } else { &mut self.addresses };
        *planned += blocks.n;
    }

    /// The blocks of the next call. One call asks for one kind; single addresses are for pods that wait, so
    /// they go first.
    fn next(self, kind: BlockKind) -> Option<BlockCount> {
        match self {
            Portion { addresses: 0, prefixes: 0 } => None,
            Portion { addresses: 0, prefixes } => Some(kind.times(prefixes)),
            Portion { addresses, .. } => Some(BlockKind::V4Address.times(addresses)),
        }
    }
}
