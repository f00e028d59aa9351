//! What the metadata service tells of the ENIs that are attached. It lags behind EC2, so nothing may
//! be given back on its word.

use aws_config::imds::client::error::ImdsError as SdkError;
use ipam::block::Block;
use ipam::id::EniId;
use ipnet::IpNet;

use super::{Imds, ImdsError, MACS, id, malformed, parse};

/// An ENI as the metadata service shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownEni {
    /// Its id.
    pub id: EniId,
    /// Its place on the instance.
    pub device_index: u16,
    /// Its network card; 0 where the service does not say.
    pub network_card: u16,
    /// Its addresses, its own included, and prefixes.
    pub blocks: Vec<Block>,
}

impl Imds {
    /// The ENIs of this instance, by hardware address. Seven small requests for each.
    ///
    /// # Errors
    /// At the first path that cannot be read or makes no sense; it is named.
    pub async fn enis(&self) -> Result<Vec<ShownEni>, ImdsError> {
        let mac = |line: &str| {
            let mac = crate::mac::parse(line.trim_end_matches('/'));
            mac.ok_or_else(|| "no hardware address".to_owned())
        };
        let macs: Vec<String> = self.lines(&format!("{MACS}/"), mac).await?;
        let mut enis = Vec::with_capacity(macs.len());
        for mac in macs {
            enis.push(self.eni(&mac).await?);
        }
        Ok(enis)
    }

    async fn eni(&self, mac: &str) -> Result<ShownEni, ImdsError> {
        let at = |key: &str| format!("{MACS}/{mac}/{key}");
        let id = self.value(&at("interface-id"), id).await?;
        let device_index = self.value(&at("device-number"), parse).await?;
        let card = self.if_there(&at("network-card")).await?;
        let network_card = card.map_or(Ok(0), |text| {
            parse(&text).map_err(|problem| malformed(&at("network-card"), &text, problem))
        })?;
        let mut blocks = Vec::new();
        for key in ["local-ipv4s", "ipv6s", "ipv4-prefix", "ipv6-prefix"] {
            blocks.extend(self.blocks(&at(key)).await?);
        }
        Ok(ShownEni { id, device_index, network_card, blocks })
    }

    async fn blocks(&self, path: &str) -> Result<Vec<Block>, ImdsError> {
        let text = self.if_there(path).await?.unwrap_or_default();
        let blocks = text.lines().map(|line| block(line.trim())).collect::<Result<_, _>>();
        blocks.map_err(|problem| malformed(path, &text, problem))
    }

    /// The service answers 404 for what an ENI has none of.
    async fn if_there(&self, path: &str) -> Result<Option<String>, ImdsError> {
        match self.get(path).await {
            Ok(text) => Ok(Some(text)),
            Err(ImdsError::Get { source, .. }) if is_not_found(&source) => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

fn is_not_found(error: &SdkError) -> bool {
    matches!(error, SdkError::ErrorResponse(answer) if answer.response().status().as_u16() == 404)
}

/// One address, or a prefix in CIDR notation.
fn block(text: &str) -> Result<Block, String> {
    match text.contains('/') {
        true => Block::try_from(parse::<IpNet>(text)?).map_err(|error| error.to_string()),
        false => parse(text).map(Block::address),
    }
}
