//! The instance metadata service, version 2, over HTTP.
//!
//! This module handles tokens, status codes and headers. The model answers the paths.

mod tokens;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ec2_model::id::InstanceId;
use serde::{Deserialize, Serialize};

use self::tokens::Tokens;
use crate::serve::Peer;
use crate::simulator::Simulator;

const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
/// In a request the wanted lifetime of the token, in the answer its lifetime. In seconds.
const TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
/// Requests with this header come through a proxy, which must not fetch tokens for others.
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

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

/// IMDS of all instances.
#[derive(Debug)]
pub struct Imds {
    simulator: Arc<Simulator>,
    /// The modes of instances that do not have the default mode.
    modes: Mutex<BTreeMap<InstanceId, Mode>>,
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
    pub fn new(simulator: Arc<Simulator>, modes: BTreeMap<InstanceId, Mode>) -> Self {
        Self { simulator, modes: Mutex::new(modes), tokens: Mutex::new(Tokens::default()) }
    }

    /// Sets which requests the IMDS of `instance` answers.
    pub fn set_mode(&self, instance: InstanceId, mode: Mode) {
        self.modes.lock().unwrap_or_else(PoisonError::into_inner).insert(instance, mode);
    }

    fn mode(&self, instance: &InstanceId) -> Mode {
        let modes = self.modes.lock().unwrap_or_else(PoisonError::into_inner);
        modes.get(instance).copied().unwrap_or_default()
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
    let answer = instance_of(&imds, audience, peer).and_then(|instance| {
        imds.answer(&instance, request.method(), request.uri().path(), request.headers())
    });
    let headers = [(header::CONTENT_TYPE, "text/plain"), (header::SERVER, "EC2ws")];
    match answer {
        Ok(Answer { text, ttl: None }) => (headers, text).into_response(),
        Ok(Answer { text, ttl: Some(ttl) }) => {
            (headers, [(TTL, ttl.to_string())], text).into_response()
        }
        Err(status) => {
            (status, [(header::CONTENT_TYPE, "text/html")], page(status)).into_response()
        }
    }
}

fn instance_of(
    imds: &Imds,
    audience: Audience,
    peer: Option<IpAddr>,
) -> Result<InstanceId, StatusCode> {
    match audience {
        Audience::Instance(id) => Ok(id),
        Audience::BySource => peer
            .and_then(|address| imds.simulator.with(|model, now| model.instance_of(address, now)))
            .ok_or(StatusCode::NOT_FOUND),
    }
}

struct Answer {
    text: String,
    /// Lifetime in seconds of the token in `text`.
    ttl: Option<u32>,
}

impl Imds {
    fn answer(
        &self,
        instance: &InstanceId,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, StatusCode> {
        let mode = self.mode(instance);
        if mode == Mode::Disabled {
            return Err(StatusCode::FORBIDDEN);
        }
        match *method {
            Method::PUT => self.new_token(instance, path, headers),
            Method::GET | Method::HEAD => self.metadata(instance, mode, path, headers),
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
        Ok(Answer { text, ttl: Some(ttl) })
    }

    fn metadata(
        &self,
        instance: &InstanceId,
        mode: Mode,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, StatusCode> {
        let now = self.simulator.clock().now();
        let allowed = match headers.get(TOKEN) {
            None => mode == Mode::TokensOptional,
            Some(token) => self.tokens(|tokens| tokens.is_valid(token.as_bytes(), instance, now)),
        };
        if !allowed {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let text = self.simulator.with(|model, now| model.imds(instance, path, now));
        text.map(|text| Answer { text, ttl: None }).ok_or(StatusCode::NOT_FOUND)
    }
}

/// The body of an error. Clients look at the status only.
fn page(status: StatusCode) -> String {
    format!("<!DOCTYPE html><html><head><title>{status}</title></head><body></body></html>\n")
}

#[cfg(test)]
mod fuzz;
