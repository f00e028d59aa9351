//! What the metadata service shows of the ENIs, once a minute: a hint to the engine that EC2 may be worth
//! a poll. The service is local and costs none of EC2's tokens. If it is away, only the hint is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent::{Inlet, error_chain};
use aws::{Imds, ImdsError};
use ipam::block::Block;
use ipam::event::Event;
use ipam::id::EniId;
use tracing::debug;

/// Between two hints. The engine polls EC2 if two hints in a row differ from EC2's answer.
const INTERVAL: Duration = Duration::from_secs(60);
/// The service answers within milliseconds; fifteen ENIs take a hundred small requests in a row.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends hints for ever. The first comes after one interval: by then the service shows every change
/// that was made before the start.
pub(crate) async fn send_forever(inlet: Inlet) {
    let imds = Imds::connect();
    loop {
        tokio::time::sleep(INTERVAL).await;
        match tokio::time::timeout(TIMEOUT, attached_blocks(&imds)).await {
            Ok(Ok(blocks)) => inlet.send(Event::Hint(blocks)),
            Ok(Err(fault)) => {
                debug!(fault = error_chain(&fault), "no hint from the metadata service")
            }
            Err(_late) => debug!(timeout = ?TIMEOUT, "no hint from the metadata service in time"),
        }
    }
}

/// The blocks of each attached ENI, its primary address among them.
///
/// # Errors
/// Those of [`Imds::enis`].
pub(crate) async fn attached_blocks(
    imds: &Imds,
) -> Result<BTreeMap<EniId, BTreeSet<Block>>, ImdsError> {
    let enis = imds.enis().await?.into_iter();
    Ok(enis.map(|eni| (eni.id, eni.blocks.into_iter().collect())).collect())
}
