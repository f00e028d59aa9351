//! What the daemon says about itself on this machine alone, by HTTP. Paths and shapes are those of
//! amazon-vpc-cni-k8s, since its support script and its users ask there. It needs no disk, so it also answers
//! while the daemon cannot make its socket.
//!
//! Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/introspect.go`; `/v1/pods` is that of v1.5.

mod shapes;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ipam::view::PoolView;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::handle::{Handle, Stopped};
use crate::http::{self, Listener};
use crate::service::Views;
use crate::{error_chain, socket};

/// The pause between two attempts to listen. Another daemon may have the port until it has stopped.
const AFTER_FAILED_BIND: Duration = Duration::from_secs(5);

/// Where to serve, and what only the agent's caller knows.
#[derive(Debug, Clone)]
pub struct Introspection {
    /// The address.
    pub bind: BindAddress,
    /// The settings in force.
    pub settings: watch::Receiver<ShownSettings>,
}

/// The address of the introspection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAddress {
    /// An address of this machine that no other machine reaches.
    Loopback(SocketAddr),
    /// A Unix socket, which only root can use.
    Unix(PathBuf),
}

/// Settings as they are shown, without passwords.
#[derive(Debug, Clone, Default)]
pub struct ShownSettings {
    /// The answer to `/v1/ipamd-env-settings`.
    pub ipamd: Value,
    /// The answer to `/v1/networkutils-env-settings`.
    pub network: Value,
}

#[derive(Debug, Clone)]
struct Asked {
    handle: Handle,
    views: Arc<Views>,
    settings: watch::Receiver<ShownSettings>,
}

/// The paths that there are. `/v1/view` is ours: the message of the socket's View.
const PATHS: [&str; 6] = [
    "/v1/enis",
    "/v1/eni-configs",
    "/v1/pods",
    "/v1/networkutils-env-settings",
    "/v1/ipamd-env-settings",
    proto::VIEW_PATH,
];

/// Serves. If the address is taken, it warns once and keeps trying.
pub(crate) async fn serve_forever(
    introspection: Introspection,
    handle: Handle,
    views: Arc<Views>,
) -> Infallible {
    let Introspection { bind, settings } = introspection;
    let listener = listen_with_retries(&bind).await;
    tracing::info!(at = %bind, "introspection is served");
    http::serve_forever(listener, router(Asked { handle, views, settings })).await
}

fn router(asked: Asked) -> Router {
    let [enis, eni_configs, pods, network, ipamd, view] = PATHS;
    Router::new()
        .route(enis, get(async |State(asked): State<Asked>| show(asked, shapes::enis).await))
        .route(pods, get(async |State(asked): State<Asked>| show(asked, shapes::pods).await))
        .route(eni_configs, get(async |State(asked): State<Asked>| eni_config(asked).await))
        .route(network, get(async |State(asked): State<Asked>| Json(asked.shown().network)))
        .route(ipamd, get(async |State(asked): State<Asked>| Json(asked.shown().ipamd)))
        .route(view, get(whole_view))
        .fallback(get(async |_: Uri| Json(json!({"AvailableCommands": PATHS}))))
        .with_state(asked)
}

impl Asked {
    fn shown(&self) -> ShownSettings {
        self.settings.borrow().clone()
    }
}

/// The name of the node's ENIConfig, as a JSON text.
async fn eni_config(asked: Asked) -> Result<Json<String>, (StatusCode, &'static str)> {
    let view = asked.handle.view().await;
    let view = view.map_err(|_stopped| (StatusCode::SERVICE_UNAVAILABLE, "ipamd is stopping\n"))?;
    let none =
        "custom networking is off, or the API server has not named this node's ENIConfig yet\n";
    view.eni_config.map(Json).ok_or((StatusCode::NOT_FOUND, none))
}

/// The pool in one of the shapes.
async fn show(asked: Asked, shape: fn(&PoolView) -> Value) -> Result<Json<Value>, StatusCode> {
    let view = asked.handle.view().await.map_err(stopped)?;
    Ok(Json(shape(&view)))
}

async fn whole_view(State(asked): State<Asked>) -> Result<Response, StatusCode> {
    let view = asked.views.view(&asked.handle).await.map_err(stopped)?;
    let protobuf = [(CONTENT_TYPE, "application/x-protobuf")];
    Ok((protobuf, view.encode_to_vec()).into_response())
}

fn stopped(_: Stopped) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}

async fn listen_with_retries(bind: &BindAddress) -> Listener {
    let mut warned = false;
    loop {
        match listen(bind).await {
            Ok(listener) => return listener,
            Err(fault) if !warned => {
                let help = "free the address, or set DISABLE_INTROSPECTION=true";
                tracing::warn!(at = %bind, %fault, help, again_every = ?AFTER_FAILED_BIND, "introspection cannot be served");
                warned = true;
            }
            Err(_again) => {}
        }
        tokio::time::sleep(AFTER_FAILED_BIND).await;
    }
}

async fn listen(bind: &BindAddress) -> io::Result<Listener> {
    match bind {
        BindAddress::Loopback(address) => TcpListener::bind(address).await.map(Listener::Tcp),
        BindAddress::Unix(path) => match socket::listen(path) {
            Ok((listener, _file)) => Ok(Listener::Unix(listener)),
            Err(fault) => Err(io::Error::other(error_chain(&fault))),
        },
    }
}

impl std::fmt::Display for BindAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BindAddress::Loopback(address) => write!(f, "{address}"),
            BindAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
