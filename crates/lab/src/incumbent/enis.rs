//! ENIs of the incumbent: creating one, freeing one, finding leaks.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ec2_model::error::ApiError;
use ec2_model::id::{AttachmentId, EniId, SubnetId};
use ec2_model::request::{
    AttachNetworkInterface, AttachmentChange, CreateNetworkInterface, DeleteNetworkInterface,
    DescribeInstances, DescribeNetworkInterfaces, DetachNetworkInterface, Listing,
    ModifyNetworkInterfaceAttribute, Request,
};
use ec2_model::response::{NetworkInterface, Response, Subnet};
use ipam::call::INSTANCE_TAG;
use ipam::time::Timestamp;

use super::Shared;
use super::pool::{Manager, is_insufficient};
use super::script::Port;
use super::store::Kind;
use crate::daemon::MetadataEni;
use crate::ec2::{describe_subnets, filter, tag_specification};

/// Attempts of a detach, of a delete, of a describe of all ENIs, and of waiting for a new ENI.
pub(super) const TRIES: u32 = 12;
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const CREATED_TAG: &str = "node.k8s.amazonaws.com/createdAt";
const ROLE_TAG: &str = "kubernetes.io/role/cni";
/// Device indexes that are tried in order.
const DEVICE_INDEXES: std::ops::Range<u16> = 0..100;
/// The least age of a leaked ENI.
const LEAK_AGE: Duration = Duration::from_secs(300);

/// The waits between the attempts of one operation.
pub(super) struct Waits {
    next: Duration,
    jitter: f64,
}

impl Waits {
    fn from_millis(first: u64) -> Self {
        Self { next: Duration::from_millis(first), jitter: 0.15 }
    }

    /// The waits of CreateTags.
    pub(super) fn of_tagging() -> Self {
        Self { jitter: 0.3, ..Self::from_millis(500) }
    }

    async fn wait(&mut self, port: &Port, shared: &Shared) {
        let wait = shared.rng.borrow_mut().jittered(self.next, self.jitter);
        self.next = (self.next * 2).min(LONGEST_WAIT);
        port.sleep(wait).await;
    }
}

impl Manager {
    /// Creates and attaches an ENI and adds it to the store, if the instance takes one more.
    pub(super) async fn grow_by_eni(&mut self) -> Result<(), ApiError> {
        let site = &self.shared.site;
        let n_allowed = usize::from(site.limits.enis_allowed(&site.policy));
        let (n_enis, room) = {
            let store = self.shared.store.borrow();
            (store.enis.len(), store.cidrs_per_eni)
        };
        let want = self.want(room);
        if n_enis >= n_allowed || want == 0 {
            return Ok(());
        }
        let eni = self.create_eni(want).await?;
        let attachment = match self.attach(&eni).await {
            Ok(attachment) => attachment,
            Err(error) => {
                delete(&self.port, &self.shared, &eni).await;
                return Err(error);
            }
        };
        if let Err(error) = self.set_delete_on_termination(&eni, attachment).await {
            let _ = self.free_eni(&eni).await;
            return Err(error);
        }
        let shown = self.await_eni(&eni, want).await?;
        self.set_up(&shown).await
    }

    /// Tries each usable subnet until one can serve the request.
    async fn create_eni(&self, want: u64) -> Result<EniId, ApiError> {
        let mut last = ApiError::new("NoSubnet", "no subnet may be used");
        for subnet in self.subnets().await? {
            match self.create_eni_in(subnet, want).await {
                Ok(eni) => return Ok(eni),
                // A subnet's lack of addresses is the more useful error.
                Err(error) if !is_insufficient(&last) => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }

    /// The primary ENI's subnet and the tagged subnets, by free addresses, most first.
    async fn subnets(&self) -> Result<Vec<SubnetId>, ApiError> {
        let site = &self.shared.site;
        let Response::Subnets(page) = self.port.call(describe_subnets(site)).await? else {
            unreachable!("not an answer to DescribeSubnets");
        };
        let is_usable = |subnet: &Subnet| match subnet.tags.get(ROLE_TAG).map(String::as_str) {
            None | Some("") => subnet.id == site.subnet,
            Some("0") => false,
            Some(_) => true,
        };
        let mut usable: Vec<_> = page.items.into_iter().filter(is_usable).collect();
        usable.sort_by_key(|subnet| std::cmp::Reverse(subnet.available_ip_address_count));
        Ok(usable.into_iter().map(|subnet| subnet.id).collect())
    }

    async fn create_eni_in(&self, subnet: SubnetId, want: u64) -> Result<EniId, ApiError> {
        let (secondary_private_ip_address_count, ipv4_prefix_count) = self.counts(want);
        let instance = &self.shared.site.instance;
        let tags = BTreeMap::from([
            (INSTANCE_TAG.to_owned(), instance.to_string()),
            (CREATED_TAG.to_owned(), self.port.now().to_rfc3339()),
        ]);
        let request = CreateNetworkInterface {
            secondary_private_ip_address_count,
            ipv4_prefix_count,
            groups: self.shared.site.security_groups.clone(),
            description: format!("aws-K8S-{instance}"),
            tag_specifications: vec![tag_specification(&tags)],
            ..CreateNetworkInterface::in_subnet(subnet)
        };
        match self.port.call(request).await? {
            Response::Created { network_interface, .. } => Ok(network_interface.id),
            other => unreachable!("not an answer to CreateNetworkInterface: {other:?}"),
        }
    }

    async fn attach(&self, eni: &EniId) -> Result<AttachmentId, ApiError> {
        let instance = &self.shared.site.instance;
        let instance_ids = vec![instance.clone()];
        let describe = DescribeInstances { instance_ids, ..DescribeInstances::default() };
        let Response::Reservations(page) = self.port.call(describe).await? else {
            unreachable!("not an answer to DescribeInstances");
        };
        let instances = page.items.iter().flat_map(|reservation| &reservation.instances);
        let enis = instances.flat_map(|instance| &instance.network_interfaces);
        let attachments = enis.filter_map(|eni| eni.attachment.as_ref());
        let taken: Vec<u16> = attachments.map(|attachment| attachment.device_index).collect();
        let free = DEVICE_INDEXES.into_iter().find(|index| !taken.contains(index));
        let index = free.ok_or_else(|| ApiError::new("NoDeviceIndex", "none is free"))?;
        let request = AttachNetworkInterface {
            network_interface_id: eni.clone(),
            instance_id: instance.clone(),
            device_index: i32::from(index),
            network_card_index: 0,
            ena_queue_count: None,
            dry_run: false,
        };
        match self.port.call(request).await? {
            Response::Attached { attachment_id, .. } => Ok(attachment_id),
            other => unreachable!("not an answer to AttachNetworkInterface: {other:?}"),
        }
    }

    async fn set_delete_on_termination(
        &self,
        eni: &EniId,
        attachment_id: AttachmentId,
    ) -> Result<(), ApiError> {
        let request = ModifyNetworkInterfaceAttribute {
            attachment: Some(AttachmentChange { attachment_id, delete_on_termination: true }),
            ..ModifyNetworkInterfaceAttribute::of(eni.clone())
        };
        self.port.call(request).await.map(drop)
    }

    /// Waits until IMDS shows the ENI with all requested addresses. After all attempts, some of
    /// them suffice.
    async fn await_eni(&self, eni: &EniId, want: u64) -> Result<MetadataEni, ApiError> {
        let kind = self.shared.store.borrow().kind();
        let count = |shown: &MetadataEni| match kind {
            Kind::Address => shown.addresses.len(),
            Kind::Prefix => shown.prefixes.len(),
        };
        let mut waits = Waits::from_millis(100);
        let mut last = None;
        for attempt in 1..=TRIES {
            last = self.port.metadata().await.into_iter().find(|shown| shown.id == *eni);
            let n_shown = last.as_ref().map_or(0, count);
            if u64::try_from(n_shown).is_ok_and(|n| n >= want) {
                break;
            }
            if attempt < TRIES {
                waits.wait(&self.port, &self.shared).await;
            }
        }
        let least = match kind {
            Kind::Address => 1,
            // If several prefixes are requested, one is not enough.
            Kind::Prefix => want.min(2),
        };
        let is_enough = |shown: &MetadataEni| u64::try_from(count(shown)).is_ok_and(|n| n >= least);
        last.filter(is_enough).ok_or_else(|| ApiError::new("NotShown", "the ENI has not come"))
    }

    /// Adds an attached ENI to the store with the addresses that IMDS shows.
    pub(super) async fn set_up(&self, shown: &MetadataEni) -> Result<(), ApiError> {
        let site = &self.shared.site;
        let is_primary = shown.id == site.primary_eni;
        self.shared.store.borrow_mut().add_eni(&shown.id, is_primary, self.port.now());
        // The real daemon checks here whether the subnet was excluded.
        self.port.call(describe_subnets(site)).await?;
        let cidrs = shown.addresses.iter().chain(&shown.prefixes).copied();
        self.shared.store.borrow_mut().add_cidrs(&shown.id, cidrs);
        Ok(())
    }

    pub(super) async fn free_eni(&self, eni: &EniId) -> Result<(), ApiError> {
        let Some(shown) = self.describe(eni).await? else { return Ok(()) };
        if let Some(attachment) = shown.attachment {
            self.detach(attachment.id).await?;
        }
        self.port.sleep(Duration::from_secs(2)).await;
        delete(&self.port, &self.shared, eni).await;
        Ok(())
    }

    async fn detach(&self, attachment_id: AttachmentId) -> Result<(), ApiError> {
        let request = DetachNetworkInterface { attachment_id, force: false, dry_run: false };
        self.insist(request, TRIES, Waits::from_millis(200)).await
    }

    /// Makes a call until it succeeds, with `tries` attempts in total.
    pub(super) async fn insist(
        &self,
        request: impl Into<Request>,
        tries: u32,
        mut waits: Waits,
    ) -> Result<(), ApiError> {
        let request = request.into();
        for _ in 1..tries {
            if self.port.call(request.clone()).await.is_ok() {
                return Ok(());
            }
            waits.wait(&self.port, &self.shared).await;
        }
        self.port.call(request).await.map(drop)
    }

    /// Describes an ENI. `None` if it does not exist.
    pub(super) async fn describe(&self, eni: &EniId) -> Result<Option<NetworkInterface>, ApiError> {
        let network_interface_ids = vec![eni.clone()];
        let request = DescribeNetworkInterfaces { network_interface_ids, ..Default::default() };
        match self.port.call(request).await {
            Ok(Response::NetworkInterfaces(page)) => Ok(page.items.into_iter().next()),
            Ok(other) => unreachable!("not an answer to DescribeNetworkInterfaces: {other:?}"),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_gone(error: &ApiError) -> bool {
    error.code == "InvalidNetworkInterfaceID.NotFound"
}

/// Deletes an ENI. If all attempts fail, the ENI has leaked.
async fn delete(port: &Port, shared: &Shared, eni: &EniId) {
    let mut waits = Waits::from_millis(500);
    for attempt in 1..=TRIES {
        let request = DeleteNetworkInterface { network_interface_id: eni.clone(), dry_run: false };
        match port.call(request).await {
            Ok(_) => return,
            Err(error) if is_gone(&error) => return,
            Err(_) if attempt < TRIES => waits.wait(port, shared).await,
            Err(_) => {}
        }
    }
}

/// Once an hour, after up to five minutes: deletes old unattached ENIs of all nodes.
pub(super) async fn search_for_leaks(port: Port, shared: Rc<Shared>) {
    loop {
        let delay = shared.rng.borrow_mut().index(300);
        port.sleep(Duration::from_secs(u64::try_from(delay).expect("below 300"))).await;
        for eni in leaks(&port, &shared).await.unwrap_or_default() {
            delete(&port, &shared, &eni).await;
        }
        port.sleep(Duration::from_secs(3600)).await;
    }
}

async fn leaks(port: &Port, shared: &Shared) -> Result<Vec<EniId>, ApiError> {
    let filters = vec![
        filter("tag-key", INSTANCE_TAG),
        filter("status", "available"),
        filter("vpc-id", shared.site.vpc.as_str()),
    ];
    let listing = Listing { filters, max_results: Some(1000), next_token: None };
    let request = DescribeNetworkInterfaces { listing, ..Default::default() };
    let Response::NetworkInterfaces(page) = port.call(request).await? else {
        unreachable!("not an answer to DescribeNetworkInterfaces");
    };
    let born_before = port.now().before(LEAK_AGE);
    let leaked = page.items.into_iter().filter(|eni| is_older(eni, born_before));
    Ok(leaked.map(|eni| eni.id).collect())
}

/// Timestamps of equal length compare as text.
fn is_older(eni: &NetworkInterface, born_before: Timestamp) -> bool {
    eni.tags.get(CREATED_TAG).is_some_and(|created| *created <= born_before.to_rfc3339())
}
