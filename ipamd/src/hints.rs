//! What the metadata service shows while the daemon runs. The ENIs, once a minute, are a hint to the engine that EC2 may
//! be worth a poll. The VPC's ranges are what pods reach with their own addresses. The service is local and costs none of
//! EC2's tokens. If it is away, hints are lost, and the ranges stay as they are.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::{Inlet, error_chain};
use aws::{Imds, ImdsError, NodeFacts};
use ipam::event::{Event, MetadataEni};
use ipam::id::EniId;
use tracing::{debug, warn};

/// Between two hints. The engine polls EC2 if two hints in a row differ from EC2's answer.
const INTERVAL: Duration = Duration::from_secs(60);
/// Between two answers with the VPC's ranges. A range that is added holds within a minute.
const BETWEEN_RANGES: Duration = Duration::from_secs(30);
/// After a failure.
const RETRY_RANGES: Duration = Duration::from_secs(5);
/// The service answers within milliseconds; fifteen ENIs take a hundred small requests in a row.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends hints for ever. The first comes after one interval: by then the service shows every change
/// that was made before the start.
pub(crate) async fn send_forever(inlet: Inlet) {
    let imds = Imds::connect();
    loop {
        tokio::time::sleep(INTERVAL).await;
        match tokio::time::timeout(TIMEOUT, attached(&imds)).await {
            Ok(Ok(enis)) => inlet.send(Event::Hint(enis)),
            Ok(Err(fault)) => {
                debug!(fault = error_chain(&fault), "no hint from the metadata service")
            }
            Err(_late) => debug!(timeout = ?TIMEOUT, "no hint from the metadata service in time"),
        }
    }
}

/// Sends the VPC's ranges for ever, the first time at once: without them no pod leaves the VPC.
pub(crate) async fn send_ranges_forever(facts: NodeFacts, inlet: Inlet) {
    let imds = Imds::connect();
    loop {
        let pause = match tokio::time::timeout(TIMEOUT, imds.vpc_ranges(facts.primary_mac)).await {
            Ok(Ok(ranges)) => {
                inlet.send(Event::VpcRanges(ranges));
                BETWEEN_RANGES
            }
            Ok(Err(fault)) => {
                warn!(fault = error_chain(&fault), "VPC's ranges cannot be read; those known stay");
                RETRY_RANGES
            }
            Err(_late) => {
                warn!(timeout = ?TIMEOUT, "VPC's ranges cannot be read in time; those known stay");
                RETRY_RANGES
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Each attached ENI, its primary address among its blocks.
///
/// # Errors
/// Those of [`Imds::enis`].
pub(crate) async fn attached(imds: &Imds) -> Result<BTreeMap<EniId, MetadataEni>, ImdsError> {
    let enis = imds.enis().await?.into_iter().map(|eni| {
        let (blocks, security_groups) = (eni.blocks.into_iter().collect(), eni.security_groups);
        (eni.id, MetadataEni { blocks, security_groups })
    });
    Ok(enis.collect())
}
