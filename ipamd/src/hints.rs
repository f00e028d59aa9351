//! What the metadata service shows of the ENIs, for the engine to know when EC2 is worth reading. It is
//! local and costs none of EC2's tokens; where it is away, nothing is lost but the hint.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent::{Inlet, error_chain};
use aws::{Imds, ImdsError};
use ipam::block::Block;
use ipam::event::Event;
use ipam::id::EniId;
use tracing::debug;

/// Between two hints. What differs in two of them is worth a reading of EC2.
const EVERY: Duration = Duration::from_secs(60);
/// It answers within milliseconds; fifteen ENIs take a hundred small requests, one after the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends one hint after the other, the first when what was changed last has long been shown.
pub(crate) async fn send_forever(inlet: Inlet) {
    let imds = Imds::connect();
    loop {
        tokio::time::sleep(EVERY).await;
        match tokio::time::timeout(PATIENCE, shown(&imds)).await {
            Ok(Ok(shown)) => inlet.send(Event::Hint(shown)),
            Ok(Err(fault)) => {
                debug!(fault = error_chain(&fault), "no hint of the metadata service")
            }
            Err(_late) => debug!(patience = ?PATIENCE, "no hint of the metadata service in time"),
        }
    }
}

/// The blocks of each ENI that is attached, its own address among them.
///
/// # Errors
/// Those of [`Imds::enis`].
pub(crate) async fn shown(imds: &Imds) -> Result<BTreeMap<EniId, BTreeSet<Block>>, ImdsError> {
    let enis = imds.enis().await?.into_iter();
    Ok(enis.map(|eni| (eni.id, eni.blocks.into_iter().collect())).collect())
}
