//! The EC2 Query API over HTTP.
//!
//! This module decodes requests, calls the simulator and renders answers. It must not know what an
//! operation does.

mod actions;
mod auth;
mod params;
mod xml;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use ec2_model::ApiError;
use ec2_model::request::Action;
use ec2_model::response::Response as Answer;

pub use self::auth::Access;
use self::params::Params;
use self::xml::Xml;
use crate::serve::{Hangup, Peer};
use crate::simulator::{Caller, ReplyLost, Simulator};

/// The version of the API that current SDKs request.
const VERSION: &str = "2016-11-15";

const NAMESPACE: &str = r#" xmlns="http://ec2.amazonaws.com/doc/2016-11-15/""#;

/// The header in which the Rust and Java SDKs look for the request id. botocore reads the body.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// The state that every request uses.
#[derive(Debug)]
struct Api {
    simulator: Arc<Simulator>,
    access: Access,
    n_requests: AtomicU64,
}

/// The API of `simulator` at `/`, for the callers that `access` allows.
pub fn router(simulator: Arc<Simulator>, access: Access) -> Router {
    let api = Arc::new(Api { simulator, access, n_requests: AtomicU64::new(0) });
    Router::new().route("/", get(handle).post(handle)).with_state(api)
}

async fn handle(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let address = peer.map(|Extension(Peer(address))| address.ip().to_canonical());
    let request_id = api.next_request_id();
    let form = form_of(query.unwrap_or_default(), &body);
    let (status, text) = match api.answer(&form, &headers, address).await {
        Ok((action, answer)) => (StatusCode::OK, success(action, &request_id, &answer)),
        Err(Failure::ReplyLost) => return Hangup.into_response(),
        Err(Failure::Refused(error)) => (status_of(&error), refusal(&request_id, &error)),
    };
    let headers = [
        (header::CONTENT_TYPE, "text/xml;charset=UTF-8"),
        (header::SERVER, "AmazonEC2"),
        (REQUEST_ID, request_id.as_str()),
    ];
    (status, headers, text).into_response()
}

/// Why a call has no successful answer.
enum Failure {
    Refused(ApiError),
    ReplyLost,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<ReplyLost> for Failure {
    fn from(_lost: ReplyLost) -> Self {
        Self::ReplyLost
    }
}

impl Api {
    async fn answer(
        &self,
        form: &[u8],
        headers: &HeaderMap,
        address: Option<IpAddr>,
    ) -> Result<(Action, Answer), Failure> {
        let mut params = Params::from_form(form)?;
        let caller = self.access.caller(auth::scope(headers, &mut params)?)?;
        let caller = Caller { address, ..caller };
        let name = params.text("Action").ok_or_else(missing_action)?;
        check_version(&mut params)?;
        let parameters = params.as_map().clone();
        let action = name.parse::<Action>();
        let request = action.clone().and_then(|action| actions::read(action, &mut params));
        let answer = self.simulator.call(caller, &name, parameters, request).await??;
        Ok((action?, answer))
    }

    /// A request id in the form of a UUID, different for each request.
    fn next_request_id(&self) -> String {
        let number = self.n_requests.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id())
    }
}

fn form_of(query: String, body: &[u8]) -> Vec<u8> {
    let mut form = query.into_bytes();
    if !form.is_empty() && !body.is_empty() {
        form.push(b'&');
    }
    form.extend_from_slice(body);
    form
}

fn missing_action() -> ApiError {
    ApiError::new("MissingAction", "The request is missing an action or a required parameter.")
}

fn check_version(params: &mut Params) -> Result<(), ApiError> {
    let version = params.required("Version")?;
    if version == VERSION {
        return Ok(());
    }
    let message = format!("The API version {version} is not known; use {VERSION}.");
    Err(ApiError::new("NoSuchVersion", message))
}

fn success(action: Action, request_id: &str, answer: &Answer) -> String {
    Xml::document(&format!("{action}Response"), NAMESPACE, |xml| {
        xml.text("requestId", request_id);
        actions::render(xml, action, answer);
    })
}

fn refusal(request_id: &str, error: &ApiError) -> String {
    Xml::document("Response", "", |xml| {
        xml.node("Errors", |xml| {
            xml.node("Error", |xml| {
                xml.text("Code", &error.code);
                xml.text("Message", &error.message);
            });
        });
        xml.text("RequestID", request_id);
    })
}

fn status_of(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod fuzz;
