//! The engine: it takes events, changes the pool, and returns the effects to carry out. Nothing else changes
//! the pool.
//!
//! The engine owns its parts and nothing else. Each part has a module and state of its own; what one part
//! needs of another comes as an argument. An event first goes to its part. Then [`Engine::settle`] works
//! out everything that follows from the new state, in one fixed order. So the same events at the same
//! times lead to the same effects, and nothing waits for a poll.
//!
//! From below, where each layer may use those before it: `arrivals`, `context`, `poll` · `journal` · `calls`, `demand`,
//! `connections` · `expected` · `inventory` · `learnt`, `kernel_check`, `leaks`, `nat`, `delegation` · `host` · `lifecycle`, `outcome` ·
//! `supply` · `security_groups` · `refusal`, `view`, `standing`, `subnets`, which read all parts and change none.

mod arrivals;
mod calls;
mod connections;
mod context;
mod delegation;
mod demand;
mod expected;
mod host;
mod inventory;
mod journal;
mod kernel_check;
mod leaks;
mod learnt;
mod lifecycle;
mod nat;
mod neighbours;
mod outcome;
mod poll;
mod refusal;
mod security_groups;
mod standing;
mod subnets;
mod supply;
mod view;

use crate::block::Family;
use crate::bucket::Urgency;
use crate::call::{Action, CallError, CallId, CallOutput};
use crate::eni_config::EniConfigAnswer;
use crate::event::{Answer, Effect, Event, Refusal, RequestId, SaveSeq};
use crate::id::AttachmentKey;
use crate::jitter::Jitter;
use crate::policy::{Limits, Needs, Node, Policy};
use crate::pool::Pool;
use crate::reason::Reason;
use crate::record::{Assignment, Record};
use crate::time::Timestamp;

use self::arrivals::Arrivals;
use self::calls::{Calls, Pressure};
use self::connections::Connections;
use self::context::Site;
use self::delegation::Delegating;
use self::demand::{Demand, FamilyOutlook, Outlook, Shortage, Stock, Waiter, reply};
use self::expected::Expected;
use self::host::HostSync;
use self::inventory::{Inventory, Judgements, Polled, StockTake};
use self::journal::{Journal, Saved, Then};
use self::kernel_check::{Checking, KernelCheck};
use self::leaks::LeakSearch;
use self::lifecycle::Lifecycle;
use self::nat::VpcRanges;
use self::outcome::Outcome;
use self::security_groups::Aligning;
use self::supply::{Demanded, Sources, Supply, Supplying};

/// What an engine starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Boot {
    /// Who and where.
    pub node: Node,
    /// What EC2 allows.
    pub limits: Limits,
    /// What the user wants.
    pub policy: Policy,
    /// What earlier runs left; empty on a new node.
    pub record: Record,
}

/// Decides which pod gets which address and what to ask of EC2.
#[derive(Debug, Clone)]
pub struct Engine {
    site: Site,
    /// Our ENIs and the addresses on them.
    pool: Pool,
    /// The record, and the changes on their way to it.
    journal: Journal,
    /// The requests that are not answered yet.
    demand: Demand,
    /// The pods whose requests come soon.
    expected: Expected,
    /// When pods have asked lately.
    arrivals: Arrivals,
    /// The calls to EC2 that are under way, and the reasons why others wait.
    calls: Calls,
    /// The answers of EC2 and the metadata service.
    inventory: Inventory,
    /// The plan, and what decides when it is carried out.
    supply: Supply,
    /// The attachments that the kernel and the container runtime no longer show.
    kernel: KernelCheck,
    /// The rests for which the kernel has been asked to forget connections.
    connections: Connections,
    leaks: LeakSearch,
    host: HostSync,
    vpc_ranges: VpcRanges,
    wake_at: Option<Timestamp>,
}

impl Engine {
    /// Starts with what is on record, and asks EC2 for the rest.
    #[must_use]
    pub fn new(boot: Boot, now: Timestamp) -> (Engine, Vec<Effect>) {
        let Boot { node, limits, policy, record } = boot;
        let jitter = Jitter::new(node.instance.as_str());
        let site = Site {
            node,
            limits,
            policy,
            eni_config: None,
            is_cordoned: false,
            jitter,
            kernel_checked: None,
        };
        let mut engine = Self {
            pool: Pool { delegated: record.delegated().clone(), ..Pool::default() },
            demand: Demand::default(),
            expected: Expected::default(),
            arrivals: Arrivals::new(now),
            calls: Calls::new(&record, jitter, now),
            inventory: Inventory::new(&record, site.at(now)),
            supply: Supply::new(now),
            kernel: KernelCheck::default(),
            connections: Connections::default(),
            leaks: LeakSearch::new(site.at(now)),
            host: HostSync::new(jitter),
            vpc_ranges: VpcRanges::new(&record),
            wake_at: None,
            journal: Journal::new(record, jitter),
            site,
        };
        let mut effects = Vec::new();
        engine.settle(now, &mut effects);
        (engine, effects)
    }

    /// Takes an event in and returns its effects. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let mut out = Vec::new();
        self.take_in(event, now, &mut out);
        self.settle(now, &mut out);
        out
    }

    fn take_in(&mut self, event: Event, now: Timestamp, out: &mut Vec<Effect>) {
        let Self { site, pool, journal, demand, calls, inventory, supply, kernel, host, .. } = self;
        let cx = site.at(now);
        match event {
            Event::Add { request, key, pod, netns, node_local, deadline } => {
                let key = demand.known_as(key, journal.record());
                let pod = (pod, netns, node_local);
                self.arrivals.note(now);
                demand.add(Waiter::new(request, key, pod, deadline, cx));
            }
            Event::Cancel { request } => demand.cancel(request),
            Event::Del { request, key } => {
                let key = demand.known_as(key, journal.record());
                demand.del(request, key, journal, now, out);
            }
            Event::Gc { request, network, valid, adding } => {
                let may_end = |key: &AttachmentKey| {
                    let interface = (key.container.clone(), key.ifname.clone());
                    kernel.may_be_ended_by(key, &network)
                        && !valid.contains(&interface)
                        && !adding.contains(&interface)
                };
                demand.gc(request, may_end, journal, now, out);
            }
            Event::CallDone { id, result } => self.call_done(id, result, now),
            Event::EniLink { eni, link } => host.eni_link(&eni, link, pool, inventory, now),
            Event::Kernel(report) => {
                // A link of a pod whose release is not on record yet is no contradiction, so the report does not
                // check that release.
                let checked =
                    demand.first_release().map_or(report.begun, |at| at.min(report.begun));
                site.kernel_checked = site.kernel_checked.max(Some(checked));
                let mut checking = self.checking(now);
                checking.report(&report);
                checking.restore_pods(out);
                checking.remove_host_addresses(&report, out);
            }
            Event::KernelUnread(why) => kernel.could_not_read(why),
            Event::PodPartLost => self.checking(now).restore_pods(out),
            Event::Hint(shown) => inventory.hint(&shown, pool, calls, cx),
            Event::VpcRanges(shown) => self.vpc_ranges.take_in(shown, now),
            Event::EniConfig(answer) => self.change_eni_config(answer, now),
            Event::Cordoned(is_cordoned) => site.is_cordoned = is_cordoned,
            Event::PodsExpected(pods) => self.expected.take_in(pods, now),
            Event::Policy(policy) => self.change_policy(policy, now),
            Event::Limits(limits) => {
                site.limits = limits;
                // Refusals under other limits say nothing about these.
                supply.learnt.forget(pool, now);
            }
            Event::Saved { seq, result } => self.saved(seq, result, now, out),
            Event::Tick => {}
        }
    }

    /// Replaces the policy. The pool has only blocks of the families in force, so another family needs another
    /// describe.
    fn change_policy(&mut self, policy: Policy, now: Timestamp) {
        let families = |policy: &Policy| policy.families.policies().map(|it| it.kind.family());
        if !families(&policy).eq(families(&self.site.policy)) {
            self.inventory.enis_poll.ask_from(now, Reason::Policy);
        }
        let (before, searched) = (self.site.at(now).changes(), leaks::leak_age(self.site.at(now)));
        self.site.policy = policy;
        self.with_stock(now, |mut stock, _| stock.judge_exclusions());
        let cx = self.site.at(now);
        if leaks::leak_age(cx) != searched {
            self.leaks.schedule(cx);
        }
        if cx.changes() != before {
            // Whose the blocks on our ENIs are, and whether unattached ENIs matter, depends on it.
            self.inventory.enis_poll.ask_from(now, Reason::Policy);
        }
        if cx.may_change().is_none() {
            self.pool.keep_all();
        }
    }

    /// Replaces the cluster's answer about the ENIConfig. What EC2 has refused was asked for by the answer before.
    fn change_eni_config(&mut self, answer: EniConfigAnswer, now: Timestamp) {
        if self.site.eni_config.as_ref() != Some(&answer) {
            self.site.eni_config = Some(answer);
            self.calls.retries.clear_by_primary();
            self.with_stock(now, |mut stock, _| stock.judge_exclusions());
        }
    }

    /// When to send a [`Event::Tick`], if nothing else happens before. `None`, or a day ahead, for
    /// a pool at rest.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// Whether pods can be served here: EC2 has described an ENI whose addresses are usable. A node on
    /// which all addresses are in use stays ready.
    ///
    /// # Errors
    ///
    /// The refusal that an Add would get.
    pub fn ready(&self, now: Timestamp) -> Result<(), Refusal> {
        if let Some(hanging) = self.journal.hanging(now) {
            return Err(hanging);
        }
        let cx = self.site.at(now);
        let families = || cx.families().policies().map(|policy| policy.kind.family());
        let lacks = |family: &Family| !self.pool.offers(*family);
        let missing = match cx.policy.families.needs() {
            Needs::Each => families().find(lacks),
            Needs::Any => families().next().filter(|_| families().all(|family| lacks(&family))),
        };
        if missing.is_none() && self.journal.hold(now).is_none() {
            return Ok(());
        }
        let short = missing.unwrap_or_else(|| cx.families().policy().kind.family());
        let rested_at = self.pool.rest_ends(short, cx.rests()).min();
        let shortage =
            rested_at.map_or(Shortage::Nothing(short), |at| Shortage::Resting(short, at));
        Err(self.refusal(shortage, now))
    }

    /// The assignment of `key`; `None` as soon as its release is under way.
    #[must_use]
    pub fn held_by(&self, key: AttachmentKey) -> Option<&Assignment> {
        let record = self.journal.record();
        let key = self.demand.known_as(key, record);
        record.assignments().get(&key).filter(|_| !self.demand.is_releasing(&key))
    }

    /// The Adds without an address that wait for the effect of a call of `action`, first come first.
    pub fn waits_for(&self, action: Action) -> impl Iterator<Item = RequestId> {
        let waits = self.pressure().urgency(action) == Urgency::PodsWait;
        self.demand.waiters().filter(move |_| waits).map(|waiter| waiter.request)
    }

    /// The durable record, for a snapshot.
    #[must_use]
    pub fn record(&self) -> &Record {
        self.journal.record()
    }

    /// Works out everything that follows from the present state.
    fn settle(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        self.demand.drop_late_grants(&self.journal, now, out);
        self.demand.repeat_owed(&mut self.journal, now);
        self.checking(now).adopt();
        self.serve(now, out);
        self.poll(now, out);
        self.with_stock(now, |mut stock, _| stock.warm_start());
        self.advance(now);
        self.delegate(now);
        self.plan(now);
        self.align(now);
        // The plan may need a describe, and so may a change of groups.
        self.poll(now, out);
        if self.inventory.is_known()
            && let Some(may_change) = self.site.at(now).may_change()
        {
            self.calls.repeat_creates(may_change, now, out);
        }
        self.dismiss(now, out);
        self.sync_host(now, out);
        self.kernel.take_down(&self.pool, self.journal.record(), out);
        self.connections.forget(&self.pool, self.journal.record(), self.site.at(now), out);
        self.kernel.ask(self.journal.record(), self.site.at(now), out);
        self.save(now, out);
        self.wake_at = self.next_wake(now);
    }

    fn sync_host(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let Self { site, pool, journal, inventory, host, vpc_ranges, .. } = self;
        host.sync(pool, inventory, vpc_ranges, journal.record(), site.at(now), out);
    }

    fn serve(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let Self { site, pool, journal, demand, inventory, .. } = self;
        let doubted = &inventory.doubted_by_hints(now);
        demand.serve(Stock { pool, doubted, journal, cx: site.at(now) }, out);
    }

    fn poll(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let pressure = self.pressure();
        let cx = self.site.at(now);
        self.inventory.poll(&mut self.calls, pressure, cx, out);
        self.leaks.poll(&mut self.calls, pressure, cx, out);
    }

    /// Takes prefixes from the pods for other containers, or gives them back to the pods.
    fn delegate(&mut self, now: Timestamp) {
        let is_unset = self.site.policy.delegated_prefixes.is_none();
        if is_unset || !self.inventory.is_known() || self.journal.hold(now).is_some() {
            return;
        }
        let (n_waiting, doubted) = (self.demand.n_waiting(), self.inventory.doubted_by_hints(now));
        let Self { site, pool, journal, .. } = self;
        let cx = site.at(now);
        Delegating { pool, journal, n_waiting, doubted: &doubted, cx }.settle();
    }

    /// Starts the next call of each ENI that comes or goes. Starts none before EC2's first answer, while the record cannot
    /// be written, or while nothing may be changed.
    fn advance(&mut self, now: Timestamp) {
        if !self.inventory.is_known() || self.journal.hold(now).is_some() {
            return;
        }
        let pressure = self.pressure();
        let Self { site, pool, journal, calls, inventory, supply, host, .. } = self;
        let cx = site.at(now);
        let Some(may_change) = cx.may_change() else { return calls.give_up_creates(journal) };
        let replaced = host.replacement(pool, calls, journal.record(), cx);
        let learnt = &supply.learnt;
        let mut lifecycle =
            Lifecycle { pool, calls, journal, inventory, learnt, pressure, may_change, cx };
        if let Some(eni) = replaced {
            lifecycle.drain(&eni, Reason::NoDevice);
        }
        lifecycle.advance_all();
    }

    fn plan(&mut self, now: Timestamp) {
        if !self.inventory.is_known() || self.journal.hold(now).is_some() {
            return;
        }
        let (demanded, pressure) = (self.demanded(now), self.pressure());
        let Self { site, pool, journal, calls, inventory, supply, .. } = self;
        let cx = site.at(now);
        Supplying { supply, pool, calls, journal, inventory, demanded, pressure, cx }.plan();
    }

    /// Starts the next call that brings an ENI's security groups into line. It comes after all calls for pods.
    fn align(&mut self, now: Timestamp) {
        if !self.inventory.is_known() || self.journal.hold(now).is_some() {
            return;
        }
        let pressure = self.pressure();
        let Self { site, pool, journal, calls, inventory, .. } = self;
        let cx = site.at(now);
        let Some(may_change) = cx.may_change() else { return };
        Aligning { pool, calls, journal, inventory, pressure, may_change, cx }.start();
    }

    /// Refuses the Adds that wait in vain or have waited long enough, unless they may start with one family.
    fn dismiss(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if self.demand.n_waiting() == 0 {
            return;
        }
        let outlook = self.outlook(now);
        let Self { site, pool, journal, demand, inventory, .. } = self;
        let doubted = &inventory.doubted_by_hints(now);
        let stock = Stock { pool, doubted, journal, cx: site.at(now) };
        for (request, shortage) in demand.dismiss(&outlook, stock, out) {
            reply(request, Answer::Refused(self.refusal(shortage, now)), out);
        }
    }

    /// Sends the next save, unless one is under way.
    fn save(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let Self { site, pool, journal, inventory, vpc_ranges, .. } = self;
        if !journal.is_saving() {
            let news = inventory.news_of_enis(pool, journal.record(), site.at(now));
            let news = news.into_iter().chain(vpc_ranges.news());
            news.for_each(|change| journal.note(change));
            journal.send(now, out);
        }
    }

    fn saved(
        &mut self,
        seq: SaveSeq,
        result: Result<(), String>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        match self.journal.saved(seq, result, now) {
            Some(Saved::Durable(then)) => {
                then.into_iter().for_each(|then| self.durable(then, now, out));
            }
            Some(Saved::Failed(then)) => {
                then.into_iter().for_each(|then| self.not_durable(then, now, out));
            }
            None => {}
        }
    }

    fn durable(&mut self, then: Then, now: Timestamp, out: &mut Vec<Effect>) {
        let Self { site, pool, journal, demand, calls, .. } = self;
        match then {
            Then::Grant(key) => demand.granted(key, pool, journal, now, out),
            Then::Release(key, assignment) => {
                demand.released(&key, &assignment, pool, journal, site.at(now), out);
            }
            Then::Rest(address) => kernel_check::rests(address, pool, journal),
            Then::Collected(request, dead) => reply(request, Answer::Collected(dead), out),
            Then::Make(id) => calls.make(id, pool, journal, out),
        }
    }

    fn not_durable(&mut self, then: Then, now: Timestamp, out: &mut Vec<Effect>) {
        let Self { pool, journal, demand, calls, .. } = self;
        let refusal = journal.unwritable(now);
        match then {
            Then::Grant(key) => demand.not_granted(&key, &refusal, pool, journal.record(), out),
            Then::Release(key, _) => demand.not_released(&key, &refusal, out),
            // The next kernel report tries again.
            Then::Rest(_) => {}
            Then::Collected(request, _) => reply(request, Answer::Refused(refusal), out),
            Then::Make(id) => calls.not_made(id, pool),
        }
    }

    fn call_done(&mut self, id: CallId, result: Result<CallOutput, CallError>, now: Timestamp) {
        match self.with_stock(now, |mut stock, _| stock.polled(id, &result)) {
            Polled::StockTaken(judgements) => return self.judge(&judgements, now),
            Polled::Noted => return,
            Polled::NotAPoll => {}
        }
        let Self { site, pool, calls, leaks, .. } = self;
        if let Some(leaked) = leaks.polled(id, &result, pool, calls, site.at(now)) {
            let (pressure, may_change) = (self.pressure(), self.site.at(now).may_change());
            let Some(may_change) = may_change else { return };
            leaks::remove(leaked, may_change, &mut self.calls, &mut self.journal, pressure, now);
        } else {
            self.with_stock(now, |stock, supply| {
                Outcome { stock, learnt: &mut supply.learnt }.call_done(id, result);
            });
        }
    }

    /// Makes the decisions that EC2's answer leaves open.
    fn judge(&mut self, judgements: &Judgements, now: Timestamp) {
        let (demanded, pressure) = (self.demanded(now), self.pressure());
        self.supply.learnt.forget_if_old(&mut self.pool, now);
        let n_taken = self.pool.n_places_taken().saturating_add(self.inventory.n_foreign());
        self.supply.learnt.allow_enis(n_taken);
        self.with_stock(now, |mut stock, supply| {
            let cx = stock.cx;
            stock.judge_unattached(judgements, |pool, calls, inventory, record, eni| {
                let family = cx.families().policy();
                let sources =
                    Sources { pool, calls, inventory, record, demanded, pressure, family, cx };
                supply.would_create_without(eni, sources)
            });
            stock.forget_rested();
            stock.judge_hints(judgements);
        });
    }

    fn with_stock<T>(
        &mut self,
        now: Timestamp,
        act: impl FnOnce(StockTake<'_>, &mut Supply) -> T,
    ) -> T {
        let promised = &self.demand.promised();
        let Self { site, pool, journal, calls, inventory, supply, .. } = self;
        let cx = site.at(now);
        act(StockTake { inventory, pool, calls, journal, promised, cx }, supply)
    }

    fn checking(&mut self, now: Timestamp) -> Checking<'_> {
        let Self { site, pool, journal, demand, inventory, kernel, .. } = self;
        Checking { check: kernel, pool, demand, journal, inventory, cx: site.at(now) }
    }

    /// The pods for which the pool must have an address now.
    fn demanded(&self, now: Timestamp) -> Demanded {
        let n_expected = self.expected.n(&self.demand, self.journal.record(), now);
        let n_soon = self.arrivals.most_within(self.site.at(now).cooldown(), now);
        Demanded { n_waiting: self.demand.n_waiting(), n_expected, n_soon }
    }

    fn pressure(&self) -> Pressure {
        Pressure {
            pods_wait: self.demand.n_waiting() > 0,
            enis_are_known: self.inventory.enis_poll.is_known(),
            subnets_are_known: self.inventory.subnets_poll.is_known(),
        }
    }

    fn outlook(&self, now: Timestamp) -> Outlook {
        let families = self.site.at(now).families().policies();
        let families = families.map(|policy| self.family_outlook(policy.kind.family(), now));
        Outlook { families: families.collect() }
    }

    fn family_outlook(&self, family: Family, now: Timestamp) -> FamilyOutlook {
        let n_waiting = self.demand.n_waiting();
        let plan = self.supply.plan(family);
        if !self.inventory.is_known() {
            return self.outlook_at_start(family, n_waiting, now);
        }
        let n_unserved = usize::try_from(plan.n_unserved).unwrap_or(usize::MAX);
        let mut rest_ends: Vec<_> =
            self.pool.rest_ends(family, self.site.at(now).rests()).collect();
        rest_ends.sort_unstable();
        FamilyOutlook {
            family,
            n_served: n_waiting.saturating_sub(n_unserved),
            rest_ends,
            passes_at: plan.blocked.iter().filter_map(|blocked| blocked.passes_at).min(),
        }
    }

    /// Before EC2's first answer, pods wait for that answer, or for the host's side of what is on record.
    fn outlook_at_start(&self, family: Family, n_waiting: usize, now: Timestamp) -> FamilyOutlook {
        let poll = &self.inventory.enis_poll;
        let is_linking = self.inventory.is_warm_started() && self.host.is_asked();
        let n_served = if poll.is_under_way() || is_linking { n_waiting } else { 0 };
        let passes_at = match self.calls.hold(poll.call.action(), self.pressure(), now) {
            Some(hold) => hold.passes_at(),
            None => poll.wakes_at(),
        };
        FamilyOutlook { family, n_served, rest_ends: Vec::new(), passes_at }
    }

    /// The next moment at which something follows from time alone.
    fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        let cx = self.site.at(now);
        let families = cx.families().policies().map(|policy| policy.kind.family());
        let rest_end = families.filter_map(|it| self.pool.rest_ends(it, cx.rests()).min()).min();
        let demand = self.demand.next_deadline().into_iter().chain(rest_end);
        let held = [self.host.hold(now), self.journal.hold(now)];
        let held = held.into_iter().flatten().map(|hold| hold.until);
        demand
            .chain(held)
            .chain(self.supply.wakes(cx))
            .chain(self.inventory.wakes())
            .chain(self.leaks.wakes_at())
            .chain(self.connections.wakes_at())
            .chain(self.expected.wakes_at(now))
            .chain(self.kernel.wakes_at())
            .chain(self.calls.wakes(self.pressure(), now))
            .chain(lifecycle::next_deletes(&self.pool))
            .filter(|at| *at > now)
            .min()
    }
}
