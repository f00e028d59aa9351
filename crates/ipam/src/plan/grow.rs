//! What the targets and the waiting pods still want, and where it is to come from.

use super::{
    Asked, Blocked, EniSupply, Growth, Plan, Situation, SubnetSupply, SupplyState, Surplus,
};
use crate::call::Ask;
use crate::event::RefusalCode;
use crate::policy::{Limits, Mode, Policy, Targets};
use crate::retry::Hold;
use crate::time::Timestamp;

/// Addresses in an IPv4 prefix.
pub(super) const PREFIX_SIZE: u64 = 16;

/// Sums over what serves, what is under way and what is planned.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) addresses: u64,
    /// Live, resting or waited for.
    pub(super) used: u64,
    pub(super) prefixes: u64,
    pub(super) idle_prefixes: u64,
}

impl Totals {
    fn add(&mut self, ask: Ask) {
        let n = u64::from(ask.count());
        self.addresses += n * ask.block_size();
        if ask.is_for_prefixes() {
            self.prefixes += n;
            self.idle_prefixes += n;
        }
    }

    /// Takes idle blocks away.
    pub(super) fn remove(&mut self, ask: Ask) {
        let n = u64::from(ask.count());
        self.addresses = self.addresses.saturating_sub(n * ask.block_size());
        if ask.is_for_prefixes() {
            self.prefixes = self.prefixes.saturating_sub(n);
            self.idle_prefixes = self.idle_prefixes.saturating_sub(n);
        }
    }

    pub(super) fn available(&self) -> u64 {
        self.addresses.saturating_sub(self.used)
    }
}

/// What growth is still wanted.
#[derive(Debug, Clone, Copy)]
struct Want {
    /// Blocks of the mode's kind.
    blocks: u64,
    /// Pods for which there is no address.
    starving: u64,
}

/// What a want is met with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocks {
    OfTheMode,
    /// Single addresses for pods that starve where there are no prefixes.
    Singles,
}

/// Plans one step of a node.
pub(super) struct Planner<'a> {
    pub(super) situation: &'a Situation,
    pub(super) mode: Mode,
    pub(super) targets: Targets,
    max_pods: u64,
    /// ENIs that may be on the instance, foreign ones left out.
    enis_allowed: u16,
    blocks_per_eni: u16,
    pub(super) now: Timestamp,
    pub(super) totals: Totals,
    n_waiting: u64,
    n_over_max_pods: u64,
    /// What is planned for each ENI, by its place in the situation.
    on_enis: Vec<Portion>,
    /// How many blocks are planned for each ENI that is being created, likewise.
    on_creating: Vec<u16>,
    new_enis: Vec<(&'a SubnetSupply, Ask)>,
    blocked: Vec<Blocked>,
    again_at: Option<Timestamp>,
    is_dry: bool,
}

/// What is planned for one ENI.
#[derive(Debug, Clone, Copy, Default)]
struct Portion {
    addresses: u16,
    /// Prefixes of the mode's family.
    prefixes: u16,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        situation: &'a Situation,
        policy: &Policy,
        limits: &Limits,
        now: Timestamp,
    ) -> Self {
        let mode = limits.mode(policy.mode);
        let serving = || situation.enis.iter().filter(|eni| eni.serves());
        let live: u64 = serving().map(|eni| eni.tally.live).sum();
        let cooling: u64 = serving().map(|eni| eni.tally.cooling).sum();
        let max_pods = u64::from(policy.max_pods);
        let n_waiting = u64::from(situation.n_waiting).min(max_pods.saturating_sub(live));
        let mut totals = Totals {
            addresses: serving().map(|eni| eni.tally.addresses).sum(),
            used: live + cooling + n_waiting,
            prefixes: serving().map(|eni| u64::from(eni.tally.prefixes)).sum(),
            idle_prefixes: serving().map(|eni| u64::from(eni.tally.idle_prefixes)).sum(),
        };
        let pending = serving().filter_map(|eni| eni.pending);
        let creating = situation.creating.iter().map(|eni| eni.ask);
        pending.chain(creating).for_each(|ask| totals.add(ask));
        Self {
            situation,
            mode,
            targets: policy.targets,
            max_pods,
            enis_allowed: limits.enis_allowed(policy).saturating_sub(situation.n_foreign),
            blocks_per_eni: limits.blocks_per_eni(),
            now,
            totals,
            n_waiting,
            n_over_max_pods: u64::from(situation.n_waiting) - n_waiting,
            on_enis: vec![Portion::default(); situation.enis.len()],
            on_creating: vec![0; situation.creating.len()],
            new_enis: Vec::new(),
            blocked: Vec::new(),
            again_at: None,
            is_dry: totals.available() == 0,
        }
    }

    pub(super) fn grow(&mut self) {
        if self.n_over_max_pods > 0 {
            self.block(Blocked {
                code: RefusalCode::MaxPods,
                why: format!(
                    "the node may have {} pods with an address and has them; raise its max pods \
                     or schedule elsewhere",
                    self.max_pods
                ),
                until: None,
                passes_at: None,
            });
        }
        while let Some(want) = self.want() {
            // A prefix in another subnet comes before single addresses in this one.
            if !(self.place(want, Blocks::OfTheMode) || self.place(want, Blocks::Singles)) {
                break;
            }
        }
    }

    fn place(&mut self, want: Want, blocks: Blocks) -> bool {
        let is_fallback = blocks == Blocks::Singles;
        if is_fallback && (self.mode != Mode::Prefix || want.starving == 0) {
            return false;
        }
        self.place_on_eni(want, blocks)
            || self.place_on_creating(want, blocks)
            || self.place_on_new_eni(want, blocks)
    }

    /// The growth that the targets and the waiting pods still want.
    fn want(&self) -> Option<Want> {
        let totals = &self.totals;
        let deficit = self.deficit(totals);
        let starving = totals.used.saturating_sub(totals.addresses);
        // A node without any address is not ready, so no pod comes whose wait would make for one.
        let wants_any = self.mode != Mode::SecondaryIp || deficit > 0;
        let is_bare = totals.addresses == 0 && wants_any && self.max_pods > 0;
        let starving = starving.max(u64::from(is_bare));
        let for_starving = starving.div_ceil(self.block_size());
        if totals.addresses >= self.max_pods {
            return (starving > 0).then_some(Want { blocks: for_starving, starving });
        }
        if deficit == 0 {
            return None;
        }
        let blocks = match (self.targets, self.mode) {
            (Targets::WarmEni(_), _) => u64::MAX,
            (Targets::WarmPrefix(warm), Mode::Prefix) => {
                let idle = totals.idle_prefixes;
                let idle = idle.saturating_sub(self.n_waiting.div_ceil(PREFIX_SIZE));
                u64::from(warm).saturating_sub(idle).max(1).max(for_starving)
            }
            (Targets::WarmPrefix(_), Mode::SecondaryIp | Mode::Ipv6) | (Targets::Ip { .. }, _) => {
                deficit.div_ceil(self.block_size())
            }
        };
        Some(Want { blocks, starving })
    }

    /// How many addresses the targets miss.
    fn deficit(&self, totals: &Totals) -> u64 {
        let (free, minimum) = match self.targets {
            Targets::WarmEni(warm) => (u64::from(warm).saturating_mul(self.eni_size()).max(1), 0),
            Targets::WarmPrefix(warm) => ((u64::from(warm) * PREFIX_SIZE).max(1), 0),
            Targets::Ip { warm, minimum } => (u64::from(warm), u64::from(minimum)),
        };
        totals.used.saturating_add(free).max(minimum).saturating_sub(totals.addresses)
    }

    /// Whether the pool would grow at these totals.
    pub(super) fn is_low(&self, totals: &Totals) -> bool {
        totals.used > totals.addresses
            || (totals.addresses < self.max_pods && self.deficit(totals) > 0)
    }

    pub(super) fn block_size(&self) -> u64 {
        self.mode.block_size()
    }

    /// Addresses that a full ENI has for pods.
    pub(super) fn eni_size(&self) -> u64 {
        u64::from(self.blocks_per_eni) * self.block_size()
    }

    /// Plans as much of `want` as the first ENI takes that can take anything.
    fn place_on_eni(&mut self, want: Want, blocks: Blocks) -> bool {
        let mut carriers: Vec<_> =
            self.situation.enis.iter().enumerate().take(self.n_carriers()).collect();
        if want.starving > 0 {
            // A pod that waits had better not wait for another call first.
            carriers.sort_by_key(|(_, eni)| eni.busy);
        }
        for (at, eni) in carriers {
            let room = self.room(eni, self.on_enis[at]);
            if room == 0 || !eni.serves() {
                continue;
            }
            if let Some(hold) = eni.hold.as_ref().or(self.situation.assign_hold.as_ref()) {
                self.block(Blocked::held(hold));
                continue;
            }
            let Some(ask) = self.ask(&eni.subnet, want, blocks, room) else { continue };
            self.on_enis[at].add(ask);
            self.totals.add(ask);
            return true;
        }
        false
    }

    /// How many of the ENIs may carry pods' addresses: IPv6 pods are routed through the primary.
    fn n_carriers(&self) -> usize {
        match self.mode {
            Mode::SecondaryIp | Mode::Prefix => usize::MAX,
            Mode::Ipv6 => 1,
        }
    }

    fn room(&self, eni: &EniSupply, planned: Portion) -> u16 {
        let limit = eni.limit.min(self.blocks_per_eni);
        let pending = eni.pending.map_or(0, Ask::count);
        let carried = eni.tally.singles + eni.tally.prefixes;
        limit.saturating_sub(carried + pending + planned.addresses + planned.prefixes)
    }

    /// Plans as much of `want` as the first ENI takes that is being created. It is asked for when
    /// that ENI is here: another one would take its place on the instance for longer.
    fn place_on_creating(&mut self, want: Want, blocks: Blocks) -> bool {
        for (at, eni) in self.situation.creating.iter().enumerate() {
            let taken = eni.ask.count() + self.on_creating[at];
            let room = self.blocks_per_eni.saturating_sub(taken);
            if room == 0 {
                continue;
            }
            let Some(ask) = self.ask(&eni.subnet, want, blocks, room) else { continue };
            self.on_creating[at] += ask.count();
            self.totals.add(ask);
            return true;
        }
        false
    }

    /// Plans as much of `want` as a new ENI takes: the last that is planned, or one more.
    fn place_on_new_eni(&mut self, want: Want, blocks: Blocks) -> bool {
        // An ENI has room that may not be used just now: throttling is no reason to make another.
        if self.situation.assign_hold.as_ref().is_some_and(|hold| self.is_blocked_by(hold)) {
            return false;
        }
        if self.n_places_free() == 0 || self.blocks_per_eni == 0 {
            self.block(self.no_place_left());
            return false;
        }
        if let Some(hold) = &self.situation.create_hold {
            self.block(Blocked::held(hold));
            return false;
        }
        for subnet in &self.situation.subnets {
            let Some(ask) = self.ask(subnet, want, blocks, self.blocks_per_eni) else { continue };
            self.new_enis.push((subnet, ask));
            self.totals.add(ask);
            return true;
        }
        if self.situation.subnets.is_empty() {
            self.block(Blocked {
                code: RefusalCode::SubnetExhausted,
                why: "no subnet may be used for a new ENI; tag one with \
                      kubernetes.io/role/cni=1 or take the tag off the node's own"
                    .to_owned(),
                until: None,
                passes_at: None,
            });
        }
        false
    }

    fn n_places_free(&self) -> usize {
        let holds_place =
            |eni: &&EniSupply| !matches!(eni.state, SupplyState::Leaving { holds_place: false });
        let n_present = self.situation.enis.iter().filter(holds_place).count();
        let n_new = self.situation.creating.len() + self.new_enis.len();
        usize::from(self.enis_allowed).saturating_sub(n_present + n_new)
    }

    fn no_place_left(&self) -> Blocked {
        let enis = &self.situation.enis;
        let (code, advice) = if enis.iter().any(|eni| eni.state == SupplyState::Broken) {
            (RefusalCode::LinkFailing, "see why an ENI cannot be set up on the host")
        } else if enis.iter().any(|eni| eni.limit < self.blocks_per_eni) {
            (RefusalCode::AddressLimit, "EC2 takes fewer addresses than the type promises")
        } else {
            (RefusalCode::EniLimit, "use prefixes, a larger instance type or fewer pods here")
        };
        Blocked {
            code,
            why: format!(
                "all {} ENIs that this node may have for pods are in use, with {} addresses for \
                 each; {advice}",
                self.enis_allowed,
                self.eni_size()
            ),
            until: None,
            passes_at: None,
        }
    }

    /// What to put of `want` into `room` in `subnet`. `None` where nothing may be asked for.
    fn ask(&mut self, subnet: &SubnetSupply, want: Want, blocks: Blocks, room: u16) -> Option<Ask> {
        let count = |blocks: u64| u16::try_from(blocks).unwrap_or(u16::MAX).min(room);
        let ask = match blocks {
            Blocks::OfTheMode => self.mode.ask(count(want.blocks)),
            Blocks::Singles => Ask::Addresses(count(want.starving)),
        };
        match subnet.allowance(ask).refuses(want.starving > 0, self.now) {
            None => Some(ask),
            Some((code, until)) => {
                self.block(Blocked::refused_by(&subnet.id, code, until));
                None
            }
        }
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
            && self.new_enis.is_empty()
            && self.situation.creating.is_empty()
            && self.on_enis.iter().all(|portion| portion.addresses + portion.prefixes == 0)
            && self.situation.enis.iter().all(|eni| eni.pending.is_none())
            && !self.is_low(&self.totals)
    }

    /// The subnets from which calls under way want blocks, and of which kind.
    fn asked(&self) -> Asked<'a> {
        let enis = self.situation.enis.iter();
        let on_enis = enis.filter_map(|eni| Some((&eni.subnet, eni.pending?)));
        let creating = self.situation.creating.iter().map(|eni| (&eni.subnet, eni.ask));
        on_enis.chain(creating).map(|(subnet, ask)| (&subnet.id, ask.is_for_prefixes())).collect()
    }

    pub(super) fn finish(self, surplus: Surplus) -> Plan {
        let n_unserved = self.totals.used.saturating_sub(self.totals.addresses);
        let mut growth = Vec::new();
        let mut asked = self.asked();
        for (eni, portion) in self.situation.enis.iter().zip(&self.on_enis) {
            // What a busy ENI will take is asked for when its call has ended.
            if eni.state == SupplyState::Attached && !eni.busy {
                let ask = portion.ask(self.mode).filter(|ask| eni.subnet.may_ask(*ask, &mut asked));
                let ask = ask.map(|ask| eni.subnet.at_once(ask, eni.at_once));
                growth.extend(ask.map(|ask| Growth::Assign { eni: eni.id.clone(), ask }));
            }
        }
        for (subnet, ask) in self.new_enis {
            if subnet.may_ask(ask, &mut asked) {
                let ask = subnet.at_once(ask, self.situation.create_at_most);
                growth.push(Growth::Create { subnet: subnet.id.clone(), ask });
            }
        }
        Plan {
            growth,
            is_dry: self.is_dry,
            surplus,
            blocked: self.blocked,
            n_unserved: n_unserved + self.n_over_max_pods,
            again_at: self.again_at,
        }
    }
}

impl Portion {
    fn add(&mut self, ask: Ask) {
        let planned = if ask.is_for_prefixes() { &mut self.prefixes } else { &mut self.addresses };
        *planned += ask.count();
    }

    /// One call asks for one kind; single addresses are for pods that wait, so they go first.
    fn ask(self, mode: Mode) -> Option<Ask> {
        match self {
            Portion { addresses: 0, prefixes: 0 } => None,
            Portion { addresses: 0, prefixes } => Some(mode.ask(prefixes)),
            Portion { addresses, .. } => Some(Ask::Addresses(addresses)),
        }
    }
}
