//! A metadata service whose answers the test sets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

/// The service's answers: text by path.
pub(super) type Shown = BTreeMap<String, String>;

/// The same numbers in each run.
pub(super) struct Chance(SplitMix64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n
    }
}

/// Starts the service and returns its URL.
pub(super) async fn start(shown: Arc<Mutex<Shown>>) -> String {
    let router = Router::new().fallback(answer).with_state(shown);
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(vpc_sim::serve::serve(listener, router));
    url
}

async fn answer(State(shown): State<Arc<Mutex<Shown>>>, request: Request) -> Response {
    if request.method() == Method::PUT {
        let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
        return (ttl, "token").into_response();
    }
    let found = shown.lock().unwrap().get(request.uri().path()).cloned();
    found.ok_or(StatusCode::NOT_FOUND).into_response()
}
