//! The attached ENIs as the metadata service shows them. The service lags behind EC2, so nobody may give an
//! address back because of its answer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use aws_config::imds::client::error::ImdsError as SdkError;
use ipam::block::Block;
use ipam::id::{EniId, SecurityGroupId};
use ipnet::IpNet;
use mac::MacAddr;

use super::{Imds, ImdsError, MACS, id, malformed, parse};

/// An ENI as the metadata service shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownEni {
    /// Its id.
    pub id: EniId,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its place on the instance.
    pub device_index: u16,
    /// Its network card; 0 if the service does not show one.
    pub network_card: u16,
    /// Its IPv4 addresses, the primary one included, and its prefixes. Single IPv6 addresses are the node's
    /// own, so they are left out.
    pub blocks: Vec<Block>,
    /// Its security groups; empty if the service does not show any.
    pub security_groups: BTreeSet<SecurityGroupId>,
}

impl Imds {
    /// The ENIs of this instance, by hardware address. Seven small requests for each.
    ///
    /// # Errors
    /// For the first path that cannot be read or has an invalid answer. The error names the path.
    pub async fn enis(&self) -> Result<Vec<ShownEni>, ImdsError> {
        let macs = self.macs().await?;
        let mut enis = Vec::with_capacity(macs.len());
        for mac in macs {
            enis.push(self.eni(mac).await?);
        }
        Ok(enis)
    }

    /// The hardware addresses of the attached ENIs.
    pub(super) async fn macs(&self) -> Result<Vec<MacAddr>, ImdsError> {
        let mac = |line: &str| parse::<MacAddr>(line.trim_end_matches('/'));
        self.lines(&format!("{MACS}/"), mac).await
    }

    async fn eni(&self, mac: MacAddr) -> Result<ShownEni, ImdsError> {
        let at = |key: &str| format!("{MACS}/{mac}/{key}");
        let id = self.value(&at("interface-id"), id).await?;
        let device_index = self.value(&at("device-number"), parse).await?;
        let card = self.if_there(&at("network-card")).await?;
        let network_card = card.map_or(Ok(0), |text| {
            parse(&text).map_err(|problem| malformed(&at("network-card"), &text, problem))
        })?;
        let mut blocks = Vec::new();
        for key in ["local-ipv4s", "ipv4-prefix", "ipv6-prefix"] {
            blocks.extend(self.blocks(&at(key)).await?);
        }
        let security_groups = self.security_groups(&at("security-group-ids")).await?;
        Ok(ShownEni { id, mac, device_index, network_card, blocks, security_groups })
    }

    async fn security_groups(&self, path: &str) -> Result<BTreeSet<SecurityGroupId>, ImdsError> {
        let text = self.if_there(path).await?.unwrap_or_default();
        let groups = text.lines().map(|line| id(line.trim())).collect::<Result<_, _>>();
        groups.map_err(|problem| malformed(path, &text, problem))
    }

    async fn blocks(&self, path: &str) -> Result<Vec<Block>, ImdsError> {
        let text = self.if_there(path).await?.unwrap_or_default();
        let blocks = text.lines().map(|line| block(line.trim())).collect::<Result<_, _>>();
        blocks.map_err(|problem| malformed(path, &text, problem))
    }

    /// `None` for a 404: the ENI has no such value.
    pub(super) async fn if_there(&self, path: &str) -> Result<Option<String>, ImdsError> {
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

/// One IPv4 address, or a prefix in CIDR notation.
fn block(text: &str) -> Result<Block, String> {
    match text.contains('/') {
        true => Block::try_from(parse::<IpNet>(text)?).map_err(|error| error.to_string()),
        false => parse::<Ipv4Addr>(text).map(Block::address),
    }
}
