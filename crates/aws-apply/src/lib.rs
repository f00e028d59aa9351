//! Makes the pools, VPCs and subnets of a plan at EC2, one call at a time. It has no call that
//! changes or deletes what is there.
//!
//! It must not know which steps a plan has, which of them are done, or what follows a call that fails.

use std::collections::BTreeMap;
use std::time::Duration;

use address_space::design::steps::{Make, Step};
use aws::{Caller, ConnectError, call_error, connect};
use aws_config::retry::RetryConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    AddressFamily, ResourceType, SubnetCidrReservationType, Tag, TagSpecification,
};
use ipam::call::{CallError, CallErrorKind};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Why nothing can be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread, a timer or a signal handler cannot be made.
    #[error("start the client")]
    Runtime(#[source] std::io::Error),
    /// No client can be made.
    #[error("make a client of EC2")]
    Connect(#[from] ConnectError),
}

/// Makes things at EC2. From its start on, Ctrl-C does not end the process: [`Maker::is_interrupted`] says that it was
/// pressed.
#[derive(Debug)]
pub struct Maker {
    runtime: Runtime,
    /// By Region.
    clients: BTreeMap<String, Client>,
    interrupted: watch::Receiver<bool>,
}

impl Maker {
    /// With a client for each caller's Region. It calls EC2 not at all.
    ///
    /// # Errors
    /// If the process lacks threads, or a client cannot be made.
    pub fn start(callers: &[Caller]) -> Result<Self, StartError> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime =
            runtime.worker_threads(1).enable_all().build().map_err(StartError::Runtime)?;
        let clients = runtime.block_on(async {
            let mut clients = BTreeMap::new();
            for caller in callers {
                // A retry of a call whose answer is lost would make a second VPC.
                let (client, region) = connect(caller, RetryConfig::disabled()).await?;
                clients.extend(region.map(|region| (region, client)));
            }
            Ok::<_, ConnectError>(clients)
        })?;
        let (sender, interrupted) = watch::channel(false);
        let guard = runtime.enter();
        let mut presses = signal(SignalKind::interrupt()).map_err(StartError::Runtime)?;
        drop(guard);
        runtime.spawn(async move {
            presses.recv().await;
            sender.send_replace(true);
        });
        Ok(Self { runtime, clients, interrupted })
    }

    /// Whether Ctrl-C was pressed.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        *self.interrupted.borrow()
    }

    /// Waits, until Ctrl-C is pressed at most.
    pub fn wait(&self, time: Duration) {
        let mut interrupted = self.interrupted.clone();
        self.runtime.block_on(async {
            let pressed = interrupted.wait_for(|pressed| *pressed);
            // Whichever comes first: the caller asks by itself whether Ctrl-C was pressed.
            let _ = tokio::time::timeout(time, pressed).await;
        });
    }

    /// Makes what the step says, by one call without a retry, and gives its id.
    ///
    /// # Errors
    /// The call's. With [`CallErrorKind::OutcomeUnknown`] it may be made.
    pub fn make(&self, step: &Step, make: &Make<String>) -> Result<String, CallError> {
        let operation = make.operation();
        let fault =
            |kind, code: &str, message: String| CallError { kind, code: code.to_owned(), message };
        let client = self.clients.get(&step.region).ok_or_else(|| {
            fault(CallErrorKind::Rejected, "NoClient", format!("no client for {}", step.region))
        })?;
        let id = self.runtime.block_on(made(client, step, make))?;
        // It is made, and has to be found by its tags.
        id.ok_or_else(|| {
            fault(CallErrorKind::OutcomeUnknown, "MalformedAnswer", format!("{operation}: no id"))
        })
    }
}

async fn made(
    client: &Client,
    step: &Step,
    make: &Make<String>,
) -> Result<Option<String>, CallError> {
    let operation = make.operation();
    match make {
        Make::Pool { scope, locale } => {
            let call = client.create_ipam_pool().ipam_scope_id(scope).locale(locale);
            let call = call.address_family(AddressFamily::Ipv4);
            let call = call.client_token(token(&[scope, &step.subject]));
            let answer = call.tag_specifications(tags(step, ResourceType::IpamPool)).send().await;
            let answer = answer.map_err(|error| call_error(operation, error))?;
            Ok(answer.ipam_pool().and_then(|pool| pool.ipam_pool_id()).map(str::to_owned))
        }
        Make::PoolRange { pool, cidr } => {
            let call = client.provision_ipam_pool_cidr().ipam_pool_id(pool).cidr(cidr.to_string());
            let answer = call.client_token(token(&[pool, &cidr.to_string()])).send().await;
            answer.map_err(|error| call_error(operation, error))?;
            Ok(Some(pool.clone()))
        }
        Make::Vpc { pool, cidr } => {
            let call = client.create_vpc().cidr_block(cidr.to_string());
            let call = call.set_ipv4_ipam_pool_id(pool.clone());
            let answer = call.tag_specifications(tags(step, ResourceType::Vpc)).send().await;
            let answer = answer.map_err(|error| call_error(operation, error))?;
            Ok(answer.vpc().and_then(|vpc| vpc.vpc_id()).map(str::to_owned))
        }
        Make::Subnet { vpc, zone, cidr } => {
            let call = client.create_subnet().vpc_id(vpc).availability_zone(zone);
            let call = call.cidr_block(cidr.to_string());
            let answer = call.tag_specifications(tags(step, ResourceType::Subnet)).send().await;
            let answer = answer.map_err(|error| call_error(operation, error))?;
            Ok(answer.subnet().and_then(|subnet| subnet.subnet_id()).map(str::to_owned))
        }
        Make::Reservation { subnet, cidr } => {
            let call = client.create_subnet_cidr_reservation().subnet_id(subnet);
            let call = call.reservation_type(SubnetCidrReservationType::Prefix);
            let answer = call.cidr(cidr.to_string()).send().await;
            let answer = answer.map_err(|error| call_error(operation, error))?;
            let made = answer.subnet_cidr_reservation();
            Ok(made.and_then(|one| one.subnet_cidr_reservation_id()).map(str::to_owned))
        }
    }
}

/// The same for the same thing, at most 64 characters: EC2 makes one thing for one token. Names and ids may be longer, so
/// it is their hash, 64 bits of FNV-1a.
fn token(parts: &[&str]) -> String {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("tidepool-{hash:016x}")
}

fn tags(step: &Step, kind: ResourceType) -> TagSpecification {
    let tags = step.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    TagSpecification::builder().resource_type(kind).set_tags(Some(tags.collect())).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_that_of_the_thing() {
        let own = token(&["ipam-pool-1", "10.0.0.0/8"]);
        assert_eq!(own, token(&["ipam-pool-1", "10.0.0.0/8"]));
        for other in [["ipam-pool-2", "10.0.0.0/8"], ["ipam-pool-11", "0.0.0.0/8"]] {
            assert_ne!(own, token(&other));
        }
        // EC2 remembers tokens of earlier versions: the hash stays as it is.
        assert_eq!(token(&["a"]), "tidepool-089be207b544f1e4");
    }
}
