//! The questions to one Region, by one caller. It must not know what the answers mean.

use std::error::Error;

use address_space::inventory::{Gap, Inventory, Place, Reservation};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::Filter;
use aws_smithy_async::future::pagination_stream::PaginationStream;
use ipam::id::SubnetId;

use crate::answer::{self, BadField};
use crate::{Asked, CallFault, ReadError};

/// EC2's largest page.
pub(crate) const PAGE_SIZE: i32 = 1000;
/// The most items in all pages of one answer. A Region's quota of interfaces is 5,000 unless it is raised.
const MOST_ITEMS: usize = 200_000;
/// How much an error shows of a text from outside, in characters.
const SHOWN: usize = 1000;

/// Who is asked, and where.
pub(crate) struct Question {
    pub(crate) client: Client,
    pub(crate) region: String,
    /// As [`Asked`] has it.
    pub(crate) identity: String,
}

impl Question {
    /// All that can be read.
    pub(crate) async fn all(&self) -> Result<Inventory, ReadError> {
        let mut inventory = Inventory::default();
        let region = &self.region;
        let vpcs = self.client.describe_vpcs().into_paginator().page_size(PAGE_SIZE).items();
        let vpcs = self.must("DescribeVpcs", all(vpcs.send()).await)?;
        inventory.vpcs = self.read("DescribeVpcs", &vpcs, |vpc| answer::vpc(vpc, region))?;
        let subnets = self.client.describe_subnets().into_paginator().page_size(PAGE_SIZE).items();
        let subnets = self.must("DescribeSubnets", all(subnets.send()).await)?;
        inventory.subnets =
            self.read("DescribeSubnets", &subnets, |subnet| answer::subnet(subnet, region))?;
        let enis = self.client.describe_network_interfaces().into_paginator().page_size(PAGE_SIZE);
        let enis = self.must("DescribeNetworkInterfaces", all(enis.items().send()).await)?;
        inventory.interfaces = self.read("DescribeNetworkInterfaces", &enis, answer::interface)?;
        for eni in &enis {
            let public = answer::public_of_interface(eni, region);
            inventory.public_addresses.extend(self.told("DescribeNetworkInterfaces", public)?);
        }
        self.instances(&mut inventory).await?;
        self.reservations(&mut inventory).await?;
        self.public_addresses(&mut inventory).await?;
        self.peerings(&mut inventory).await?;
        self.pools(&mut inventory).await?;
        Ok(inventory)
    }

    async fn instances(&self, inventory: &mut Inventory) -> Result<(), ReadError> {
        let operation = "DescribeInstances";
        let instances = self
            .client
            .describe_instances()
            .filters(filter("instance-state-name", &["pending", "running", "stopping", "stopped"]))
            .into_paginator()
            .page_size(PAGE_SIZE)
            .send();
        let pages = all(instances).await;
        let lost = "types and names of nodes are not known";
        let Some(pages) = self.may(inventory, operation, lost, pages) else { return Ok(()) };
        let reservations = pages.iter().flat_map(|page| page.reservations());
        let instances: Vec<_> =
            reservations.flat_map(|reservation| reservation.instances()).collect();
        inventory.instances = self.read(operation, &instances, answer::instance)?;
        Ok(())
    }

    /// EC2 answers for one subnet at a time.
    async fn reservations(&self, inventory: &mut Inventory) -> Result<(), ReadError> {
        let operation = "GetSubnetCidrReservations";
        let mut subnets = std::mem::take(&mut inventory.subnets);
        let lost = "free /28 count those that reservations keep";
        for subnet in &mut subnets {
            let answer = self.reservations_of(&subnet.id).await;
            let Some(found) = self.may(inventory, operation, lost, answer) else { break };
            subnet.reservations = self.told(operation, found)?;
        }
        inventory.subnets = subnets;
        Ok(())
    }

    async fn reservations_of(
        &self,
        subnet: &SubnetId,
    ) -> Result<Result<Vec<Reservation>, BadField>, CallFault> {
        let mut found = vec![];
        let mut next: Option<String> = None;
        loop {
            let question = self.client.get_subnet_cidr_reservations().subnet_id(subnet.as_str());
            let answer = question.set_next_token(next.take()).send().await.map_err(fault)?;
            let v4 = answer.subnet_ipv4_cidr_reservations();
            for one in v4.iter().chain(answer.subnet_ipv6_cidr_reservations()) {
                match answer::reservation(one) {
                    Ok(reservation) => found.push(reservation),
                    Err(field) => return Ok(Err(field)),
                }
            }
            next = answer.next_token().map(str::to_owned);
            if next.is_none() || found.len() > MOST_ITEMS {
                return Ok(Ok(found));
            }
        }
    }

    async fn public_addresses(&self, inventory: &mut Inventory) -> Result<(), ReadError> {
        let operation = "DescribeAddresses";
        let answer = self.client.describe_addresses().send().await.map_err(fault);
        let lost = "public addresses that nobody uses are not known";
        let Some(answer) = self.may(inventory, operation, lost, answer) else { return Ok(()) };
        let place = self.own_place(inventory);
        let found = self.read(operation, answer.addresses(), |address| {
            answer::public_address(address, &place)
        })?;
        inventory.public_addresses.extend(found.into_iter().flatten());
        Ok(())
    }

    async fn peerings(&self, inventory: &mut Inventory) -> Result<(), ReadError> {
        let operation = "DescribeVpcPeeringConnections";
        let peerings = self.client.describe_vpc_peering_connections();
        let peerings = peerings.filters(filter("status-code", &["active"])).into_paginator();
        let answer = all(peerings.page_size(PAGE_SIZE).items().send()).await;
        let lost = "overlaps do not say what peers";
        let Some(found) = self.may(inventory, operation, lost, answer) else { return Ok(()) };
        inventory.peerings = self.read(operation, &found, answer::peering)?;
        Ok(())
    }

    /// The caller's own account, as far as an answer names it.
    pub(crate) fn own_place(&self, inventory: &Inventory) -> Place {
        let account = inventory.vpcs.first().map_or(String::new(), |vpc| vpc.place.account.clone());
        Place { account, region: self.region.clone() }
    }

    /// An answer without which there is no inventory.
    fn must<T>(
        &self,
        operation: &'static str,
        answer: Result<T, CallFault>,
    ) -> Result<T, ReadError> {
        answer.map_err(|source| ReadError::Call { asked: self.asked(operation), source })
    }

    /// An answer without which the inventory has a gap. `lost` says what that means.
    pub(crate) fn may<T>(
        &self,
        inventory: &mut Inventory,
        operation: &'static str,
        lost: &str,
        answer: Result<T, CallFault>,
    ) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(fault) => {
                let place = self.own_place(inventory);
                let why = format!("{fault}; {lost}");
                inventory.gaps.push(Gap { place, operation: operation.to_owned(), why });
                None
            }
        }
    }

    /// Each item of an answer, converted.
    pub(crate) fn read<T, U>(
        &self,
        operation: &'static str,
        items: &[T],
        convert: impl FnMut(&T) -> Result<U, BadField>,
    ) -> Result<Vec<U>, ReadError> {
        self.told(operation, items.iter().map(convert).collect())
    }

    pub(crate) fn told<T>(
        &self,
        operation: &'static str,
        converted: Result<T, BadField>,
    ) -> Result<T, ReadError> {
        converted.map_err(|source| ReadError::Answer { asked: self.asked(operation), source })
    }

    fn asked(&self, operation: &'static str) -> Asked {
        Asked { operation, region: self.region.clone(), identity: self.identity.clone() }
    }
}

/// All items of all pages. A part of them would be worse than an error.
pub(crate) async fn all<T, E>(
    mut items: PaginationStream<Result<T, SdkError<E, HttpResponse>>>,
) -> Result<Vec<T>, CallFault>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let mut all = Vec::new();
    while let Some(item) = items.try_next().await.map_err(fault)? {
        if all.len() == MOST_ITEMS {
            let message = format!("more than {MOST_ITEMS} items in all pages");
            return Err(CallFault { code: "AnswerTooLong".to_owned(), message });
        }
        all.push(item);
    }
    Ok(all)
}

/// The code of EC2 if it has answered. Otherwise the causes tell what has kept it from that.
pub(crate) fn fault<E>(error: SdkError<E, HttpResponse>) -> CallFault
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let Some(code) = error.code() {
        let message = shown(error.message().unwrap_or_default());
        return CallFault { code: shown(code), message };
    }
    let first: Option<&(dyn Error + 'static)> = Some(&error);
    let causes = std::iter::successors(first, |error| (*error).source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    CallFault { code: "NoAnswer".to_owned(), message: shown(&causes.join(": ")) }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn filter(name: &str, values: &[&str]) -> Filter {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Filter::builder().name(name).set_values(Some(values)).build()
}
