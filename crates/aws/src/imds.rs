//! The instance metadata service: the identity and the place of this node.
//!
//! It keeps no answer. It must not know what the facts are for.

mod enis;
mod stand_in;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use aws_config::imds::client::error::ImdsError as SdkError;
use aws_config::imds::client::{Builder, Client, SensitiveString};
use aws_config::provider_config::ProviderConfig;
use ipam::id::{InstanceId, VpcId};
use ipnet::Ipv4Net;
use mac::MacAddr;
use serde::{Deserialize, Serialize};
use service_url::{Scheme, ServiceUrl};

pub use self::enis::ShownEni;
use crate::http::{LONGEST_METADATA, bounded};

const ROOT: &str = "/latest/";
const DOCUMENT: &str = "dynamic/instance-identity/document";
const MACS: &str = "meta-data/network/interfaces/macs";
/// How many digits an id has: 8 in old ids, 17 in others. Source: AWS, "Amazon EC2 resource IDs".
const ID_DIGITS: [usize; 2] = [8, 17];
/// How long the prefix of a subnet's range may be, in bits.
const SUBNET_LENGTHS: RangeInclusive<u8> = 16..=28;
/// How much of an invalid answer an error shows, in characters. The answer may be a whole page.
const SHOWN: usize = 100;

/// Why the metadata service gives no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// The service does not answer, or answers with an error. The SDK has retried transient failures.
    #[error("read {path} from the instance metadata service")]
    Get {
        /// The path of the request, below the endpoint.
        path: String,
        /// The cause.
        source: Box<SdkError>,
    },
    /// The SDK's client panics at some answers, for example at a token that is not UTF-8.
    #[error(
        "read {path} from the instance metadata service: the client has panicked at the answer"
    )]
    Panicked {
        /// The path of the request, below the endpoint.
        path: String,
    },
    /// The answer is invalid.
    #[error("{path} of the instance metadata service is {text:?}: {problem}")]
    Malformed {
        /// The path of the request, below the endpoint.
        path: String,
        /// The answer, or its beginning.
        text: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The given endpoint is no URL.
    #[error("instance metadata endpoint {0:?} is not of the form http://HOST[:PORT]")]
    InvalidEndpoint(String),
}

/// The identity and the place of the node. None of it changes while the node runs. The state of the primary
/// ENI may change, so it comes from EC2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// This instance.
    pub instance: InstanceId,
    /// For example `m5.large`.
    pub instance_type: String,
    /// For example `eu-central-1`.
    pub region: String,
    /// For example `eu-central-1a`.
    pub availability_zone: String,
    /// The VPC of the primary ENI. EC2's answer corrects it: see [`ConnectOptions::vpc`](crate::ConnectOptions).
    pub vpc: VpcId,
    /// The hardware address of the primary ENI.
    pub primary_mac: MacAddr,
    /// The IPv4 range of the primary ENI's subnet; `None` if the service shows none. The node can do without it
    /// as long as EC2 describes the subnets.
    #[serde(default)]
    pub subnet_cidr: Option<Ipv4Net>,
}

/// The instance identity document, as far as it matters here. It is JSON, so a truncated document is invalid.
/// A truncated plain text could pass for another name or id.
/// Source: AWS, "Instance identity documents for Amazon EC2 instances".
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    instance_id: String,
    instance_type: String,
    region: String,
    availability_zone: String,
}

/// A client of the metadata service, version 2 only.
#[derive(Debug, Clone)]
pub struct Imds(Client);

impl Imds {
    /// A client of the service at its usual address, or where
    /// `AWS_EC2_METADATA_SERVICE_ENDPOINT` says. No request is sent.
    #[must_use]
    pub fn connect() -> Self {
        Self(builder().build())
    }

    /// A client of the service at `endpoint`, an `http://` URL. No request is sent.
    ///
    /// # Errors
    /// If `endpoint` is no URL.
    pub fn connect_to(endpoint: &str) -> Result<Self, ImdsError> {
        let invalid = || ImdsError::InvalidEndpoint(endpoint.to_owned());
        let url = ServiceUrl::parse(endpoint).map_err(|_| invalid())?;
        if url.scheme() != Scheme::Http {
            return Err(invalid());
        }
        Ok(Self(builder().endpoint(endpoint).map_err(|_| invalid())?.build()))
    }

    /// Reads the identity and the place of this node: four small requests, and one for a token.
    ///
    /// # Errors
    /// For the first path that cannot be read or has an invalid answer. The error names the path.
    pub async fn node_facts(&self) -> Result<NodeFacts, ImdsError> {
        let text = self.get(DOCUMENT).await?;
        let bad = |problem| malformed(DOCUMENT, &text, problem);
        let document: Document =
            serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let Document { instance_id, instance_type, region, availability_zone } = document;
        let primary_mac = self.value("meta-data/mac", parse::<MacAddr>).await?;
        Ok(NodeFacts {
            instance: id(&instance_id).map_err(bad)?,
            instance_type: name(instance_type).map_err(bad)?,
            region: name(region).map_err(bad)?,
            availability_zone: name(availability_zone).map_err(bad)?,
            vpc: self.value(&format!("{MACS}/{primary_mac}/vpc-id"), id).await?,
            subnet_cidr: self.subnet_cidr(primary_mac).await.ok().flatten(),
            primary_mac,
        })
    }

    /// The IPv4 ranges of the VPC, at least one, as the ENI with this hardware address sees them.
    ///
    /// # Errors
    /// If they cannot be read, or one of them is no range of a VPC. The error names the path.
    pub async fn vpc_ranges(&self, mac: MacAddr) -> Result<BTreeSet<Ipv4Net>, ImdsError> {
        self.lines(&format!("{MACS}/{mac}/vpc-ipv4-cidr-blocks"), subnet_range).await
    }

    /// The IPv4 range of the ENI's subnet; `None` if the service shows none.
    async fn subnet_cidr(&self, mac: MacAddr) -> Result<Option<Ipv4Net>, ImdsError> {
        let path = format!("{MACS}/{mac}/subnet-ipv4-cidr-block");
        let text = self.if_there(&path).await?;
        let range = |text: String| subnet_range(&text).map_err(|it| malformed(&path, &text, it));
        text.map(range).transpose()
    }

    async fn value<T>(
        &self,
        path: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ImdsError> {
        let text = self.get(path).await?;
        read(&text).map_err(|problem| malformed(path, &text, problem))
    }

    async fn lines<T, C: FromIterator<T>>(
        &self,
        path: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<C, ImdsError> {
        let text = self.get(path).await?;
        let values: Result<C, String> = text.lines().map(|line| read(line.trim())).collect();
        values.map_err(|problem| malformed(path, &text, problem))
    }

    async fn get(&self, key: &str) -> Result<String, ImdsError> {
        let path = format!("{ROOT}{key}");
        let (client, asked) = (self.0.clone(), path.clone());
        let text: SensitiveString = match tokio::spawn(async move { client.get(asked).await }).await
        {
            Ok(Ok(text)) => text,
            Ok(Err(source)) => return Err(ImdsError::Get { path, source: Box::new(source) }),
            Err(_panic) => return Err(ImdsError::Panicked { path }),
        };
        let text = text.as_ref().trim();
        if text.is_empty() { Err(malformed(key, text, "empty")) } else { Ok(text.to_owned()) }
    }
}

/// Without this HTTP client the SDK panics at the first request. The service does not use TLS.
fn builder() -> Builder {
    let http = bounded(aws_smithy_http_client::Builder::new().build_http(), LONGEST_METADATA);
    Client::builder().configure(&ProviderConfig::without_region().with_http_client(http))
}

fn malformed(key: &str, text: &str, problem: impl Display) -> ImdsError {
    let path = format!("{ROOT}{key}");
    let problem = problem.to_string();
    ImdsError::Malformed { path, text: beginning(text), problem: beginning(&problem) }
}

fn beginning(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A whole id. A truncated id names another instance, or none.
fn id<T>(text: &str) -> Result<T, String>
where
    T: for<'a> TryFrom<&'a str, Error: Display>,
{
    let id = T::try_from(text).map_err(|error| error.to_string())?;
    let (_, digits) = text.split_once('-').unwrap_or_default();
    let are_whole = ID_DIGITS.contains(&digits.len());
    match are_whole && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(id),
        false => Err("not 8 or 17 hexadecimal digits".to_owned()),
    }
}

/// The name of a region, a zone or an instance type.
fn name(text: String) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    match !text.is_empty() && text.len() <= SHOWN && text.bytes().all(fits) {
        true => Ok(text),
        false => Err("not a name that AWS uses".to_owned()),
    }
}

/// The range of a subnet or a VPC, which have the same bounds. The length of its prefix has two digits, so a truncated range is recognised.
/// Source: Amazon VPC user guide, "Subnet CIDR blocks".
fn subnet_range(text: &str) -> Result<Ipv4Net, String> {
    let range: Ipv4Net = parse(text)?;
    let is_possible = SUBNET_LENGTHS.contains(&range.prefix_len()) && range.trunc() == range;
    if is_possible { Ok(range) } else { Err("not the range of a subnet".to_owned()) }
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}
