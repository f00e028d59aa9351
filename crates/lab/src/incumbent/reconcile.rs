//! How the incumbent reconciles its store with IMDS.

use std::collections::BTreeSet;
use std::time::Duration;

use ec2_model::error::ApiError;
use ec2_model::id::EniId;
use ec2_model::request::DescribeNetworkInterfaces;
use ec2_model::response::NetworkInterface;
use ipnet::Ipv4Net;

use super::enis::TRIES;
use super::pool::Manager;
use crate::daemon::MetadataEni;

/// Least time since the last growth, shrink or reconciling.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(60);

impl Manager {
    pub(super) async fn reconcile(&mut self) {
        let now = self.port.now();
        if self.acted_at.is_some_and(|at| now.since(at) <= RECONCILE_INTERVAL) {
            return;
        }
        let shown = self.port.metadata().await;
        self.forget_detached(&shown);
        let mut described = false;
        for eni in &shown {
            let believed = self.shared.store.borrow().cidrs_of(&eni.id);
            match believed {
                Some(believed) => self.reconcile_eni(eni, &believed).await,
                None => self.take_in(eni, &shown, &mut described).await,
            }
        }
        self.acted_at = Some(self.port.now());
    }

    fn forget_detached(&self, shown: &[MetadataEni]) {
        let mut store = self.shared.store.borrow_mut();
        let is_shown = |id: &&EniId| shown.iter().any(|eni| eni.id == **id);
        let gone: Vec<_> = store.enis.keys().filter(|id| !is_shown(id)).cloned().collect();
        gone.iter().for_each(|eni| store.remove_eni(eni));
    }

    /// Sets up an attached ENI that is not in the store, as after a failed growth. All ENIs are
    /// described once per round.
    async fn take_in(&self, eni: &MetadataEni, shown: &[MetadataEni], described: &mut bool) {
        if !*described {
            if self.describe_all(shown).await.is_err() {
                return;
            }
            *described = true;
        }
        // The real daemon logs a failure and retries in the next round.
        let _ = self.set_up(eni).await;
    }

    /// Describes all attached ENIs, for their tags.
    pub(super) async fn describe_all(&self, shown: &[MetadataEni]) -> Result<(), ApiError> {
        let network_interface_ids = shown.iter().map(|eni| eni.id.clone()).collect();
        let all = DescribeNetworkInterfaces { network_interface_ids, ..Default::default() };
        for attempt in 1..TRIES {
            if self.port.call(all.clone()).await.is_ok() {
                return Ok(());
            }
            self.port.sleep(Duration::from_millis(10) * attempt).await;
        }
        self.port.call(all).await.map(drop)
    }

    /// If IMDS and the store differ, EC2's answer to a describe counts: addresses first, then
    /// prefixes.
    async fn reconcile_eni(&self, eni: &MetadataEni, believed: &BTreeSet<Ipv4Net>) {
        let (singles, prefixes): (BTreeSet<Ipv4Net>, BTreeSet<Ipv4Net>) =
            believed.iter().partition(|cidr| cidr.prefix_len() == 32);
        if singles != eni.addresses
            && let Ok(true_singles) = self.singles(&eni.id).await
        {
            self.replace(&eni.id, &singles, true_singles);
        }
        if prefixes != eni.prefixes
            && let Ok(Some(described)) = self.describe(&eni.id).await
        {
            self.replace(&eni.id, &prefixes, described.ipv4_prefixes);
        }
    }

    async fn singles(&self, eni: &EniId) -> Result<Vec<Ipv4Net>, ApiError> {
        Ok(self.describe(eni).await?.as_ref().map(singles_of).unwrap_or_default())
    }

    /// All CIDRs of an ENI in EC2's answer.
    pub(super) async fn read(&self, eni: &EniId) -> Result<Vec<Ipv4Net>, ApiError> {
        let described = self.describe(eni).await?;
        let all = |eni: NetworkInterface| {
            let mut all = singles_of(&eni);
            all.extend(eni.ipv4_prefixes);
            all
        };
        Ok(described.map(all).unwrap_or_default())
    }

    fn replace(&self, eni: &EniId, believed: &BTreeSet<Ipv4Net>, truth: Vec<Ipv4Net>) {
        let now = self.port.now();
        let mut store = self.shared.store.borrow_mut();
        let truth: BTreeSet<_> =
            truth.into_iter().filter(|cidr| !store.is_given_back(*cidr, now)).collect();
        for cidr in believed.difference(&truth) {
            store.remove_cidr(eni, *cidr);
        }
        store.add_cidrs(eni, truth);
    }
}

fn singles_of(eni: &NetworkInterface) -> Vec<Ipv4Net> {
    let own = eni.private_ip_address;
    let addresses = eni.private_ip_addresses.iter().map(|it| it.address);
    addresses.filter(|address| Some(*address) != own).map(Ipv4Net::from).collect()
}
