//! The cheapest sequence of calls for one node whose future need is known, by dynamic programming.
//!
//! A state is a number of ENIs and a number of blocks that pods can use. Between two steps of the
//! need nothing changes, so all calls take effect at steps:
//!
//! * A block that is used from a step on is called for one lead before it, and is held since then.
//! * A block that is given back goes at the step at which it is no longer needed.
//!
//! A real sequence can be turned into one of these without a call more and without a block that is
//! held for longer. Inside an interval of constant need its removals can move to the start, and its
//! additions to the end.
//!
//! An ENI never goes back. Without blocks it costs nothing, and without it nothing can be done that
//! cannot be done with it. To take its blocks costs one call, and to take it along costs two.
//!
//! The state does not say which ENI has which block, and which block has which pod. So the cost is
//! never too high, but it can be too low:
//!
//! 1. One call assigns or removes blocks on one ENI alone. Here it may reach several.
//! 2. A block goes back only if all its addresses are free. Here free addresses are enough.
//!
//! A sequence that meets neither case can be carried out as it is, and its cost is exact. That is
//! so while ENIs are filled one after the other and nothing goes back. It is also so if blocks are
//! single addresses and there is one ENI.

use std::collections::VecDeque;

/// The question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// Addresses per block, at least 1.
    pub(super) block_size: u64,
    /// Blocks per ENI, at least 1.
    pub(super) per_eni: u64,
    /// The most ENIs, with the primary one; at least 1.
    pub(super) max_enis: u64,
    /// ENIs at the start, at least 1.
    pub(super) enis: u64,
    /// Blocks at the start, which the ENIs can carry.
    pub(super) blocks: u64,
    /// The need, ascending by time; never empty. The first step is the start. No step needs more
    /// than `max_enis` can carry.
    pub(super) steps: Vec<Step>,
    /// When the count ends, not before the last step.
    pub(super) end: u64,
    /// The earliest moment for a call, if there is one.
    pub(super) opens: Option<u64>,
    pub(super) leads: Leads,
}

/// From `at` on the node needs this many blocks. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) at: u64,
    pub(super) blocks: u64,
}

/// The shortest times that EC2 takes, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leads {
    /// From the assignment of a block to its use.
    pub(super) assign: u64,
    /// From the creation of an ENI to the use of its blocks. Not shorter than `assign`.
    pub(super) create: u64,
}

/// The calls that change something for one more ENI: create, attach. No pod needs a third one.
const CALLS_PER_NEW_ENI: i64 = 2;

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cheapest {
    /// Time for which addresses are held, in address-milliseconds.
    pub(super) held: u64,
    /// Calls that change something.
    pub(super) calls: u64,
    /// Whether a sequence with this cost exists. Otherwise no sequence is cheaper.
    pub(super) is_exact: bool,
}

/// The cheapest way to a state. `cost` is in address-milliseconds, calls included.
#[derive(Debug, Clone, Copy)]
struct Way {
    cost: i64,
    calls: i64,
    is_exact: bool,
}

/// The states with one number of ENIs, by their number of blocks.
type Row = Vec<Way>;

const NO_WAY: Way = Way { cost: i64::MAX / 4, calls: 0, is_exact: false };

impl Way {
    fn order(self) -> (i64, bool) {
        (self.cost, !self.is_exact)
    }

    fn improve(&mut self, other: Self) {
        if other.order() < self.order() {
            *self = other;
        }
    }

    fn and(self, cost: i64, n_calls: i64, call_price: i64) -> Self {
        let cost = self.cost + cost + n_calls * call_price;
        Self { cost, calls: self.calls + n_calls, ..self }
    }

    fn exact_if(self, condition: bool) -> Self {
        Self { is_exact: self.is_exact && condition, ..self }
    }
}

/// Solves `task`. A call costs as much as `call_price` address-milliseconds. Cost: O(steps × ENIs ×
/// blocks).
pub(super) fn cheapest(task: &Task, call_price: u64) -> Cheapest {
    let mut table = Table::new(task, call_price);
    let mut now = task.steps.first().map_or(task.end, |step| step.at);
    for step in &task.steps {
        table.hold(step.at - now);
        now = step.at;
        table.grow(task.opens.map_or(u64::MAX, |opens| now.saturating_sub(opens)));
        table.shrink();
        table.drop_below(step.blocks);
    }
    table.hold(task.end - now);
    let ways = table.rows.iter().flatten().copied();
    let best = ways.min_by_key(|way| way.order()).unwrap_or(NO_WAY);
    let held = best.cost - best.calls * signed(call_price);
    Cheapest { held: unsigned(held), calls: unsigned(best.calls), is_exact: best.is_exact }
}

struct Table {
    rows: Vec<Row>,
    per_eni: usize,
    block_size: i64,
    call_price: i64,
    leads: Leads,
}

impl Table {
    fn new(task: &Task, call_price: u64) -> Self {
        let most = task.steps.iter().map(|step| step.blocks).max().unwrap_or(0).max(task.blocks);
        let n_rows =
            task.enis.max(most.div_ceil(task.per_eni)).clamp(1, task.max_enis.max(task.enis));
        let length = |enis: u64| index((enis * task.per_eni).min(most)) + 1;
        let mut rows: Vec<Row> = (1..=n_rows).map(|enis| vec![NO_WAY; length(enis)]).collect();
        rows[index(task.enis) - 1][index(task.blocks)] = Way { cost: 0, calls: 0, is_exact: true };
        Self {
            rows,
            per_eni: index(task.per_eni),
            block_size: signed(task.block_size),
            call_price: signed(call_price),
            leads: task.leads,
        }
    }

    /// Time passes.
    fn hold(&mut self, span: u64) {
        let price = self.block_size * signed(span);
        for row in &mut self.rows {
            for (way, blocks) in row.iter_mut().zip(0..) {
                way.cost += blocks * price;
            }
        }
    }

    /// Blocks and ENIs that were called for come into use. Calls were possible for `open`.
    fn grow(&mut self, open: u64) {
        let assign = self.block_size * signed(self.leads.assign);
        let create = self.block_size * signed(self.leads.create);
        let (may_assign, may_create) = (open >= self.leads.assign, open >= self.leads.create);
        // With ENIs that were created at this step.
        let mut created: Option<Row> = None;
        for n in 0..self.rows.len() {
            let (this, next) = self.rows.split_at_mut(n + 1);
            let this = &mut this[n];
            // With the earlier ENIs full, all room is on the last one.
            let is_on_one = |blocks: usize| may_assign && blocks >= n * self.per_eni;
            let one_call = Call { n: 1, price: self.call_price, per_block: assign };
            one_call.repeat(this, self.per_eni, is_on_one);
            let sources = merged(this, created.take().as_deref());
            if let Some(next) = next.first() {
                let is_full = |blocks: usize| may_create && blocks == (n + 1) * self.per_eni;
                let mut with_one_more = vec![NO_WAY; next.len()];
                let calls = Call { n: CALLS_PER_NEW_ENI, per_block: create, ..one_call };
                calls.make_once(&sources, &mut with_one_more, self.per_eni, is_full);
                // It may also be created empty and filled by a call of its own, which is sooner.
                let calls = Call { n: CALLS_PER_NEW_ENI + 1, ..one_call };
                calls.make_once(&sources, &mut with_one_more, self.per_eni, is_full);
                created = Some(with_one_more);
            }
            *this = sources;
        }
    }

    /// Blocks go back.
    fn shrink(&mut self) {
        for (n, row) in self.rows.iter_mut().enumerate() {
            let is_exact = self.block_size == 1 && n == 0;
            let mut best = NO_WAY;
            for way in row.iter_mut().rev() {
                let with_more = best.and(0, 1, self.call_price);
                best.improve(way.exact_if(is_exact));
                way.improve(with_more);
            }
        }
    }

    fn drop_below(&mut self, blocks: u64) {
        for row in &mut self.rows {
            row.iter_mut().take(index(blocks)).for_each(|way| *way = NO_WAY);
        }
    }
}

/// The cheaper one of the ways to each state.
fn merged(row: &[Way], other: Option<&[Way]>) -> Row {
    let mut row = row.to_vec();
    for (way, other) in row.iter_mut().zip(other.unwrap_or_default()) {
        way.improve(*other);
    }
    row
}

/// What it costs to add blocks to one ENI.
#[derive(Debug, Clone, Copy)]
struct Call {
    /// The number of calls.
    n: i64,
    /// The price of each.
    price: i64,
    /// The price of each block.
    per_block: i64,
}

impl Call {
    /// Improves each state of `to` by the cheapest state of `from` with up to `most` blocks fewer.
    /// The way stays exact from states for which `is_exact` holds.
    fn make_once(
        self,
        from: &[Way],
        to: &mut [Way],
        most: usize,
        is_exact: impl Fn(usize) -> bool,
    ) {
        let mut window = Window::default();
        for (at, way) in to.iter_mut().enumerate() {
            let source = from.get(at).map(|source| source.exact_if(is_exact(at)));
            source.into_iter().for_each(|source| window.push(at, self.before(source, at)));
            window.best(at, most).into_iter().for_each(|best| way.improve(self.after(best, at)));
        }
    }

    /// The same within `row`, by any number of such calls.
    fn repeat(self, row: &mut [Way], most: usize, is_exact: impl Fn(usize) -> bool) {
        let mut window = Window::default();
        for (at, way) in row.iter_mut().enumerate() {
            window.best(at, most).into_iter().for_each(|best| way.improve(self.after(best, at)));
            window.push(at, self.before(way.exact_if(is_exact(at)), at));
        }
    }

    /// A source without the price of its blocks, so that sources compare for any target.
    fn before(self, source: Way, at: usize) -> Way {
        source.and(-signed_index(at) * self.per_block, 0, 0)
    }

    fn after(self, best: Way, at: usize) -> Way {
        best.and(signed_index(at) * self.per_block, self.n, self.price)
    }
}

/// Sources in reach, each better than all before it.
#[derive(Debug, Default)]
struct Window(VecDeque<(usize, Way)>);

impl Window {
    fn push(&mut self, at: usize, source: Way) {
        while self.0.back().is_some_and(|(_, last)| source.order() <= last.order()) {
            self.0.pop_back();
        }
        self.0.push_back((at, source));
    }

    fn best(&mut self, at: usize, reach: usize) -> Option<Way> {
        while self.0.front().is_some_and(|(source, _)| at - source > reach) {
            self.0.pop_front();
        }
        self.0.front().map(|(_, best)| *best)
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("a node has few ENIs and blocks")
}

fn signed_index(n: usize) -> i64 {
    i64::try_from(n).expect("a node has few blocks")
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).expect("spans and prices are far below 2^63 ms")
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).expect("costs and calls are sums of counts")
}

#[cfg(test)]
mod tests;
