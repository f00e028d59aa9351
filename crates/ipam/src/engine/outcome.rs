//! What the end of a call means for the pool: a success, a refusal, or an unknown outcome.

use std::collections::BTreeSet;

use super::calls::{InFlight, Phase};
use super::inventory::{StockTake, not_an_answer};
use super::learnt::Learnt;
use crate::block::{Block, BlockCount};
use crate::call::{Action, CallError, CallErrorKind, CallId, CallOutput, Ec2Call};
use crate::eni::{Attachment, Link, Origin, Refused, Stage};
use crate::id::{EniId, SubnetId};
use crate::place::Place;
use crate::reason::Reason;
use crate::record::Change;
use crate::retry::{Pace, Subject, refusal_code};

/// After this many failed attaches an ENI is given up.
const ATTACH_ATTEMPTS: u32 = 5;

/// The parts that the end of a call may change.
pub(super) struct Outcome<'a> {
    pub(super) stock: StockTake<'a>,
    pub(super) learnt: &'a mut Learnt,
}

/// Whether an answer fits its call.
enum Answered {
    Yes,
    No,
}

impl Outcome<'_> {
    /// Takes in the end of the call `id`, which is not a poll.
    pub(super) fn call_done(&mut self, id: CallId, result: Result<CallOutput, CallError>) {
        let now = self.stock.cx.now;
        let Some(InFlight { call, phase, .. }) = self.stock.calls.get(id).cloned() else { return };
        if !matches!(phase, Phase::Made | Phase::MadeAgain) {
            return;
        }
        match result {
            Ok(output) => match self.succeeded(&call, output) {
                Answered::Yes => self.settle(id),
                Answered::No => self.doubt(id, &not_an_answer()),
            },
            Err(error) if leaves_doubt(&call, error.kind) => self.doubt(id, &error),
            Err(error) => {
                if phase == Phase::MadeAgain {
                    // The first try may have succeeded.
                    self.stock.inventory.recheck_after_lag(now);
                }
                self.settle(id);
                self.failed(&call, &error);
            }
        }
    }

    fn settle(&mut self, id: CallId) {
        self.stock.calls.settle(id, self.stock.journal);
    }

    /// The call may have had its effect.
    fn doubt(&mut self, id: CallId, error: &CallError) {
        let now = self.stock.cx.now;
        if self.stock.calls.doubt(id, error, now) {
            self.stock.inventory.enis_poll.ask(now, Reason::Unclear);
        }
    }

    fn succeeded(&mut self, call: &Ec2Call, output: CallOutput) -> Answered {
        let now = self.stock.cx.now;
        let StockTake { inventory, pool, calls, journal, promised, .. } = &mut self.stock;
        match (call, output) {
            (Ec2Call::CreateEni { subnet, blocks, .. }, CallOutput::Created(facts)) => {
                inventory.subnets.granted(subnet, *blocks);
                calls.retries.clear(&Subject::CreateIn(subnet.clone()));
                // A repeated call may return an ENI that a describe has found and that is attached by now.
                if !pool.enis.contains_key(&facts.id) {
                    self.stock.insert_eni(&facts, Origin::Tagged, Stage::Unattached);
                }
            }
            (Ec2Call::AttachEni { eni, device_index }, CallOutput::Attached(id)) => {
                let (place, delete_on_termination) = (Place::on_our_card(*device_index), false);
                let attachment = Attachment { id, place, delete_on_termination };
                if let Some(stage) = pool.stage_mut(eni) {
                    *stage = Stage::Attached { attachment, link: Link::Awaited };
                }
            }
            (Ec2Call::Assign { eni, blocks: count }, CallOutput::Assigned(blocks)) => {
                if let Some(eni) = pool.enis.get(eni) {
                    inventory.subnets.granted(&eni.subnet, *count);
                }
                pool.add_blocks(eni, &blocks, journal.record(), promised);
            }
            (Ec2Call::SetDeleteOnTermination { eni, .. }, CallOutput::Done) => {
                if let Some(Stage::Attached { attachment, .. }) = pool.stage_mut(eni) {
                    attachment.delete_on_termination = true;
                }
            }
            (Ec2Call::SetSecurityGroups { eni, security_groups }, CallOutput::Done) => {
                if let Some(eni) = pool.enis.get_mut(eni) {
                    eni.security_groups.clone_from(security_groups);
                }
            }
            (Ec2Call::Unassign { eni, blocks }, CallOutput::Done) => self.unassigned(eni, blocks),
            (Ec2Call::DetachEni { eni, .. }, CallOutput::Done) => self.detached(eni),
            (Ec2Call::DeleteEni { eni }, CallOutput::Done) => self.deleted(eni),
            // In every other pair the answer does not fit its call.
            (_, _) => return Answered::No,
        }
        self.stock.calls.action_succeeded(call.action());
        if let Some(eni) = call.eni() {
            self.stock.calls.retries.clear(&Subject::Eni(eni.clone(), call.action()));
            if let Some(eni) = self.stock.pool.enis.get_mut(eni) {
                eni.changed_at = now;
            }
        }
        Answered::Yes
    }

    fn unassigned(&mut self, eni: &EniId, blocks: &BTreeSet<Block>) {
        let Some(eni) = self.stock.pool.enis.get_mut(eni) else { return };
        eni.shrunk_at = self.stock.cx.now;
        for block in blocks {
            for address in eni.blocks.remove(block).unwrap_or_default().freed.into_keys() {
                self.stock.journal.note(Change::Rested { address });
            }
        }
    }

    fn detached(&mut self, eni: &EniId) {
        if let Some(stage) = self.stock.pool.stage_mut(eni)
            && let Some((attachment, why)) = stage.leaving()
        {
            *stage = Stage::Deleting { place: Some(attachment.place), why };
        }
    }

    fn deleted(&mut self, eni: &EniId) {
        self.stock.calls.retries.forget(eni);
        let Some(gone) = self.stock.pool.enis.remove(eni) else { return };
        for address in gone.blocks.into_values().flat_map(|state| state.freed.into_keys()) {
            self.stock.journal.note(Change::Rested { address });
        }
    }

    /// The call had no effect.
    fn failed(&mut self, call: &Ec2Call, error: &CallError) {
        let now = self.stock.cx.now;
        if let Ec2Call::Unassign { eni, blocks } = call {
            self.stock.pool.set_leaving(eni, blocks, false);
        }
        match error.kind {
            CallErrorKind::Throttled | CallErrorKind::NoCredentials => {
                self.stock.calls.action_failed(call, error, now);
            }
            CallErrorKind::SubnetExhausted
            | CallErrorKind::SubnetFragmented
            | CallErrorKind::AddressLimit
            | CallErrorKind::EniLimit
            | CallErrorKind::DeviceIndexTaken
            | CallErrorKind::NotFound
            | CallErrorKind::InUse
            | CallErrorKind::AccessDenied
            | CallErrorKind::OutcomeUnknown
            | CallErrorKind::Lasting
            | CallErrorKind::Rejected => self.refused(call, error),
        }
    }

    /// EC2 refused this very call.
    fn refused(&mut self, call: &Ec2Call, error: &CallError) {
        let (kind, now) = (error.kind, self.stock.cx.now);
        match call {
            Ec2Call::DescribeEnis
            | Ec2Call::DescribeSubnets
            | Ec2Call::DescribeUnattached { .. } => {}
            // A leaked ENI: another node was quicker, or somebody uses it.
            Ec2Call::DeleteEni { eni } if !self.stock.pool.enis.contains_key(eni) => {}
            Ec2Call::CreateEni { subnet, blocks, .. } if is_of_subnet(kind) => {
                self.subnet_refused(subnet, *blocks, kind);
            }
            Ec2Call::CreateEni { subnet, .. } => {
                let subject = Subject::CreateIn(subnet.clone());
                self.stock.calls.hold_back(subject, call, error, now);
                // The subnet may be gone, or its tags may have changed.
                self.stock.inventory.subnets_poll.ask(now, Reason::Unclear);
                if kind == CallErrorKind::Lasting {
                    // So may the primary ENI's security groups.
                    self.stock.inventory.enis_poll.ask(now, Reason::Unclear);
                }
            }
            Ec2Call::Assign { eni, blocks } => self.assign_refused(eni, *blocks, call, error),
            Ec2Call::AttachEni { eni, device_index } => {
                self.attach_failed(eni, *device_index, call, error);
            }
            Ec2Call::DetachEni { eni, .. } if kind == CallErrorKind::NotFound => {
                self.detached(eni);
                // EC2 may not find an ENI that is still attached.
                self.stock.inventory.recheck_after_lag(now);
            }
            Ec2Call::DeleteEni { eni } if kind == CallErrorKind::NotFound => {
                self.deleted(eni);
                // Just after a creation EC2 may not find an ENI that exists.
                self.stock.inventory.recheck_after_lag(now);
            }
            Ec2Call::DetachEni { eni, .. } => {
                self.refused_on(eni, call, error);
                if kind == CallErrorKind::AccessDenied {
                    self.stock.pool.serve_again(eni);
                }
            }
            Ec2Call::SetSecurityGroups { eni, .. } => {
                self.refused_on(eni, call, error);
                if kind == CallErrorKind::Lasting {
                    // The primary ENI's security groups may have changed again.
                    self.stock.inventory.enis_poll.ask_from(now, Reason::Unclear);
                }
            }
            Ec2Call::SetDeleteOnTermination { eni, .. }
            | Ec2Call::Unassign { eni, .. }
            | Ec2Call::DeleteEni { eni } => self.refused_on(eni, call, error),
        }
    }

    fn refused_on(&mut self, eni: &EniId, call: &Ec2Call, error: &CallError) {
        let now = self.stock.cx.now;
        let subject = Subject::Eni(eni.clone(), call.action());
        self.stock.calls.hold_back(subject, call, error, now);
        if error.kind == CallErrorKind::NotFound {
            self.stock.inventory.enis_poll.ask(now, Reason::Unclear);
        }
    }

    fn assign_refused(
        &mut self,
        eni: &EniId,
        blocks: BlockCount,
        call: &Ec2Call,
        error: &CallError,
    ) {
        let Some(found) = self.stock.pool.enis.get_mut(eni) else { return };
        if is_of_subnet(error.kind) {
            let subnet = found.subnet.clone();
            self.subnet_refused(&subnet, blocks, error.kind);
        } else if error.kind == CallErrorKind::AddressLimit {
            let family = blocks.kind.family();
            let carried = found.blocks.keys().filter(|block| block.family() == family).count();
            let carried = u16::try_from(carried).unwrap_or(u16::MAX);
            let limit = carried.saturating_add(blocks.n).saturating_sub(1);
            found.refused.insert(family, Refused { limit, at_once: (blocks.n / 2).max(1) });
            self.stock.inventory.enis_poll.ask(self.stock.cx.now, Reason::Unclear);
        } else {
            self.refused_on(eni, call, error);
        }
    }

    fn subnet_refused(&mut self, subnet: &SubnetId, blocks: BlockCount, kind: CallErrorKind) {
        let now = self.stock.cx.now;
        self.stock.inventory.subnets.refused(subnet, blocks, kind, now);
        self.stock.inventory.subnets_poll.ask(now, Reason::Unclear);
    }

    /// Takes in a failed attach. If EC2 refuses it for good, this ENI is useless, and so would be a new one.
    fn attach_failed(&mut self, eni: &EniId, index: u16, call: &Ec2Call, error: &CallError) {
        let now = self.stock.cx.now;
        let StockTake { inventory, pool, calls, cx, .. } = &mut self.stock;
        let give_up = match error.kind {
            CallErrorKind::DeviceIndexTaken => {
                self.learnt.taken_places.insert(Place::on_our_card(index));
                inventory.enis_poll.ask(now, Reason::Unclear);
                return;
            }
            CallErrorKind::EniLimit => {
                self.learnt.enis = pool.n_places_taken().saturating_add(inventory.n_foreign());
                inventory.enis_poll.ask(now, Reason::Unclear);
                true
            }
            CallErrorKind::AddressLimit => {
                let carried = pool.enis.get(eni).map_or(0, |eni| eni.blocks.len());
                self.learnt.create_at_most = u16::try_from(carried / 2).unwrap_or(u16::MAX);
                true
            }
            CallErrorKind::InUse => {
                inventory.enis_poll.ask(now, Reason::Unclear);
                false
            }
            CallErrorKind::Throttled
            | CallErrorKind::SubnetExhausted
            | CallErrorKind::SubnetFragmented
            | CallErrorKind::NotFound
            | CallErrorKind::AccessDenied
            | CallErrorKind::NoCredentials
            | CallErrorKind::OutcomeUnknown
            | CallErrorKind::Lasting
            | CallErrorKind::Rejected => false,
        };
        let subject = Subject::Eni(eni.clone(), Action::AttachEni);
        let hold = calls.hold_back(subject, call, error, now);
        let is_hopeless = !give_up && hold.attempts >= ATTACH_ATTEMPTS;
        if give_up || is_hopeless {
            pool.delete_unattached(eni, Reason::AttachRefused, cx.rests());
        }
        if is_hopeless {
            let pace = Pace::of(CallErrorKind::EniLimit);
            let why = format!("new ENIs cannot be attached: {error}");
            let subject = Subject::Action(Action::CreateEni);
            calls.retries.fail(subject, pace, refusal_code(error.kind), why, now);
        }
    }
}

/// Whether a describe must show the outcome before anything else is done. EC2 refuses the Unassign of a block
/// that is no longer on the ENI.
fn leaves_doubt(call: &Ec2Call, kind: CallErrorKind) -> bool {
    let takes_back = matches!(call, Ec2Call::Unassign { .. });
    let is_refused = matches!(kind, CallErrorKind::Rejected | CallErrorKind::Lasting);
    kind == CallErrorKind::OutcomeUnknown || (takes_back && is_refused)
}

fn is_of_subnet(kind: CallErrorKind) -> bool {
    matches!(kind, CallErrorKind::SubnetExhausted | CallErrorKind::SubnetFragmented)
}
