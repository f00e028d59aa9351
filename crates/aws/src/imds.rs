//! The instance metadata service: who and where this node is.
//!
//! It reads once and keeps nothing. It must not know what the facts are for.

mod enis;

use std::fmt::Display;
use std::str::FromStr;

use aws_config::imds::client::error::ImdsError as SdkError;
use aws_config::imds::client::{Builder, Client, SensitiveString};
use aws_config::provider_config::ProviderConfig;
use ipam::id::{InstanceId, VpcId};
use serde::{Deserialize, Serialize};

pub use self::enis::ShownEni;
use crate::endpoint::is_url;

const ROOT: &str = "/latest/";
const DOCUMENT: &str = "dynamic/instance-identity/document";
const MACS: &str = "meta-data/network/interfaces/macs";
/// How many digits an id has, once and now. Source: AWS, "Amazon EC2 resource IDs".
const ID_DIGITS: [usize; 2] = [8, 17];
/// So much of an answer that makes no sense is shown, in characters: it may be a whole page.
const SHOWN: usize = 100;

/// Why the node does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// The service did not answer, or not with a value. Requests that failed in a way that may
    /// pass were repeated.
    #[error("read {path} from the instance metadata service")]
    Get {
        /// What was asked for, below the endpoint.
        path: String,
        /// Why.
        source: Box<SdkError>,
    },
    /// The SDK's client panics at some answers: at a token that is no UTF-8, for example.
    #[error(
        "read {path} from the instance metadata service, at whose answer the client has panicked"
    )]
    Panicked {
        /// What was asked for, below the endpoint.
        path: String,
    },
    /// The service answered with something else than was asked for.
    #[error("{path} of the instance metadata service is {text:?}: {problem}")]
    Malformed {
        /// What was asked for, below the endpoint.
        path: String,
        /// What came, or the beginning of it.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The given endpoint is no URL.
    #[error("instance metadata endpoint {0:?} is not of the form http://HOST[:PORT]")]
    InvalidEndpoint(String),
}

/// Who and where the node is, none of which changes while it runs. What the primary ENI has may change, and
/// is for EC2 to tell.
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
    /// The VPC of the primary ENI, which EC2 corrects: see [`ConnectOptions::vpc`](crate::ConnectOptions).
    pub vpc: VpcId,
    /// The hardware address of the primary ENI, lower case with colons.
    pub primary_mac: String,
}

/// The instance identity document, as far as it matters here. The beginning of a name or of a long id
/// passes for another one; that of a JSON object is none.
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
        if !is_url(endpoint, &["http://"]) {
            return Err(invalid());
        }
        Ok(Self(builder().endpoint(endpoint).map_err(|_| invalid())?.build()))
    }

    /// Reads who and where this node is. Three small requests, and one for a token.
    ///
    /// # Errors
    /// At the first path that cannot be read or makes no sense; it is named.
    pub async fn node_facts(&self) -> Result<NodeFacts, ImdsError> {
        let text = self.get(DOCUMENT).await?;
        let bad = |problem| malformed(DOCUMENT, &text, problem);
        let document: Document =
            serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let Document { instance_id, instance_type, region, availability_zone } = document;
        let primary_mac = self.primary_mac().await?;
        Ok(NodeFacts {
            instance: id(&instance_id).map_err(bad)?,
            instance_type: name(instance_type).map_err(bad)?,
            region: name(region).map_err(bad)?,
            availability_zone: name(availability_zone).map_err(bad)?,
            vpc: self.value(&format!("{MACS}/{primary_mac}/vpc-id"), id).await?,
            primary_mac,
        })
    }

    /// It becomes part of other paths, so it is checked before all else: the SDK panics at a
    /// path that is none.
    async fn primary_mac(&self) -> Result<String, ImdsError> {
        let not_a_mac = || "no hardware address".to_owned();
        self.value("meta-data/mac", |text| crate::mac::parse(text).ok_or_else(not_a_mac)).await
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

/// Without an HTTP client of ours the SDK's panics at the first request. TLS is not spoken here.
fn builder() -> Builder {
    let http = aws_smithy_http_client::Builder::new().build_http();
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

/// A whole id: the beginning of one names another instance, or nothing.
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

/// A word as AWS names regions, zones and instance types.
fn name(text: String) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    match !text.is_empty() && text.len() <= SHOWN && text.bytes().all(fits) {
        true => Ok(text),
        false => Err("no name of AWS".to_owned()),
    }
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}
