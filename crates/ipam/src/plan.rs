//! What to ask of EC2 next, given what there is: pure, the same answer for the same question.
//!
//! The targets and the order of growth are those of amazon-vpc-cni-k8s v1.23.1
//! (`pkg/ipamd/ipamd.go`), with these differences: resting addresses count as used, waiting pods
//! count as used, and as long as a pod waits the pool grows whatever the targets are.

mod shrink;

use crate::call::Ask;
use crate::event::RefusalCode;
use crate::id::{EniId, SubnetId};
use crate::policy::{Limits, Mode, Policy, Targets};
pub use crate::retry::Hold;
pub use crate::subnets::Allowance;
use crate::time::Timestamp;

/// Addresses in an IPv4 prefix.
const PREFIX_SIZE: u64 = 16;

/// What the planner needs to know of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation {
    /// Our ENIs in the order in which they are to be filled: the primary first.
    pub enis: Vec<EniSupply>,
    /// What was asked for with ENIs that do not exist yet.
    pub creating: Vec<Ask>,
    /// ENIs on our network card that are not ours.
    pub n_foreign: u16,
    /// Pods that wait for an address.
    pub n_waiting: u32,
    /// The subnets for new ENIs, the preferred one first.
    pub subnets: Vec<SubnetSupply>,
    /// How many blocks a new ENI may carry from the start.
    pub create_at_most: u16,
    /// Why nothing may be assigned at present.
    pub assign_hold: Option<Hold>,
    /// Why no ENI may be created at present.
    pub create_hold: Option<Hold>,
}

/// One ENI of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct EniSupply {
    /// Its id.
    pub id: EniId,
    /// What EC2 may be asked for in its subnet.
    pub subnet: SubnetSupply,
    /// How far it has come.
    pub state: SupplyState,
    /// From when on it may be given back; `None` for ENIs that stay.
    pub removable_from: Option<Timestamp>,
    /// Whether a call that changes it is under way.
    pub busy: bool,
    /// What that call will add.
    pub pending: Option<Ask>,
    /// Why nothing may be assigned to it at present.
    pub hold: Option<Hold>,
    /// How many blocks it takes at most; EC2 may take fewer than the instance type promises.
    pub limit: u16,
    /// How many of them may be asked for in one call.
    pub at_once: u16,
    /// What it carries.
    pub tally: Tally,
}

/// How far an ENI has come, as far as the plan depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupplyState {
    /// Not yet attached: its addresses will serve, and more can be had later.
    Coming,
    /// Attached: its addresses serve, or will as soon as the kernel's side is ready.
    Attached,
    /// Attached, but the kernel's side cannot be set up: its addresses do not serve.
    Broken,
    /// On its way back; still holds a place on the instance if `holds_place`.
    Leaving {
        /// Whether it counts against the ENI limit.
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
    /// Prefixes.
    pub prefixes: Allowance,
}

/// The blocks of one ENI, counted; those on their way back are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Single addresses.
    pub singles: u16,
    /// Those of them that neither serve nor rest.
    pub idle_singles: u16,
    /// Prefixes.
    pub prefixes: u16,
    /// Those of them of which nothing serves or rests.
    pub idle_prefixes: u16,
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
    /// What to ask for now.
    pub growth: Vec<Growth>,
    /// What may go back once it has been surplus for long enough.
    pub surplus: Surplus,
    /// What keeps the pool from its target, the most telling first.
    pub blocked: Vec<Blocked>,
    /// How many waiting pods will get no address from what is here, under way and planned.
    pub n_unserved: u64,
    /// When the plan changes although nothing happens.
    pub again_at: Option<Timestamp>,
}

/// One call that makes the pool larger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Growth {
    /// Put more on an ENI.
    Assign {
        /// An attached ENI.
        eni: EniId,
        /// What.
        ask: Ask,
    },
    /// Make another ENI.
    Create {
        /// Where.
        subnet: SubnetId,
        /// What it carries from the start.
        ask: Ask,
    },
}

/// What is more than the targets want, in the order in which it goes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surplus {
    /// Whole ENIs.
    pub enis: Vec<EniId>,
    /// So many wholly free blocks of each of these ENIs.
    pub blocks: Vec<(EniId, Ask)>,
}

/// An obstacle to growth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Its kind.
    pub code: RefusalCode,
    /// What is short, where, and what helps.
    pub why: String,
    /// When trying again makes sense; `None` if only a change from outside helps.
    pub until: Option<Timestamp>,
    /// Whether it goes by without anybody's doing, so that a pod may wait for it.
    pub passing: bool,
}

/// Decides what to ask of EC2. Cost: one pass over the ENIs per call that it plans.
#[must_use]
pub fn plan(situation: &Situation, policy: &Policy, limits: &Limits, now: Timestamp) -> Plan {
    let mut planner = Planner::new(situation, policy, limits, now);
    planner.grow();
    let surplus = if planner.is_at_rest() { planner.surplus() } else { Surplus::default() };
    planner.finish(surplus)
}

/// Sums over what serves, what is under way and what is planned.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    addresses: u64,
    /// Live, resting or waited for.
    used: u64,
    prefixes: u64,
    idle_prefixes: u64,
}

impl Totals {
    fn add(&mut self, ask: Ask) {
        match ask {
            Ask::Addresses(n) => self.addresses += u64::from(n),
            Ask::Prefixes(n) => {
                self.addresses += u64::from(n) * PREFIX_SIZE;
                self.prefixes += u64::from(n);
                self.idle_prefixes += u64::from(n);
            }
        }
    }

    /// Takes idle blocks away.
    fn remove(&mut self, ask: Ask) {
        match ask {
            Ask::Addresses(n) => self.addresses = self.addresses.saturating_sub(u64::from(n)),
            Ask::Prefixes(n) => {
                let n = u64::from(n);
                self.addresses = self.addresses.saturating_sub(n * PREFIX_SIZE);
                self.prefixes = self.prefixes.saturating_sub(n);
                self.idle_prefixes = self.idle_prefixes.saturating_sub(n);
            }
        }
    }

    fn available(&self) -> u64 {
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

struct Planner<'a> {
    situation: &'a Situation,
    mode: Mode,
    targets: Targets,
    max_pods: u64,
    /// ENIs that may be on the instance, foreign ones left out.
    enis_allowed: u16,
    blocks_per_eni: u16,
    now: Timestamp,
    totals: Totals,
    n_waiting: u64,
    n_over_max_pods: u64,
    /// What is planned for each ENI, by its place in the situation.
    on_enis: Vec<Portion>,
    new_enis: Vec<(&'a SubnetSupply, Ask)>,
    blocked: Vec<Blocked>,
    again_at: Option<Timestamp>,
}

/// What is planned for one ENI.
#[derive(Debug, Clone, Copy, Default)]
struct Portion {
    addresses: u16,
    prefixes: u16,
}

impl<'a> Planner<'a> {
    fn new(situation: &'a Situation, policy: &Policy, limits: &Limits, now: Timestamp) -> Self {
        let mode = if limits.prefixes { policy.mode } else { Mode::SecondaryIp };
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
        pending.chain(situation.creating.iter().copied()).for_each(|ask| totals.add(ask));
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
            new_enis: Vec::new(),
            blocked: Vec::new(),
            again_at: None,
        }
    }

    fn grow(&mut self) {
        if self.n_over_max_pods > 0 {
            self.block(Blocked {
                code: RefusalCode::MaxPods,
                why: format!(
                    "the node may have {} pods with an address and has them; raise its max pods \
                     or schedule elsewhere",
                    self.max_pods
                ),
                until: None,
                passing: false,
            });
        }
        while let Some(want) = self.want() {
            if !(self.place_on_eni(want) || self.place_on_new_eni(want)) {
                break;
            }
        }
    }

    /// The growth that the targets and the waiting pods still want.
    fn want(&self) -> Option<Want> {
        let totals = &self.totals;
        let starving = totals.used.saturating_sub(totals.addresses);
        let for_starving = starving.div_ceil(self.block_size());
        if totals.addresses >= self.max_pods {
            return (starving > 0).then_some(Want { blocks: for_starving, starving });
        }
        let deficit = self.deficit(totals);
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
            (Targets::WarmPrefix(_), Mode::SecondaryIp) | (Targets::Ip { .. }, _) => {
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
        (totals.used + free).max(minimum).saturating_sub(totals.addresses)
    }

    /// Whether the pool would grow at these totals.
    fn is_low(&self, totals: &Totals) -> bool {
        totals.used > totals.addresses
            || (totals.addresses < self.max_pods && self.deficit(totals) > 0)
    }

    fn block_size(&self) -> u64 {
        match self.mode {
            Mode::SecondaryIp => 1,
            Mode::Prefix => PREFIX_SIZE,
        }
    }

    /// Addresses that a full ENI has for pods.
    fn eni_size(&self) -> u64 {
        u64::from(self.blocks_per_eni) * self.block_size()
    }

    /// Plans as much of `want` as the first ENI takes that can take anything.
    fn place_on_eni(&mut self, want: Want) -> bool {
        for (at, eni) in self.situation.enis.iter().enumerate() {
            let room = self.room(eni, self.on_enis[at]);
            if room == 0 || !eni.serves() {
                continue;
            }
            if let Some(hold) = eni.hold.as_ref().or(self.situation.assign_hold.as_ref()) {
                self.block(Blocked::held(hold));
                continue;
            }
            let Some(ask) = self.ask(&eni.subnet, want, room) else { continue };
            self.on_enis[at].add(ask);
            self.totals.add(ask);
            return true;
        }
        false
    }

    fn room(&self, eni: &EniSupply, planned: Portion) -> u16 {
        let limit = eni.limit.min(self.blocks_per_eni);
        let pending = eni.pending.map_or(0, Ask::count);
        let carried = eni.tally.singles + eni.tally.prefixes;
        limit.saturating_sub(carried + pending + planned.addresses + planned.prefixes)
    }

    /// Plans as much of `want` as a new ENI takes: the last that is planned, or one more.
    fn place_on_new_eni(&mut self, want: Want) -> bool {
        // An ENI has room that may not be used just now: throttling is no reason to make another.
        if self.situation.assign_hold.as_ref().is_some_and(|hold| self.is_blocked_by(hold)) {
            return false;
        }
        if self.n_places_free() == 0 {
            self.block(self.no_place_left());
            return false;
        }
        if let Some(hold) = &self.situation.create_hold {
            self.block(Blocked::held(hold));
            return false;
        }
        for subnet in &self.situation.subnets {
            let Some(ask) = self.ask(subnet, want, self.blocks_per_eni) else { continue };
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
                passing: false,
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
            passing: false,
        }
    }

    /// What to put of `want` into `room` in `subnet`: blocks of the mode's kind, or single addresses
    /// for pods that starve where there are no prefixes. `None` where nothing may be asked for.
    fn ask(&mut self, subnet: &SubnetSupply, want: Want, room: u16) -> Option<Ask> {
        let count = |blocks: u64| u16::try_from(blocks).unwrap_or(u16::MAX).min(room);
        let (main, ask) = match self.mode {
            Mode::SecondaryIp => (subnet.addresses, Ask::Addresses(count(want.blocks))),
            Mode::Prefix => (subnet.prefixes, Ask::Prefixes(count(want.blocks))),
        };
        let is_starving = want.starving > 0;
        let Some((code, until)) = main.refuses(is_starving, self.now) else { return Some(ask) };
        self.block(Blocked::refused_by(&subnet.id, code, until));
        let fallback = is_starving
            && self.mode == Mode::Prefix
            && subnet.addresses.refuses(is_starving, self.now).is_none();
        fallback.then(|| Ask::Addresses(count(want.starving)))
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

    fn look_again(&mut self, at: Option<Timestamp>) {
        let at = at.filter(|at| *at > self.now);
        self.again_at = [self.again_at, at].into_iter().flatten().min();
    }

    /// Whether nothing is wanted, planned, under way or waited for.
    fn is_at_rest(&self) -> bool {
        self.n_waiting == 0
            && self.n_over_max_pods == 0
            && self.new_enis.is_empty()
            && self.situation.creating.is_empty()
            && self.on_enis.iter().all(|portion| portion.addresses + portion.prefixes == 0)
            && self.situation.enis.iter().all(|eni| eni.pending.is_none())
            && !self.is_low(&self.totals)
    }

    fn finish(self, surplus: Surplus) -> Plan {
        let n_unserved = self.totals.used.saturating_sub(self.totals.addresses);
        let mut growth = Vec::new();
        for (eni, portion) in self.situation.enis.iter().zip(&self.on_enis) {
            // What a busy ENI will take is asked for when its call has ended.
            if eni.state == SupplyState::Attached && !eni.busy {
                let ask = portion.ask().map(|ask| eni.subnet.at_once(ask, eni.at_once));
                growth.extend(ask.map(|ask| Growth::Assign { eni: eni.id.clone(), ask }));
            }
        }
        for (subnet, ask) in self.new_enis {
            let ask = subnet.at_once(ask, self.situation.create_at_most);
            growth.push(Growth::Create { subnet: subnet.id.clone(), ask });
        }
        Plan {
            growth,
            surplus,
            blocked: self.blocked,
            n_unserved: n_unserved + self.n_over_max_pods,
            again_at: self.again_at,
        }
    }
}

impl Portion {
    fn add(&mut self, ask: Ask) {
        match ask {
            Ask::Addresses(n) => self.addresses += n,
            Ask::Prefixes(n) => self.prefixes += n,
        }
    }

    /// One call asks for one kind; single addresses are for pods that wait, so they go first.
    fn ask(self) -> Option<Ask> {
        match self {
            Portion { addresses: 0, prefixes: 0 } => None,
            Portion { addresses: 0, prefixes } => Some(Ask::Prefixes(prefixes)),
            Portion { addresses, .. } => Some(Ask::Addresses(addresses)),
        }
    }
}

impl SubnetSupply {
    /// As much of `ask`, up to `at_most`, as may be asked for in one call; the rest follows when
    /// that is granted.
    fn at_once(&self, ask: Ask, at_most: u16) -> Ask {
        let allowance = match ask {
            Ask::Addresses(_) => self.addresses,
            Ask::Prefixes(_) => self.prefixes,
        };
        let allowed = match allowance {
            Allowance::Open(allowed) => allowed,
            Allowance::Closed { .. } => 1,
        };
        ask.with_count(ask.count().min(allowed).min(at_most))
    }
}

impl EniSupply {
    /// Whether pods get its addresses, now or soon.
    fn serves(&self) -> bool {
        match self.state {
            SupplyState::Coming | SupplyState::Attached => true,
            SupplyState::Broken | SupplyState::Leaving { .. } => false,
        }
    }
}

impl Blocked {
    fn held(hold: &Hold) -> Self {
        let passing = match hold.code {
            RefusalCode::Throttled | RefusalCode::Ec2Failing => true,
            RefusalCode::Starting
            | RefusalCode::Attaching
            | RefusalCode::SubnetExhausted
            | RefusalCode::SubnetFragmented
            | RefusalCode::EniLimit
            | RefusalCode::AddressLimit
            | RefusalCode::AllCooling
            | RefusalCode::AccessDenied
            | RefusalCode::MaxPods
            | RefusalCode::LinkFailing
            | RefusalCode::StateUnwritable => false,
        };
        Self { code: hold.code, why: hold.why.clone(), until: Some(hold.until), passing }
    }

    fn refused_by(subnet: &SubnetId, code: RefusalCode, until: Timestamp) -> Self {
        let what = if code == RefusalCode::SubnetFragmented {
            "no free aligned /28; reserve a range for prefixes or tag another subnet"
        } else {
            "too few free addresses; free some or tag another subnet"
        };
        let why = format!("{subnet} has {what}");
        Self { code, why, until: Some(until), passing: false }
    }
}
