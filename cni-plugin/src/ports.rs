//! The ports of the node that lead to the pod: the runtime's `portMappings`, in the kernel and in a note for the daemon.

use std::net::IpAddr;

use cni::{CniError, ErrorCode, NetConf, PortMapping};
use datapath::pod::{PodAddress, PodLink};
use datapath::ports::{self, PodPorts, PortsError, Protocol};
use datapath::{InterfaceName, Owner};
use proto::ports::{directory, file_name};

use crate::failure::{Failure, error_chain};
use crate::{note, socket};

/// Opens the ports that the runtime asks for, once the pod's link is ready.
///
/// # Errors
///
/// [`Failure::HostPortTaken`] if another pod has one of them. Code 7 if one is asked for twice. Code 5 if the note cannot
/// be written. [`Failure::LinkSetup`] if the kernel refuses. Then [`close`] must follow.
pub(crate) async fn open(conf: &NetConf, link: &PodLink) -> Result<(), CniError> {
    let wanted = asked(conf, &link.owner, &link.addresses)?;
    if wanted.forwards().is_empty() {
        return Ok(());
    }
    add(&wanted, &link.host_name).await?;
    failpoint::pass("ports", "opened");
    let (directory, name) = (directory(socket(conf)), file_name(link.owner.as_str()));
    note::write(&directory, &name, wanted.to_string().as_bytes(), || {}).map_err(|error| {
        CniError::new(ErrorCode::Io, "cannot note the pod's host ports", error.to_string())
    })?;
    let forwards: Vec<_> = wanted.forwards().iter().map(ToString::to_string).collect();
    tracing::info!(forwards = forwards.join(", "), "host ports lead to the pod");
    Ok(())
}

async fn add(wanted: &PodPorts, host_name: &InterfaceName) -> Result<(), CniError> {
    match ports::add(wanted, host_name).await {
        Ok(()) => Ok(()),
        Err(error @ PortsError::Connections(_)) => {
            warn_of_connections(&error);
            Ok(())
        }
        Err(error @ PortsError::Taken { .. }) => {
            Err(Failure::HostPortTaken.error(error_chain(&error)))
        }
        Err(error) => Err(Failure::LinkSetup.error(error_chain(&error))),
    }
}

/// Closes the ports of the pod whose link has this mark. The note says which. Without it all pods' ports are searched, or
/// none if the runtime has asked for none. It may be repeated.
///
/// # Errors
///
/// What is left, in words.
pub(crate) fn close(conf: &NetConf, owner: &Owner) -> Result<(), String> {
    let path = directory(socket(conf)).join(file_name(owner.as_str()));
    let noted = note::take(&path);
    failpoint::pass("ports", "unnoted");
    if matches!(noted, Ok(None)) && conf.port_mappings.is_empty() {
        return Ok(());
    }
    let said = noted.as_ref().ok().and_then(|note| note.as_deref()?.parse::<PodPorts>().ok());
    let closed = match said.filter(|ports| ports.owner() == owner) {
        Some(ports) => ports::remove(&ports),
        None => ports::remove_all(owner),
    };
    match closed {
        Ok(closed) => tracing::info!(n = closed.len(), "host ports closed"),
        Err(error @ PortsError::Connections(_)) => warn_of_connections(&error),
        Err(error) => return Err(format!("close host ports: {}", error_chain(&error))),
    }
    noted.map(drop).map_err(|error| format!("remove {}: {error}", path.display()))
}

/// The ports are as they should be. Only a UDP client that goes on as before is led astray, until it pauses.
fn warn_of_connections(error: &PortsError) {
    tracing::warn!(error = error_chain(error), "earlier UDP connections are not forgotten");
}

/// Compares the kernel with what the runtime asks for.
///
/// # Errors
///
/// [`Failure::LinkChanged`] with all that is missing.
pub(crate) fn check(
    conf: &NetConf,
    owner: &Owner,
    addresses: &[PodAddress],
) -> Result<(), CniError> {
    let missing = ports::missing(&asked(conf, owner, addresses)?)
        .map_err(|error| Failure::LinkChanged.error(error_chain(&error)))?;
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
    let details = format!("the node does not lead these ports to the pod: {}", missing.join(", "));
    Err(Failure::LinkChanged.error(details))
}

fn asked(conf: &NetConf, owner: &Owner, addresses: &[PodAddress]) -> Result<PodPorts, CniError> {
    let mappings: Vec<_> = conf.port_mappings.iter().map(mapping).collect();
    let addresses: Vec<IpAddr> = addresses.iter().map(|pod| pod.address).collect();
    PodPorts::new(owner.clone(), &mappings, &addresses).map_err(|error| {
        let what = "invalid network configuration";
        CniError::new(ErrorCode::InvalidNetworkConfig, what, error.to_string())
    })
}

fn mapping(asked: &PortMapping) -> ports::PortMapping {
    let PortMapping { protocol, host_ip, host_port, container_port } = *asked;
    let protocol = match protocol {
        cni::Protocol::Tcp => Protocol::Tcp,
        cni::Protocol::Udp => Protocol::Udp,
        cni::Protocol::Sctp => Protocol::Sctp,
    };
    ports::PortMapping { protocol, host: host_ip, host_port, pod_port: container_port }
}
