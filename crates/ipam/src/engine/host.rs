//! The host's side of the ENIs: the network that the host must have, and its state.

use std::time::Duration;

use super::calls::Calls;
use super::context::Context;
use super::inventory::Inventory;
use super::nat::{self, VpcRanges};
use super::neighbours;
use crate::eni::{Eni, LINK_ATTEMPTS, Link, Stage};
use crate::event::{Effect, HostEni, HostPicture, LinkState, RefusalCode};
use crate::id::EniId;
use crate::jitter::Jitter;
use crate::place::Place;
use crate::pool::Pool;
use crate::record::Record;
use crate::retry::{Backoff, Hold, Pace};
use crate::time::Timestamp;

/// How soon the host is synced again. Devices appear within seconds of an attach.
const PACE: Pace = Pace::new(500, 30_000);
/// How long a device may take to appear. Minutes have been seen on a busy host.
const LATEST_DEVICE: Duration = Duration::from_secs(150);
/// How soon after one replacement another ENI without a device may be replaced.
const BETWEEN_REPLACEMENTS: Duration = Duration::from_secs(3600);

/// The network that the host last got, and when the host is synced again.
#[derive(Debug, Clone)]
pub(super) struct HostSync {
    /// `None` before the first sync.
    told: Option<HostPicture>,
    /// Whether the host's answer about its ENIs is still to come.
    is_asked: bool,
    /// When an ENI was last given back because its device had not come.
    replaced_at: Option<Timestamp>,
    failure: Backoff,
}

impl HostSync {
    pub(super) fn new(jitter: Jitter) -> Self {
        let failure = Backoff::new(jitter);
        Self { told: None, is_asked: false, replaced_at: None, failure }
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Why the next sync waits, if it does.
    pub(super) fn hold(&self, now: Timestamp) -> Option<&Hold> {
        self.failure.hold(now)
    }

    /// Takes in the state of an ENI on the host.
    pub(super) fn eni_link(
        &mut self,
        eni: &EniId,
        state: LinkState,
        pool: &mut Pool,
        inventory: &mut Inventory,
        now: Timestamp,
    ) {
        if let Some(found) = pool.enis.get_mut(eni) {
            if state == LinkState::Absent && found.is_linked() {
                // Somebody may have detached it.
                inventory.recheck_gone(found.changed_at, now);
            }
            note_link(found, state, now);
        }
        if pool.unready().is_none() {
            self.failure.clear();
        } else if self.is_asked {
            let why = "the host's side of an ENI is not ready".to_owned();
            self.failure.fail(PACE, RefusalCode::LinkFailing, why, now);
            self.is_asked = false;
        }
    }

    /// Syncs the host when the wanted network has changed, and again while an ENI is not usable. The node's own
    /// network is wanted from the start, since running pods need it even if EC2 never answers.
    pub(super) fn sync(
        &mut self,
        pool: &Pool,
        inventory: &Inventory,
        ranges: &VpcRanges,
        record: &Record,
        cx: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        let is_known = inventory.awaited_poll().is_none() || inventory.is_warm_started();
        let enis = pool.enis.values().filter(|_| is_known);
        let enis: Vec<_> = enis.filter_map(|eni| host_eni(eni, inventory, record)).collect();
        let wanted = HostPicture {
            primary_mac: cx.node.primary_mac,
            mtu: cx.policy.mtu,
            families: cx.families().policies().map(|policy| policy.kind.family()).collect(),
            nat: ranges.nat(pool, &enis, cx),
            egress: nat::egress(pool, record, cx),
            neighbours: neighbours::needed(&enis, cx.policy.max_pods),
            enis,
        };
        let is_unready = is_known && pool.unready().is_some();
        let retry = is_unready && !self.is_asked && self.hold(cx.now).is_none();
        if self.told.as_ref() != Some(&wanted) || retry {
            self.is_asked = is_known;
            self.told = Some(wanted.clone());
            out.push(Effect::SyncHost(wanted));
        }
    }

    /// An ENI to give back because its device has not appeared. No pod may have an address of it. Growth then
    /// creates another. Replacements are rare: on a broken host the next device does not appear either.
    pub(super) fn replacement(
        &mut self,
        pool: &Pool,
        calls: &Calls,
        record: &Record,
        cx: Context<'_>,
    ) -> Option<EniId> {
        let now = cx.now;
        if self.replaced_at.is_some_and(|at| now < at + BETWEEN_REPLACEMENTS) {
            return None;
        }
        let hopeless = pool.enis.values().find(|eni| {
            is_overdue(eni, now)
                && eni.is_removable(record)
                && !eni.in_use(cx.rests())
                && !calls.is_busy(&eni.id)
        })?;
        self.replaced_at = Some(now);
        Some(hopeless.id.clone())
    }
}

fn note_link(eni: &mut Eni, state: LinkState, now: Timestamp) {
    eni.absent.observe(state == LinkState::Absent, now);
    let why_absent = is_overdue(eni, now).then(|| no_device(eni));
    let Stage::Attached { link, .. } = &mut eni.stage else { return };
    let times = match link {
        Link::Failed { times, .. } => *times,
        Link::Awaited | Link::Ready => 0,
    };
    *link = match (state, why_absent) {
        (LinkState::Ready, _) => Link::Ready,
        (LinkState::Absent, None) => Link::Awaited,
        (LinkState::Absent, Some(why)) => Link::Failed { why, times: LINK_ATTEMPTS },
        (LinkState::Failed(why), _) => Link::Failed { why, times: times.saturating_add(1) },
    };
}

fn host_eni(eni: &Eni, inventory: &Inventory, record: &Record) -> Option<HostEni> {
    let Stage::Attached { .. } = &eni.stage else { return None };
    let Place { card, index } = eni.route_place()?;
    Some(HostEni {
        eni: eni.id.clone(),
        mac: eni.mac,
        device_index: index,
        network_card: card,
        primary_address: eni.primary_address,
        subnet_cidr: inventory.subnet_cidr_of(eni, record)?,
    })
}

/// Whether the ENI's device is overdue.
fn is_overdue(eni: &Eni, now: Timestamp) -> bool {
    eni.absent.has_lasted(LATEST_DEVICE, now)
}

fn no_device(eni: &Eni) -> String {
    format!(
        "EC2 has attached it, but no device with its hardware address {} has appeared on the host \
         for {} s; it serves no pods, and is replaced if it has none. If that repeats, replace \
         the instance",
        eni.mac,
        LATEST_DEVICE.as_secs()
    )
}
