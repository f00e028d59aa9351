//! EC2's limits of an instance type. It must not know the built-in table.

use aws_sdk_ec2::types::{InstanceTypeHypervisor, InstanceTypeInfo, NetworkInfo};
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
