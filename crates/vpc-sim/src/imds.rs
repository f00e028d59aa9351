//! The instance metadata service, version 2, over HTTP.
//!
//! This module handles tokens, status codes and headers. The model answers the paths.

mod tokens;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ec2_model::id::InstanceId;
use ec2_model::metadata_options::{HopLimit, HttpTokens, MetadataOptions, Toggle};
use serde::{Deserialize, Serialize};

use self::tokens::Tokens;
use crate::serve::{Hangup, Peer, Socket};
use crate::simulator::Simulator;

const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
/// In a request the wanted lifetime of the token, in the answer its lifetime. In seconds.
const TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
/// Requests with this header come through a proxy, which must not fetch tokens for others.
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How far every other answer travels: Linux's own limit.
const DEFAULT_HOPS: u8 = 64;

/// Which requests an instance's IMDS answers (`HttpTokens` and `HttpEndpoint` in EC2's options).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Requests with a token (IMDSv2).
    #[default]
    TokensRequired,
    /// Requests with or without a token (IMDSv1).
    TokensOptional,
    /// No requests.
    Disabled,
}

/// Changes of an instance's metadata options. What is absent keeps its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Changes {
    /// Which requests it answers.
    pub mode: Option<Mode>,
    /// How many hops the answer to a token request may travel.
    pub hop_limit: Option<HopLimit>,
    /// Whether it has an IPv6 address too.
    pub ipv6: Option<bool>,
}

impl Changes {
    /// `options` with these changes.
    #[must_use]
    pub fn applied_to(self, options: MetadataOptions) -> MetadataOptions {
        let (http_endpoint, http_tokens) = match self.mode {
            None => (options.http_endpoint, options.http_tokens),
            Some(Mode::TokensRequired) => (Toggle::Enabled, HttpTokens::Required),
            Some(Mode::TokensOptional) => (Toggle::Enabled, HttpTokens::Optional),
            Some(Mode::Disabled) => (Toggle::Disabled, options.http_tokens),
        };
        let http_protocol_ipv6 = match self.ipv6 {
            None => options.http_protocol_ipv6,
            Some(true) => Toggle::Enabled,
            Some(false) => Toggle::Disabled,
        };
        MetadataOptions {
            http_endpoint,
            http_tokens,
            hop_limit: self.hop_limit.unwrap_or(options.hop_limit),
            http_protocol_ipv6,
            ..options
        }
    }
}

/// IMDS of all instances. The model has their options.
#[derive(Debug)]
pub struct Imds {
    simulator: Arc<Simulator>,
    tokens: Mutex<Tokens>,
}

/// How the service finds the instance of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Always this instance.
    Instance(InstanceId),
    /// The instance that has the source address of the request.
    BySource,
}

impl Imds {
    /// IMDS of the instances of `simulator`.
    #[must_use]
    pub fn new(simulator: Arc<Simulator>) -> Self {
        Self { simulator, tokens: Mutex::new(Tokens::default()) }
    }

    fn options(&self, instance: &InstanceId) -> MetadataOptions {
        let options = self.simulator.with(|model, _| model.metadata_options(instance));
        options.unwrap_or_default()
    }

    fn tokens<R>(&self, act: impl FnOnce(&mut Tokens) -> R) -> R {
        act(&mut self.tokens.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The service for `audience`.
pub fn router(imds: Arc<Imds>, audience: Audience) -> Router {
    Router::new().fallback(handle).with_state((imds, audience))
}

async fn handle(
    State((imds, audience)): State<(Arc<Imds>, Audience)>,
    request: Request,
) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_canonical());
    let in_fabric = audience == Audience::BySource;
    let answer = instance_of(&imds, audience, peer).and_then(|instance| {
        let options = imds.options(&instance);
        if in_fabric && !has_address(&options, peer) {
            return Err(Refusal::NoSuchAddress);
        }
        limit_hops(&request, &options);
        let (path, headers) = (request.uri().path(), request.headers());
        Ok(imds.answer(&instance, &options, request.method(), path, headers)?)
    });
    let headers = [(header::CONTENT_TYPE, "text/plain"), (header::SERVER, "EC2ws")];
    match answer {
        Ok(Answer { body, ttl: None }) => (headers, body).into_response(),
        Ok(Answer { body, ttl: Some(ttl) }) => {
            (headers, [(TTL, ttl.to_string())], body).into_response()
        }
        Err(Refusal::NoSuchAddress) => Hangup.into_response(),
        Err(Refusal::Status(status)) => {
            (status, [(header::CONTENT_TYPE, "text/html")], page(status)).into_response()
        }
    }
}

/// Why a request has no metadata.
enum Refusal {
    /// The instance's IMDS has no address of this family.
    NoSuchAddress,
    Status(StatusCode),
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self::Status(status)
    }
}

/// Whether the instance's IMDS has an address of the family of `peer`.
fn has_address(options: &MetadataOptions, peer: Option<IpAddr>) -> bool {
    match (peer, options.http_protocol_ipv6) {
        (Some(IpAddr::V6(_)), Toggle::Disabled) => false,
        (Some(_) | None, Toggle::Enabled | Toggle::Disabled) => true,
    }
}

/// Bounds how far the answer travels. EC2 bounds the answers to token requests only
/// (`HttpPutResponseHopLimit`): with a limit of 1 the instance's own programs get it. A pod behind
/// the instance waits in vain.
fn limit_hops(request: &Request, options: &MetadataOptions) {
    let Some(socket) = request.extensions().get::<Socket>() else { return };
    let limit = match *request.method() {
        Method::PUT => options.hop_limit.get(),
        _ => DEFAULT_HOPS,
    };
    if let Err(error) = socket.set_hop_limit(limit) {
        tracing::warn!(%error, limit, "hop limit of an answer of IMDS not set");
    }
}

fn instance_of(
    imds: &Imds,
    audience: Audience,
    peer: Option<IpAddr>,
) -> Result<InstanceId, Refusal> {
    match audience {
        Audience::Instance(id) => Ok(id),
        Audience::BySource => peer
            .and_then(|address| imds.simulator.with(|model, now| model.instance_of(address, now)))
            .ok_or(Refusal::Status(StatusCode::NOT_FOUND)),
    }
}

struct Answer {
    body: Vec<u8>,
    /// Lifetime in seconds of the token in `body`.
    ttl: Option<u32>,
}

impl Imds {
    fn answer(
        &self,
        instance: &InstanceId,
        options: &MetadataOptions,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, StatusCode> {
        match options.http_endpoint {
            Toggle::Enabled => {}
            Toggle::Disabled => return Err(StatusCode::FORBIDDEN),
        }
        match *method {
            Method::PUT => self.new_token(instance, path, headers),
            Method::GET | Method::HEAD => {
                self.metadata(instance, options.http_tokens, path, headers)
            }
            _ => Err(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn new_token(
        &self,
        instance: &InstanceId,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, StatusCode> {
        if path.trim_end_matches('/') != TOKEN_PATH || headers.contains_key(FORWARDED) {
            return Err(StatusCode::FORBIDDEN);
        }
        let ttl = headers.get(TTL).and_then(|value| value.to_str().ok()?.parse().ok());
        let ttl = ttl.filter(|ttl| (1..=21_600).contains(ttl)).ok_or(StatusCode::BAD_REQUEST)?;
        let now = self.simulator.clock().now();
        let text = self.tokens(|tokens| tokens.issue(instance, ttl, now));
        Ok(Answer { body: text.into(), ttl: Some(ttl) })
    }

    fn metadata(
        &self,
        instance: &InstanceId,
        http_tokens: HttpTokens,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, StatusCode> {
        let now = self.simulator.clock().now();
        let allowed = match headers.get(TOKEN) {
            None => http_tokens == HttpTokens::Optional,
            Some(token) => self.tokens(|tokens| tokens.is_valid(token.as_bytes(), instance, now)),
        };
        if !allowed {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let body = self.simulator.with(|model, now| model.imds_bytes(instance, path, now));
        body.map(|body| Answer { body, ttl: None }).ok_or(StatusCode::NOT_FOUND)
    }
}

/// The body of an error. Clients look at the status only.
fn page(status: StatusCode) -> String {
    format!("<!DOCTYPE html><html><head><title>{status}</title></head><body></body></html>\n")
}

#[cfg(test)]
mod fuzz;
