//! Any path and headers get a short text or a status from IMDS.

use axum::body::Body;
use axum::http::HeaderValue;
use mangle::{Document, hostile};
use proptest::prelude::*;
use tower::ServiceExt as _;

use super::*;
use crate::clock::Clock;
use crate::seed::seed;
use crate::topology::Topology;

const EXAMPLE: &str = include_str!("../../examples/two-nodes.yaml");

const PATHS: &[&str] = &[
    "/",
    "/latest/api/token",
    "/latest/meta-data/mac",
    "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/vpc-ipv4-cidr-blocks",
    "/2021-01-03/dynamic/instance-identity/document",
    "/latest/meta-data/iam/security-credentials/r?x=y",
];

fn paths() -> Vec<Vec<u8>> {
    PATHS.iter().map(|path| path.as_bytes().to_vec()).collect()
}

/// The status and the text of the answer.
async fn ask(
    router: Router,
    method: Method,
    path: &Document,
    header: (HeaderName, &Document),
) -> Option<(StatusCode, String)> {
    let value = HeaderValue::from_bytes(header.1).ok()?;
    let request = Request::builder().method(method).uri(&**path).header(header.0, value);
    // hyper refuses such a request before it arrives here.
    let reply = router.oneshot(request.body(Body::empty()).ok()?).await.unwrap();
    let status = reply.status();
    let text = axum::body::to_bytes(reply.into_body(), 1 << 16).await.unwrap();
    Some((status, String::from_utf8(text.to_vec()).unwrap()))
}

proptest! {
    #[test]
    fn fuzz_imds(
        method in prop::sample::select(vec![Method::GET, Method::PUT, Method::HEAD, Method::POST]),
        path in hostile(paths()),
        header in prop::sample::select(vec![TOKEN, TTL, FORWARDED]),
        value in hostile(vec![b"21600".to_vec(), b"AQAEA".to_vec(), b"1".to_vec()]),
        with_token: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let topology = Topology::parse(EXAMPLE).unwrap();
        let clock = Clock::start(topology.clock);
        let (world, instances) = seed(&topology, clock.now()).unwrap();
        let imds = Imds::new(Arc::new(Simulator::new(world, clock, None)));
        let now = imds.simulator.clock().now();
        let token = imds.tokens(|tokens| tokens.issue(&instances[0], 60, now));
        let router = router(Arc::new(imds), Audience::Instance(instances[0].clone()));
        let token = Document(token.into_bytes());
        let header = if with_token { (TOKEN, &token) } else { (header, &value) };
        let answer = runtime.block_on(ask(router, method.clone(), &path, header));
        if let Some((status, text)) = answer {
            let known = [200, 400, 401, 403, 404, 405].contains(&status.as_u16());
            prop_assert!(known, "{method} {path:?}: {status} {text}");
            prop_assert!(status != 200 || with_token || method == Method::PUT, "{path:?}: {text}");
        }
    }
}
