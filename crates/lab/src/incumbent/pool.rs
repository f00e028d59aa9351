//! The pool loop: start, then every five seconds growth or shrinking, and reconciling.

use std::rc::Rc;
use std::time::Duration;

use ec2_model::error::ApiError;
use ec2_model::id::{EniId, ResourceId};
use ec2_model::request::{
    AssignPrivateIpAddresses, CreateTags, ModifyNetworkInterfaceAttribute, Tag,
    UnassignPrivateIpAddresses, WantedIpv4,
};
use ec2_model::response::Response;
use ipam::call::INSTANCE_TAG;
use ipam::time::Timestamp;
use ipnet::Ipv4Net;

use super::Shared;
use super::enis::Waits;
use super::script::Port;
use super::store::{Kind, Stats};

/// Half a turn: the loop sleeps this long before the pool's part and before reconciling.
const HALF_TURN: Duration = Duration::from_millis(2_500);
/// The least time between two shrinks.
const DECREASE_INTERVAL: Duration = Duration::from_secs(30);
/// Wait before the daemon restarts, and between two attempts to set up an ENI at the start.
const START_PAUSE: Duration = Duration::from_secs(10);
/// Attempts to set up an ENI at the start. Then the ENI is skipped.
const START_TRIES: u32 = 6;
const TAG_TRIES: u32 = 5;
/// How long the loop does not grow after a subnet had too few addresses.
const INSUFFICIENT_REST: Duration = Duration::from_secs(120);

/// The pool loop of one node.
pub(super) struct Manager {
    pub(super) port: Port,
    pub(super) shared: Rc<Shared>,
    insufficient_at: Option<Timestamp>,
    decreased_at: Option<Timestamp>,
    /// When the loop last grew, shrank or reconciled.
    pub(super) acted_at: Option<Timestamp>,
}

impl Manager {
    pub(super) fn new(port: Port, shared: Rc<Shared>) -> Self {
        Self { port, shared, insufficient_at: None, decreased_at: None, acted_at: None }
    }

    pub(super) async fn run(mut self) {
        self.start().await;
        self.shared.ready.set(true);
        loop {
            self.port.sleep(HALF_TURN).await;
            self.keep_pool().await;
            self.port.sleep(HALF_TURN).await;
            self.reconcile().await;
        }
    }

    /// Sets up the attached ENIs and grows by one step. If a call fails, the real daemon exits and
    /// is restarted.
    async fn start(&mut self) {
        while self.take_all_in().await.is_err() {
            self.port.sleep(START_PAUSE).await;
        }
        if self.is_low() {
            self.grow().await;
        }
    }

    async fn take_all_in(&self) -> Result<(), ApiError> {
        let shown = self.port.metadata().await;
        self.describe_all(&shown).await?;
        for eni in &shown {
            self.tag(&eni.id).await?;
            for _ in 0..START_TRIES {
                if self.set_up(eni).await.is_ok() {
                    break;
                }
                self.port.sleep(START_PAUSE).await;
            }
            // The cache of security groups is empty at the start, so they are set again. The real
            // daemon only logs a failure.
            let groups = ModifyNetworkInterfaceAttribute {
                groups: self.shared.site.security_groups.clone(),
                ..ModifyNetworkInterfaceAttribute::of(eni.id.clone())
            };
            let _ = self.port.call(groups).await;
        }
        Ok(())
    }

    async fn tag(&self, eni: &EniId) -> Result<(), ApiError> {
        let value = Some(self.shared.site.instance.as_str().to_owned());
        let tags = vec![Tag { key: INSTANCE_TAG.to_owned(), value }];
        let resources = vec![ResourceId::NetworkInterface(eni.clone())];
        let request = CreateTags { resources, tags, dry_run: false };
        self.insist(request, TAG_TRIES, Waits::of_tagging()).await
    }

    fn stats(&self) -> Stats {
        self.shared.store.borrow().stats()
    }

    /// How many addresses are missing for the targets of addresses.
    fn short(&self) -> u64 {
        let (stats, targets) = (self.stats(), self.shared.targets);
        let warm = targets.ips.saturating_sub(stats.available());
        warm.max(targets.minimum.saturating_sub(stats.total))
    }

    fn is_low(&self) -> bool {
        let (stats, targets) = (self.stats(), self.shared.targets);
        let available = stats.available();
        if stats.total >= u64::from(self.shared.site.policy.max_pods) {
            return false;
        }
        if targets.are_ips() {
            return self.short() > 0;
        }
        let store = self.shared.store.borrow();
        let wanted = match store.kind() {
            Kind::Address => targets.enis * store.eni_size(),
            Kind::Prefix => targets.prefixes * store.cidr_size(),
        };
        available < wanted || wanted == 0 && available == 0
    }

    /// How many CIDRs the pool has beyond its targets.
    fn over(&self) -> u64 {
        let (stats, targets) = (self.stats(), self.shared.targets);
        let size = self.shared.store.borrow().cidr_size();
        match (targets.are_ips(), self.shared.store.borrow().kind()) {
            (true, Kind::Address) => {
                let over = stats.available().saturating_sub(targets.ips);
                over.min(stats.total.saturating_sub(targets.minimum))
            }
            (true, Kind::Prefix) => {
                let needed = (stats.assigned + targets.ips).div_ceil(size);
                let needed = needed.max(targets.minimum.div_ceil(size));
                stats.free_cidrs.min(stats.cidrs.saturating_sub(needed))
            }
            (false, Kind::Prefix) => stats.free_cidrs.saturating_sub(targets.prefixes),
            (false, Kind::Address) => 0,
        }
    }

    async fn keep_pool(&mut self) {
        let now = self.port.now();
        let may_shrink = self.decreased_at.is_none_or(|at| now.since(at) > DECREASE_INTERVAL);
        if self.is_low() {
            self.grow().await;
        } else if self.over() > 0 && may_shrink {
            self.shrink().await;
        }
        if self.has_extra_enis() {
            self.free_one_eni().await;
        }
    }

    /// One step of growth: more CIDRs on one ENI, or one more ENI.
    async fn grow(&mut self) {
        let now = self.port.now();
        if self.insufficient_at.is_some_and(|at| now.since(at) <= INSUFFICIENT_REST) {
            return;
        }
        let grown = match self.grow_on_eni().await {
            Ok(Growth::Grown) => Ok(()),
            Ok(Growth::NoEniTakesMore) => self.grow_by_eni().await,
            Ok(Growth::NothingWanted) => return,
            Err(error) => Err(error),
        };
        match grown {
            Ok(()) => self.acted_at = Some(self.port.now()),
            Err(error) if is_insufficient(&error) => self.insufficient_at = Some(self.port.now()),
            // The real daemon logs other errors and retries in the next turn.
            Err(_) => {}
        }
    }

    /// How many CIDRs to request if there is room for `room`.
    pub(super) fn want(&self, room: usize) -> u64 {
        let (stats, targets) = (self.stats(), self.shared.targets);
        let store = self.shared.store.borrow();
        let want = match (store.kind(), targets.are_ips()) {
            (Kind::Address, true) => self.short(),
            (Kind::Address, false) => u64::MAX,
            (Kind::Prefix, true) => self.short().div_ceil(store.cidr_size()).max(1),
            (Kind::Prefix, false) => targets.prefixes.saturating_sub(stats.free_cidrs).max(1),
        };
        want.min(u64::try_from(room).expect("an ENI's room is small"))
    }

    async fn grow_on_eni(&mut self) -> Result<Growth, ApiError> {
        let candidates = {
            let (store, mut rng) = (self.shared.store.borrow(), self.shared.rng.borrow_mut());
            store.unfilled(&mut rng)
        };
        let limit = self.shared.store.borrow().cidrs_per_eni;
        for (eni, n_cidrs) in candidates {
            let want = self.want(limit - n_cidrs);
            if want == 0 {
                return Ok(Growth::NothingWanted);
            }
            match self.assign_or_one(&eni, want).await {
                Ok(cidrs) => {
                    self.shared.store.borrow_mut().add_cidrs(&eni, cidrs);
                    return Ok(Growth::Grown);
                }
                Err(error) if is_insufficient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Growth::NoEniTakesMore)
    }

    /// Requests `want` CIDRs, and one if that fails.
    async fn assign_or_one(&self, eni: &EniId, want: u64) -> Result<Vec<Ipv4Net>, ApiError> {
        match self.assign(eni, want).await {
            Err(error) if error.code == "PrivateIpAddressLimitExceeded" => self.read(eni).await,
            Err(_) => self.assign(eni, 1).await,
            assigned => assigned,
        }
    }

    async fn assign(&self, eni: &EniId, want: u64) -> Result<Vec<Ipv4Net>, ApiError> {
        let (address_count, prefix_count) = self.counts(want);
        let request = AssignPrivateIpAddresses {
            network_interface_id: eni.clone(),
            wanted: WantedIpv4 { address_count, prefix_count, ..WantedIpv4::default() },
            allow_reassignment: false,
        };
        match self.port.call(request).await? {
            Response::AssignedIpv4 { addresses, prefixes, .. } => {
                Ok(addresses.into_iter().map(Ipv4Net::from).chain(prefixes).collect())
            }
            other => unreachable!("not an answer to AssignPrivateIpAddresses: {other:?}"),
        }
    }

    /// `n` as the counts of a request: addresses, prefixes.
    pub(super) fn counts(&self, n: u64) -> (Option<i32>, Option<i32>) {
        let n = i32::try_from(n).ok().filter(|n| *n > 0);
        match self.shared.store.borrow().kind() {
            Kind::Address => (n, None),
            Kind::Prefix => (None, n),
        }
    }

    async fn shrink(&mut self) {
        let mut left = usize::try_from(self.over()).expect("CIDRs of a node");
        let enis: Vec<_> = {
            let store = self.shared.store.borrow();
            self.shared.rng.borrow_mut().shuffled(store.enis.keys().cloned())
        };
        for eni in enis {
            if left == 0 {
                break;
            }
            let cidrs = {
                let (mut store, mut rng) =
                    (self.shared.store.borrow_mut(), self.shared.rng.borrow_mut());
                let cidrs = store.freeable(&eni, left, &mut rng);
                store.give_back(&eni, &cidrs, self.port.now());
                cidrs
            };
            left -= cidrs.len();
            self.unassign(&eni, &cidrs).await;
        }
        let now = self.port.now();
        (self.decreased_at, self.acted_at) = (Some(now), Some(now));
    }

    /// The real daemon only logs a failure. Reconciling adds the CIDRs again.
    async fn unassign(&self, eni: &EniId, cidrs: &[Ipv4Net]) {
        let (singles, prefixes): (Vec<Ipv4Net>, Vec<Ipv4Net>) =
            cidrs.iter().partition(|cidr| cidr.prefix_len() == 32);
        let none = UnassignPrivateIpAddresses {
            network_interface_id: eni.clone(),
            addresses: Vec::new(),
            prefixes: Vec::new(),
        };
        if !prefixes.is_empty() {
            let _ = self.port.call(UnassignPrivateIpAddresses { prefixes, ..none.clone() }).await;
        }
        if !singles.is_empty() {
            let addresses = singles.iter().map(Ipv4Net::addr).collect();
            let _ = self.port.call(UnassignPrivateIpAddresses { addresses, ..none }).await;
        }
    }

    fn has_extra_enis(&self) -> bool {
        let (stats, targets) = (self.stats(), self.shared.targets);
        let store = self.shared.store.borrow();
        let available = stats.available();
        targets.are_ips()
            || match store.kind() {
                Kind::Address => available >= (targets.enis + 1) * store.eni_size(),
                Kind::Prefix => {
                    available >= (targets.prefixes + 1) * store.eni_size() || store.has_unused_eni()
                }
            }
    }

    async fn free_one_eni(&mut self) {
        let targets = self.shared.targets;
        let removable = {
            let (store, mut rng) = (self.shared.store.borrow(), self.shared.rng.borrow_mut());
            let (warm, minimum) = (targets.ips, targets.minimum);
            store.removable_eni(warm, minimum, targets.prefixes, &mut rng, self.port.now())
        };
        if let Some(eni) = removable {
            self.shared.store.borrow_mut().remove_eni(&eni);
            // If this fails, reconciling finds the ENI again.
            let _ = self.free_eni(&eni).await;
        }
    }
}

/// The result of growing on the existing ENIs.
enum Growth {
    Grown,
    NoEniTakesMore,
    NothingWanted,
}

pub(super) fn is_insufficient(error: &ApiError) -> bool {
    matches!(error.code.as_str(), "InsufficientCidrBlocks" | "InsufficientFreeAddressesInSubnet")
}
