//! What an instance type allows: asked of EC2, looked up in the table that is built in, or assumed.
//!
//! It must not know which of them is preferred.

use aws_sdk_ec2::types::{InstanceTypeHypervisor, InstanceTypeInfo, NetworkInfo};
use instance_types::InstanceType;
use ipam::call::CallError;
use ipam::policy::Limits;

use crate::ec2::Ec2;
use crate::ec2::reply::{BadField, need, number};
use crate::failure::Failure;

/// The limits of `instance_type` as EC2 publishes them. One call, `DescribeInstanceTypes`.
///
/// # Errors
/// As [`Ec2::execute`]; `Rejected` with code `InvalidInstanceType` for a type that does not exist.
pub async fn instance_limits(ec2: &Ec2, instance_type: &str) -> Result<Limits, CallError> {
    let limits = async { Ok(published_limits(&ec2.instance_type(instance_type).await?)?) };
    limits.await.map_err(|failure: Failure| failure.of("DescribeInstanceTypes"))
}

/// The limits of `instance_type` from the built-in table, or `None` for a type newer than that.
#[must_use]
pub fn known_limits(instance_type: &str) -> Option<Limits> {
    instance_types::lookup(instance_type).map(|row| Limits {
        enis: row.max_enis(),
        addresses_per_eni: row.ipv4_per_eni,
        prefixes: row.supports_prefixes(),
    })
}

/// What to start from where nobody knows `instance_type`: the most that any type of its size has,
/// or any type at all if the size is unknown too. Limits that are too high show as refusals by
/// EC2, from which the core learns; ones that are too low would never show.
#[must_use]
pub fn assumed_limits(instance_type: &str) -> Limits {
    let size = |name: &str| name.split_once('.').map(|(_family, size)| size.to_owned());
    let is_of_size = |row: &&InstanceType| size(row.name) == size(instance_type);
    let least = Limits { enis: 1, addresses_per_eni: 2, prefixes: true };
    let most = |rows: Vec<&InstanceType>| {
        rows.into_iter().fold(least, |most, row| Limits {
            enis: most.enis.max(row.max_enis()),
            addresses_per_eni: most.addresses_per_eni.max(row.ipv4_per_eni),
            // What takes none, Xen, gets no new types.
            prefixes: true,
        })
    };
    match instance_types::all().filter(is_of_size).collect::<Vec<_>>() {
        rows if rows.is_empty() => most(instance_types::all().collect()),
        rows => most(rows),
    }
}

/// The default number of vCPUs of `instance_type` from the built-in table, or `None` where the
/// table has no such type or number. The rule for the most pods on a node asks for it.
#[must_use]
pub fn known_vcpus(instance_type: &str) -> Option<u32> {
    instance_types::lookup(instance_type).and_then(|row| row.vcpus)
}

/// The names of the built-in table, ascending.
pub fn known_types() -> impl Iterator<Item = &'static str> {
    instance_types::all().map(|row| row.name)
}

fn published_limits(info: &InstanceTypeInfo) -> Result<Limits, BadField> {
    let network = need("networkInfo", info.network_info())?;
    Ok(Limits {
        enis: enis_of_default_card(network)?,
        addresses_per_eni: number(
            "networkInfo.ipv4AddressesPerInterface",
            network.ipv4_addresses_per_interface(),
        )?,
        // EC2 names no hypervisor for bare metal, which takes prefixes.
        prefixes: info.hypervisor() != Some(&InstanceTypeHypervisor::Xen),
    })
}

fn enis_of_default_card(network: &NetworkInfo) -> Result<u16, BadField> {
    let default = network.default_network_card_index().unwrap_or(0);
    let card = network
        .network_cards()
        .iter()
        .find(|card| card.network_card_index().unwrap_or(0) == default);
    match card {
        Some(card) => number(
            "networkInfo.networkCards.maximumNetworkInterfaces",
            card.maximum_network_interfaces(),
        ),
        None => {
            number("networkInfo.maximumNetworkInterfaces", network.maximum_network_interfaces())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let m5 = Limits { enis: 3, addresses_per_eni: 10, prefixes: true };
        assert_eq!(known_limits("m5.large"), Some(m5));
        assert_eq!(known_vcpus("m5.large"), Some(2));
        assert!(!known_limits("t2.micro").unwrap().prefixes);
        let large = Limits { enis: 4, addresses_per_eni: 20, prefixes: true };
        let enormous = Limits { enis: 24, addresses_per_eni: 64, prefixes: true };
        let assumed = ["m99.large", "m99.enormous", "m99"].map(assumed_limits);
        assert_eq!(assumed, [large, enormous, enormous]);
        assert_eq!((known_limits("m5.enormous"), known_vcpus("m5.enormous")), (None, None));
    }
}
